"""dptrain verify."""

from typing import Any

import click

from dptrain.checked import Plain
from dptrain.cli.help import shared
from dptrain.cli.options import Joint, json_option, model_option, quiet_option
from dptrain.cli.ranks import connect, connect_as, level_option
from dptrain.cli.results import print_result
from dptrain.words import counted


@click.command(cls=Joint)
@click.argument("run")
@click.argument("data", nargs=-1, metavar="[DATA]...")
@click.option(
    "--replay",
    metavar="A:B",
    help="Also do the steps A to B once more, counted from 1; A: goes to the last; or all.",
)
@click.option(
    "--statement",
    metavar="FILE",
    help="Compare with what dptrain receipt has stated; of RUN only receipt and model are needed.",
)
@model_option
@shared(
    "--init-from",
    metavar="FILE",
    help="Where the weights are now that the run started from, if they have moved.",
)
@level_option
@json_option
@quiet_option
def verify(run: str, replay: str | None, cpu_level: str | None, as_json: bool, **asked: Any) -> int:
    """Check that RUN did what its receipt says, on any number of ranks.

    Checks the chain of hashes in receipt.jsonl, and the checkpoints and the model against it. With
    --replay the steps are computed again from the newest checkpoint before them; DATA says where
    the data is now, if it has moved. Exit status 0: all as it should be; 1: not.
    """
    step = (replay or "").partition(":")[0]
    first = int(step) if step.isdecimal() and len(step) < 17 else 1
    world = connect() if replay is None else connect_as(run, cpu_level, first)
    from dptrain.run.verify import verify as check

    found = check(run, replay, world=world, **asked)
    print_result(found.values(), as_json, _text)
    return 0 if found.verdict in ("identical", "whole") else 1


def _text(found: Plain) -> str:
    """Return what was checked, for people."""
    marks = (("ok", "fine"), ("note", "notes"), ("wrong", "wrong"))
    lines = [f"{mark:<7}{line}" for mark, name in marks for line in found[name]]
    if found["replayed"]:
        first, last = found["replayed"]
        by = counted(found["ranks"], "rank")
        start = found["replayed_from"]
        start = f"the checkpoint of step {start}" if start else "the beginning"
        lines.append(f"{'replay':<7}steps {first} to {last}, by {by} from {start}")
    difference = found["first_difference"]
    if difference:
        lines += [f"step {difference['step']} is the first that differs:"]
        for name, value in difference["found"].items():
            lines.append(f"  {name}: {_how(name, difference['receipt'][name], value)}")
    return "\n".join([*lines, found["verdict"]])


def _how(name: str, stored: str | None, found: str) -> str:
    """Return how a value differs from the receipt's."""
    if name != "loss" or stored is None:
        return f"{found} here, {stored} in the run"
    here, there = float.fromhex(found), float.fromhex(stored)
    relative = f" (relative {abs(here - there) / abs(there):.1e})" if there else ""
    return f"{here!r} here, {there!r} in the run{relative}"
