"""dptrain receipt."""

import json
from pathlib import Path

import click

from dptrain.cli.help import Told
from dptrain.cli.ranks import is_first
from dptrain.cli.results import out_options, say_written
from dptrain.record.files import check_writable, write_whole
from dptrain.words import counted


@click.command(cls=Told)
@click.argument("run")
@out_options("Where to write it; standard output unless given.")
def receipt(run: str, out: str | None, force: bool) -> None:
    """Write a short statement of a finished RUN, to be signed and handed over.

    It is JSON in the in-toto form: from what data, by what program and settings the model was
    trained, what it came to, the hash of the receipt's last line, and the model's SHA-256. The
    run's files are checked first.
    """
    from dptrain.run.statement import stated

    if not is_first():
        return
    if out is not None:
        check_writable(Path(out), "--out", force=force)
    found = stated(Path(run))
    text = f"{json.dumps(found, indent=2)}\n"
    if out is None:
        click.echo(text, nl=False)
    else:
        write_whole(Path(out), text.encode(), shared=True)
        say_written(out, counted(found["predicate"]["result"]["steps"], "step"))
