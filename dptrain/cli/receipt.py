"""dptrain receipt."""

import json
from pathlib import Path

import click

from dptrain.cli.options import Alone


@click.command(cls=Alone)
@click.argument("run")
def receipt(run: str) -> int:
    """Print a short statement of a finished RUN, to be signed and handed over with its model.

    It is JSON in the in-toto form: from what data, by what program and settings the model was
    trained, what it came to, the hash of the receipt's last line, and the model's SHA-256. The
    run's files are checked first.
    """
    from dptrain.run.statement import stated

    click.echo(json.dumps(stated(Path(run)), indent=2))
    return 0
