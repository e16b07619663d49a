"""dptrain launch."""

import click

from dptrain.cli.help import Told
from dptrain.jobs import SCHEDULERS, script


@click.command(cls=Told)
@click.argument("scheduler", type=click.Choice(SCHEDULERS), metavar="SCHEDULER")
def launch(scheduler: str) -> None:
    """Print a job script, to be changed at its top and handed in.

    The job saves the run shortly before its time is up, queues itself again and goes on, as often
    as it takes, until six starts have saved nothing more. slurm starts the ranks by srun,
    slurm-mpirun by the MPI's own mpirun.
    """
    click.echo(script(scheduler), nl=False)
