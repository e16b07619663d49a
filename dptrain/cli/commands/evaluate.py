"""dptrain evaluate."""

from typing import Any, get_args

import click

from dptrain.checked import Plain
from dptrain.cli.options import Joint, Name, json_option, model_option
from dptrain.cli.ranks import connect_as, level_option
from dptrain.cli.results import print_result
from dptrain.config.names import Part
from dptrain.words import counted

EACH = {"f1_each": "F1", "roc_auc_each": "ROC-AUC"}
MOST_NAMED = 1000
"""Classes that are listed one by one."""


@click.command(cls=Joint)
@click.argument("run")
@click.argument("data", nargs=-1, metavar="[DATA]...")
@click.option(
    "--target",
    type=Name(),
    multiple=True,
    metavar="NAME",
    help="CSV column to compare with; repeat it for several.",
)
@click.option(
    "--on",
    type=click.Choice(get_args(Part)),
    help="Which rows of the run's data: trained on, held out by the seed, or test rows.",
)
@model_option
@level_option
@json_option
def evaluate(run: str, cpu_level: str | None, as_json: bool, **asked: Any) -> None:
    """Loss and metrics of the model in RUN on DATA, or on the run's own test data.

    Of classes: accuracy, log loss, F1, the area under the ROC curve (of two classes, or of each
    against the rest), and the confusion matrix; macro is the mean over classes. Of values: RMSE,
    MAE, R2. Each is exact, and the same on any number of ranks. Above 134 million rows times
    classes there is no ROC-AUC, above 1,000 classes no confusion matrix.

    Of a file with x_test and y_test these are taken, else x and y. With --on train or validation
    DATA is where the run's own data lies now, if it has moved: other data is refused.
    """
    world = connect_as(run, cpu_level)
    from dptrain.run.apply import evaluate_run

    print_result(evaluate_run(run, world=world, **asked), as_json, _evaluation_text)


def _evaluation_text(found: Plain) -> str:
    """Return an evaluation for people, with a line for each class or label."""
    from dptrain.record.progress import measures

    of_all = {"f1_macro": "macro F1", "roc_auc": "ROC-AUC", "roc_auc_macro": "macro ROC-AUC"}
    known = [(name, found[key]) for key, name in of_all.items() if found.get(key) is not None]
    more = [f"{name} {value:.4f}" for name, value in known]
    part = f", {found['on']} rows" if "on" in found else ""
    lines = [f"{found['data']}{part}: {counted(found['examples'], 'example')}"]
    lines += [", ".join([measures(found), *more])]
    names = [str(name) for name in found.get("classes", range(len(found.get("f1_each", ()))))]
    if "f1_each" in found and "roc_auc" not in found and "roc_auc_each" not in found:
        lines.append("no ROC-AUC of so many rows and classes")
    if len(names) > MOST_NAMED:
        return "\n".join([*lines, f"no table of so many classes: {len(names):,}"])
    return "\n".join(lines + (_table(found, names) if names else []))


def _table(found: Plain, names: list[str]) -> list[str]:
    """Return the confusion matrix where there is one, and what is known of each class, in lines."""
    counts = found.get("confusion", [[] for _ in names])
    width = 2 + max(*map(len, names), *(len(str(max(row, default=0))) for row in counts))
    kinds = [(name, found[key]) for key, name in EACH.items() if key in found]
    head = "".join(f"{name:>{width}}" for name in names if counts[0])
    title = ["", "confusion (row: true class, column: predicted class)"] * bool(counts[0]) or [""]
    lines = [*title, " " * width + head + "".join(f"{name:>9}" for name, _ in kinds)]
    for number, (name, row) in enumerate(zip(names, counts, strict=True)):
        cells = "".join(f"{count or '.':>{width}}" for count in row)
        each = [values[number] for _, values in kinds]
        shown = "".join(f"{'' if value is None else f'{value:.4f}':>9}" for value in each)
        lines.append((f"{name:>{width}}" + cells + shown).rstrip())
    return lines
