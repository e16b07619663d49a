"""dptrain evaluate."""

from typing import Any, get_args

import click

from dptrain.checked import Plain
from dptrain.cli.options import Joint, Name, json_option, model_option
from dptrain.cli.ranks import connect_as, level_option
from dptrain.cli.results import print_result
from dptrain.config.names import Part
from dptrain.words import counted

EACH = {"f1_each": ("F1", 9, ".4f"), "roc_auc_each": ("ROC-AUC", 9, ".4f"),
        "rmse_each": ("RMSE", 12, ".4g"), "mae_each": ("MAE", 12, ".4g"),
        "r2_each": ("R2", 9, ".4f")}  # fmt: skip
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
    help="Column to compare with; repeat it for several.",
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
    MAE, R2; of several targets those of each, too. All are exact, and the same on any number of
    ranks. Above 134 million rows times classes there is no ROC-AUC, above 1,000 classes no
    confusion matrix.

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
    names = found.get("classes") or found.get("targets") or range(len(found.get("f1_each", ())))
    names = [*map(str, names)]
    if "f1_each" in found and "roc_auc" not in found and "roc_auc_each" not in found:
        lines.append("no ROC-AUC of so many rows and classes")
    if len(names) > MOST_NAMED:
        return "\n".join([*lines, f"no table of so many classes: {len(names):,}"])
    return "\n".join(lines + (_table(found, names) if names else []))


def _table(found: Plain, names: list[str]) -> list[str]:
    """Return the confusion matrix where there is one, and what is known of each class, in lines."""
    counts = found.get("confusion", [[] for _ in names])
    width = 2 + max(*map(len, names), *(len(str(max(row, default=0))) for row in counts))
    kinds = [(*how, found[key]) for key, how in EACH.items() if key in found]
    head = "".join(f"{name:>{width}}" for name in names if counts[0])
    title = ["", "confusion (row: true class, column: predicted class)"] * bool(counts[0]) or [""]
    lines = [*title, " " * width + head + "".join(f"{name:>{room}}" for name, room, *_ in kinds)]
    for number, (name, row) in enumerate(zip(names, counts, strict=True)):
        cells = "".join(f"{count or '.':>{width}}" for count in row)
        for _, room, form, values in kinds:
            cells += f"{'' if values[number] is None else f'{values[number]:{form}}':>{room}}"
        lines.append(f"{name:>{width}}{cells}".rstrip())
    return lines
