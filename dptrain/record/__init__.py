"""What a run leaves behind, and what it shows while it goes on; all of it by one rank."""
