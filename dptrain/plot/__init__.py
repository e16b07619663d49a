"""The learning curves of stored runs, as a picture."""
