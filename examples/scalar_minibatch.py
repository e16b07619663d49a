"""Step 1 of 4, the question, answered with numbers: in a minibatch, what is averaged?

You know stochastic gradient descent for one example. In a batch every unit has one activation per
example. Are they averaged? No: forward and backward run for each example as before, and each
example keeps its own activations and deltas. Only the gradient is averaged.

The network is the one of `dptrain explain`, with the same numbers: 2 inputs, 2 hidden units, one
output. The weight w12 leads from input 1 to hidden unit 2, where the bias b2 is added; v2 leads
from hidden unit 2 to the output, where c is added. A hidden unit's activation is a = tanh(z), whose
slope is 1 - a^2. The loss of one example is L = (y - t)^2, so its slope along y is 2*(y - t).

Step 2, numpy_minibatch.py, has the same numbers as arrays.
"""

from math import tanh
from os import environ

Numbers = list[float]

NAMES = ["w11", "w12", "w21", "w22", "b1", "b2", "v1", "v2", "c"]  # weights and biases
VALUE_NAMES = ["x1", "x2", "t", "z1", "z2", "a1", "a2", "y", "L"]  # of one example
START = [-1.25, -0.25, -0.75, -1.0, -0.5, -0.75, -0.75, 1.25, 0.75]
EXAMPLES = [[0.5, 1.5, -0.5], [-1.5, -0.5, -1.0], [1.5, 0.5, 0.0], [-2.0, 1.0, 1.0]]  # x1, x2, t
SIZE = 4  # examples in the minibatch; each is one shard
LEARNING_RATE = 0.5
FORMULAS = ["x1", "x2", "t", "z1 = w11*x1 + w21*x2 + b1", "z2 = w12*x1 + w22*x2 + b2"]
FORMULAS += ["a1 = tanh(z1)", "a2 = tanh(z2)", "y = v1*a1 + v2*a2 + c", "L = (y - t)^2"]
FORMULAS += ["delta_out = 2*(y - t)"]
FORMULAS += ["delta_1 = delta_out*v1*(1 - a1^2)", "delta_2 = delta_out*v2*(1 - a2^2)"]
FORMULAS += ["dL/dw11 = delta_1*x1", "dL/dw12 = delta_2*x1", "dL/dw21 = delta_1*x2"]
FORMULAS += ["dL/dw22 = delta_2*x2", "dL/db1 = delta_1", "dL/db2 = delta_2"]
FORMULAS += ["dL/dv1 = delta_out*a1", "dL/dv2 = delta_out*a2", "dL/dc = delta_out"]


def forward(parameters: Numbers, example: Numbers) -> Numbers:
    w11, w12, w21, w22, b1, b2, v1, v2, c = parameters
    x1, x2, t = example
    z1 = w11 * x1 + w21 * x2 + b1
    z2 = w12 * x1 + w22 * x2 + b2
    a1 = tanh(z1)
    a2 = tanh(z2)
    y = v1 * a1 + v2 * a2 + c
    loss = (y - t) * (y - t)
    return [x1, x2, t, z1, z2, a1, a2, y, loss]


def backward(parameters: Numbers, values: Numbers) -> tuple[Numbers, Numbers]:
    v1, v2 = parameters[6], parameters[7]
    x1, x2, t, _z1, _z2, a1, a2, y, _loss = values
    d_out = 2 * (y - t)
    d1 = d_out * v1 * (1 - a1 * a1)
    d2 = d_out * v2 * (1 - a2 * a2)
    deltas = [d_out, d1, d2]
    gradient = [d1 * x1, d2 * x1, d1 * x2, d2 * x2, d1, d2, d_out * a1, d_out * a2, d_out]
    return deltas, gradient


def add(left: Numbers, right: Numbers) -> Numbers:
    return [a + b for a, b in zip(left, right, strict=True)]


def divide(numbers: Numbers, count: int) -> Numbers:
    return [number / count for number in numbers]


def update(parameters: Numbers, mean: Numbers) -> Numbers:
    return [p - LEARNING_RATE * g for p, g in zip(parameters, mean, strict=True)]


def losses(parameters: Numbers) -> Numbers:
    l1, l2, l3, l4 = [forward(parameters, example)[8] for example in EXAMPLES]
    return [l1, l2, l3, l4, ((l1 + l2) + (l3 + l4)) / SIZE]


def show(heading: str, names: list[str], rows: dict[str, Numbers]) -> None:
    print(f"\n{heading}\n       " + "".join(f"{name:>8}" for name in names))
    for label, numbers in rows.items():
        print(f"{label:<7}" + "".join(f"{number:8.4f}" for number in numbers))


def step_on(workers: int) -> list[Numbers]:
    """Takes the step on several workers; returns each one's own copy of the new parameters."""
    rows: dict[str, Numbers] = {}
    sums: list[Numbers] = []
    owners: list[int] = []
    for worker in range(workers):
        for shard in range(worker * SIZE // workers, (worker + 1) * SIZE // workers):
            _, shard_sum = backward(START, forward(START, EXAMPLES[shard]))
            rows[f"w{worker} s{shard}"] = shard_sum
            sums.append(shard_sum)
            owners.append(worker)
    left, right = add(sums[0], sums[1]), add(sums[2], sums[3])
    total = add(left, right)
    rows |= {f"w{owners[0]} s0+1": left, f"w{owners[2]} s2+3": right, f"w{owners[0]} sum": total}
    copies = [update(START, divide(total, SIZE)) for _ in range(workers)]
    for worker in range(workers):
        rows[f"w{worker} new"] = copies[worker]
    show(f"{workers} workers (w) hold 4 shards (s)", NAMES, rows)
    return copies


if environ.get("PMI_RANK", environ.get("OMPI_COMM_WORLD_RANK", "0")) != "0":
    raise SystemExit  # under mpirun, which this example has no use for, one process prints

show("1. The minibatch: one network, four examples", NAMES, {"start": START})
print("\nEach example has its own column. Only the gradient is averaged (last column).")
print(" " * 34 + "    ex. 1    ex. 2    ex. 3    ex. 4     mean")
columns = []
for example in EXAMPLES:
    values = forward(START, example)
    deltas, gradient = backward(START, values)
    columns.append(values + deltas + gradient)
g1, g2, g3, g4 = [column[12:] for column in columns]
total = add(add(g1, g2), add(g3, g4))
mean = divide(total, SIZE)
for i, formula in enumerate(FORMULAS):
    cells = [column[i] for column in columns] + ([mean[i - 12]] if i >= 12 else [])
    print(f"{formula:<34}" + "".join(f"{cell:9.4f}" for cell in cells))

new = update(START, mean)
step = {"start": START, "sum": total, "mean": mean, "new": new}
show(f"2. One update: mean = sum / {SIZE}, new = start - {LEARNING_RATE} * mean", NAMES, step)
loss_rows = {"start": losses(START), "new": losses(new)}
show("The loss of each example, and their mean", ["L1", "L2", "L3", "L4", "mean"], loss_rows)

print("""
3. Workers: each example is now a shard, and each worker holds some shards
On paper the brackets in a sum do not matter. A computer rounds each addition,
so they do. The mean gradient with all its digits, in two ways:""")
print(f"      {'((g1 + g2) + (g3 + g4))/4':>26}{'(((g1 + g2) + g3) + g4)/4':>26}   same bits")
for i, name in enumerate(NAMES):
    tree, line = (g1[i] + g2[i]) + (g3[i] + g4[i]), ((g1[i] + g2[i]) + g3[i]) + g4[i]
    print(f"{name:<6}{tree / SIZE!r:>26}{line / SIZE!r:>26}   {tree == line}")
print("""So the brackets are fixed: (s0 + s1) + (s2 + s3), whoever holds the shards, as
on one worker in part 2. The holder of the left part of a sum adds it. All get
the last sum, divide it once, by the number of examples, and update.
Of n workers, worker k holds the shards from k*4//n up to, not with, (k+1)*4//n.""")
for workers in [2, 3]:
    same = step_on(workers) == [new] * workers
    print(f"All {workers} have the new parameters of part 2, to the last bit. equal: {same}")

c1, c2, c3, c4 = [column[:9] for column in columns]
averaged = divide(add(add(c1, c2), add(c3, c4)), SIZE)
value_rows = {"mean": averaged, "forward": forward(START, averaged[:3])}
show("4. Mistake: average the values, then go backward once", VALUE_NAMES, value_rows)
print("forward starts from the mean x1 and x2. Its a1 and a2 are not the mean ones.")
deltas, wrong = backward(START, averaged)
show("The deltas from the means", ["d_out", "d1", "d2"], {"deltas": deltas})
show("The gradient from the means", NAMES, {"wrong": wrong, "right": mean})
print("The mean of products is not the product of means: w11, w21, w22, b1 and v2 have")
print("the wrong sign. Only c is right, for its gradient, 2*(y - t), has no product.")

w2_mean = divide(add(g3, g4), 2)
wrong = divide(add(add(g1, g2), w2_mean), 3)
means = {"w0 mean": g1, "w1 mean": g2, "w2 mean": w2_mean, "wrong": wrong, "right": mean}
show("5. Mistake: average the means of workers with 1, 1 and 2 examples", NAMES, means)
print("wrong = (w0 + w1 + w2) / 3: examples 1 and 2 count 1/3 each, 3 and 4 only 1/6.")
