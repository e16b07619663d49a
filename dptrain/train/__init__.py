"""The step and the epoch: what computes, and never touches a file."""
