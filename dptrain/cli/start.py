"""Where `dptrain` begins: Ctrl-C ends it without a traceback while the rest is being imported."""

import signal


def main() -> None:
    """Run the command line; see `dptrain.cli.main`."""
    python = signal.default_int_handler
    if signal.getsignal(signal.SIGINT) is python:  # else somebody has it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from dptrain.cli.main import main as command_line

    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, python)
    command_line()
