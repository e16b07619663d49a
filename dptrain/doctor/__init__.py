"""What is wrong with this MPI, these nodes and these files, before a job is lost to it."""
