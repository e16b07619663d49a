"""From files to examples: what a run learns from."""
