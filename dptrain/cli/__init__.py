"""The command line: a thin shell over the Python functions, and the only place that knows click.

Nothing heavy is imported before a command runs: `dptrain --help` needs neither NumPy nor MPI.
"""
