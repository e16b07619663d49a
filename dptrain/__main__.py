"""Starts the command line: `python -m dptrain`."""

from dptrain.cli.start import main

if __name__ == "__main__":
    main()
