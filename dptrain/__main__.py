"""Starts the command line: `python -m dptrain`."""

from dptrain.cli.main import main

if __name__ == "__main__":
    main()
