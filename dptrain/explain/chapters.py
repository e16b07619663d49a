"""What fills the words of chapters 1 to 5 and 8: numbers as they are shown, tables, drawings."""

import math
from collections.abc import Callable
from itertools import product

from dptrain.explain import chapters_digits, plain
from dptrain.explain.found import Averaging, Mistake
from dptrain.explain.letters import Letters, filled
from dptrain.explain.problem import CLASSES, Problem
from dptrain.plot.drawing import Curve, Series, curve, network, tree
from dptrain.plot.words import Drawings, Fields, columns, conditions, rounded, table

Filled = tuple[Fields, Drawings]


def _example(letters: Letters, _: int) -> Filled:
    problem = letters.problem
    units, values = letters.units, letters.values[0]
    names = {"w1j: from x1": "w1{}", "w2j: from x2": "w2{}", "bj: bias": "b{}", "vj: to y": "v{}"}
    way = "z{j} = w1{j}*x1 + w2{j}*x2 + b{j}", "a{j} = tanh(z{j})"
    forward = [each.format(j=j) for j in units for each in way]
    out = " + ".join([*letters.each("v{j}*a{j}"), "c"])
    back = letters.each(
        "delta_{j} = delta_out*v{j}*(1 - a{j}^2)",
        *("dL/dw1{j} = delta_{j}*x1", "dL/dw2{j} = delta_{j}*x2"),
        *("dL/db{j} = delta_{j}", "dL/dv{j} = delta_out*a{j}"),
    )
    fields = {
        "c": values["c"],
        "parameters": table(
            ["", *(f"unit {j}" for j in units)],
            [[name, *(values[label.format(j)] for j in units)] for name, label in names.items()],
        ),
        "forward": letters.formulas(*forward, f"y = {out}", "L = (y - t)^2"),
        "back": letters.formulas("delta_out = 2*(y - t)", *back, "dL/dc = delta_out"),
    }
    return fields, {"network": network(problem.hidden, values)}


def _batch(letters: Letters, _: int) -> Filled:
    problem = letters.problem
    found, names = plain.batch(problem), problem.names
    ways = ("x1", "x2", "t", *letters.each("z{j}", "a{j}"), "y", "L", "delta_out")
    rows = zip(letters.gradients(names), found.sum, found.mean, strict=True)
    differences = [(up - down) / (2 * plain.STEP) for up, down in found.moved]
    fields = {
        "forward and back": letters.table(*ways, *letters.each("delta_{j}")),
        "gradients": table(
            ["dL/d", *letters.head, "sum", "mean"],
            [[*row, *map(rounded, two)] for row, *two in rows],
        ),
        "mean loss": rounded(plain.mean_loss(problem)),
        "largest": f"{max(abs(a - b) for a, b in zip(found.mean, differences, strict=True)):.1e}",
        "differences": table(
            ["dL/d", "mean", "central diff."],
            columns(names, found.mean, differences, show="{:z.8f}".format),
        ),
    }
    return fields, {}


def _averaging(letters: Letters, _: int) -> Filled:
    problem = letters.problem
    found, units = plain.averaging(problem), [f"unit {j + 1}" for j in range(problem.hidden)]
    angle = found.tanh.angle
    fields = {"off": "" if angle is None else f", here {angle:.1f} degrees from the right one"}
    for name in ("tanh", "linear units", "all linear"):
        one = getattr(found, name.replace(" ", "_"))
        rows = columns(problem.names, one.right, one.averaged)
        fields |= {name: table(["dL/d", "right", "averaged"], rows), f"{name} apart": _apart(one)}
    fields["bend"] = table(
        ["", "mean z", "tanh(mean z)", "mean of tanh(z)"],
        columns(units, found.mean_z, found.tanh_of_mean_z, found.mean_a),
    )
    return fields, {"bend": curve(_bend(problem, found))}


def _apart(found: Mistake) -> str:
    if max(abs(a - b) for a, b in zip(found.right, found.averaged, strict=True)) < 1e-12:
        return "the same"
    return "one is zero" if found.angle is None else f"{found.angle:.1f} degrees apart"


def _bend(problem: Problem, found: Averaging) -> Curve:
    points = [(one.z[0], one.a[0]) for one in plain.run(problem)]
    low, high = min(points)[0] - 0.25, max(points)[0] + 0.25
    line = [low + (high - low) * k / 60 for k in range(61)]
    return Curve(
        "Hidden unit 1: the examples lie on the curve, their mean does not",
        "z₁",
        "a₁",
        [
            Series("tanh(z₁)", [(z, math.tanh(z)) for z in line], "line"),
            Series("examples", points, "marks"),
            Series("their mean", [(found.mean_z[0], found.mean_a[0])], "marks"),
        ],
        log=False,
    )


def _recursion(letters: Letters, _: int) -> Filled:
    problem = letters.problem
    sums = dict(zip(problem.names, plain.batch(problem).sum, strict=True))
    units = letters.units
    steps = [label.format(j) for j in units for label in ("v{}*delta_out", "1 - a{}^2", "delta_{}")]

    def entry(name: str, term: str, value: float) -> str:
        terms = " + ".join(filled(term, values) for values in letters.values)
        return f"{name} = sum over examples of {term} = {terms} = {rounded(value)}"

    entries = [
        entry(f"(X^T Delta)_{i}{j}", f"x{i}*delta_{j}", sums[f"w{i}{j}"])
        for i, j in product((1, 2), units)
    ]
    entries += [entry(f"(A^T Delta_out)_{j}1", f"a{j}*delta_out", sums[f"v{j}"]) for j in units]
    fields = {"steps": letters.table("delta_out", *steps), "entries": "\n".join(entries)}
    return fields, {}


def _workers(letters: Letters, _: int) -> Filled:
    problem = letters.problem
    found, names, shards = plain.workers(problem), problem.names, problem.shards
    same = sum(a == b for a, b in zip(found.mean, plain.batch(problem).mean, strict=True))
    differ = sum(a != b for a, b in zip(found.mean, found.one_by_one, strict=True))
    held = [f"s{worker}" for worker in range(len(shards))]
    for into, what in found.messages:
        held[into] = f"({held[into]} + {held[what]})"
    sizes = sorted({len(shard) for shard in shards if shard})
    head = [f"worker {worker}" for worker in range(len(shards))]
    held_by = [", ".join(str(row + 1) for row in shard) or "none" for shard in shards]
    leaves = [
        f"{worker}: ex. {shard}".replace("ex. none", "none")
        for worker, shard in zip(head, held_by, strict=True)
    ]
    fields = conditions(even=len(sizes) == 1, uneven=len(sizes) > 1)
    fields |= {
        "brackets": held[0][1:-1],
        "shards": table(["", "examples"], zip(head, held_by, strict=True)),
        "shard sums": table(["dL/d", *head], columns(names, *found.shard_sums)),
        "all": str(len(names)),
        "same": str(same),
        "differ": str(differ),
        "digits": table(
            ["dL/d", "tree over workers", "one by one"],
            columns(names, found.mean, found.one_by_one, show=lambda value: repr(float(value))),
        ),
        "sizes": " and ".join(map(str, sizes)),
        "means": table(
            ["dL/d", "right", "mean of means"], columns(names, found.mean, found.mean_of_means)
        ),
    }
    root = ("the sum; divided", f"by {len(problem.xs)}, the mean")
    return fields, {"tree": tree(leaves, found.messages, root)}


def _softmax(letters: Letters, _: int) -> Filled:
    problem = letters.problem
    found, true, units = plain.batch(problem), letters.values[0]["class"], letters.units
    formulas = [
        f"y{k} = {' + '.join([*(f'v{j}{k}*a{j}' for j in units), f'c{k}'])}"
        for k in letters.outputs
    ]
    formulas += [
        f"s = {' + '.join(letters.each('exp(y{k})'))}",
        *letters.each("p{k} = exp(y{k})/s"),
    ]
    formulas += [f"L = -log(p{true})"]
    formulas += [f"delta_out_{k} = p{k}" + " - 1" * (str(k) == true) for k in letters.outputs]
    for j in units:
        back = " + ".join(f"v{j}{k}*delta_out_{k}" for k in letters.outputs)
        formulas += [f"back_{j} = {back}", f"delta_{j} = back_{j}*(1 - a{j}^2)"]
    names = [f"v{j}{k}" for j, k in product(units, letters.outputs)] + letters.each("c{k}")
    rows = zip(letters.gradients(names), found.mean[-len(names) :], strict=True)
    weights = [
        [label.format(j), *(letters.values[0][f"{name.format(j)}{k}"] for k in letters.outputs)]
        for label, name, numbers in (("from a{}", "v{}", units), ("bias", "c", (0,)))
        for j in numbers
    ]
    fields = {
        "classes": str(CLASSES),
        "true": true,
        "weights": table(["", *(f"to `y{k}`" for k in letters.outputs)], weights),
        "formulas": letters.formulas(*formulas),
        "ways": letters.table(
            *("class", *letters.each("y{k}", "p{k}"), "L"),
            *letters.each("delta_out_{k}"),
            *letters.each("delta_{j}"),
        ),
        "gradients": table(
            ["dL/d", *letters.head, "mean"], [[*row, rounded(mean)] for row, mean in rows]
        ),
    }
    return fields, {}


CHAPTERS: dict[str, Callable[[Letters, int], Filled]] = {
    "example": _example,
    "batch": _batch,
    "averaging": _averaging,
    "recursion": _recursion,
    "workers": _workers,
    "minibatch": chapters_digits.minibatch,
    "noise": chapters_digits.noise,
    "softmax": _softmax,
}
"""What fills each chapter's words, by the chapter's name, in the chapters' order: made of its
problem and of the seed."""
