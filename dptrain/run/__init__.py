"""A run: its beginning, its files, what is kept of it and what a finished one can be asked."""
