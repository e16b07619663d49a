"""Step 2 of 4, after scalar_minibatch.py: the same network and numbers, as arrays.

Row i of every array belongs to example i: there is still one activation and one delta for each
example and unit. Where is the sum over the batch, then? Inside the matrix product: the gradient of
the weights, X.T @ Delta, has in row j and column k the sum over the examples i of
x[i, j] * delta[i, k]. The product does in one go what the loop and `add` of step 1 do. The other
transpose, of the weights v on the way back, is not seen here, for v is a vector: with several
outputs it would be Delta_out @ V.T. Chapter 4 of `dptrain explain` says where transposes come from.

Step 3, mpi_minibatch.py, spreads the rows over processes.
"""

from os import environ

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

X = np.array([[0.5, 1.5], [-1.5, -0.5], [1.5, 0.5], [-2.0, 1.0]])  # [examples, inputs]
TARGET = np.array([-0.5, -1.0, 0.0, 1.0])  # [examples]
START = np.array([-1.25, -0.25, -0.75, -1.0, -0.5, -0.75, -0.75, 1.25, 0.75])
NAMES = ["w11", "w12", "w21", "w22", "b1", "b2", "v1", "v2", "c"]  # the order in START
LEARNING_RATE = 0.5


def forward(params: Array, x: Array) -> tuple[Array, Array]:
    """Return the activations [examples, 2] and the outputs y [examples]."""
    w, b, v = params[:4].reshape(2, 2), params[4:6], params[6:8]  # w[i, j] leads from i to j
    a = np.tanh(x @ w + b)
    return a, a @ v + params[8]


def loss_sum(y: Array, target: Array) -> float:
    """Return the sum over the examples, not the mean."""
    return float(np.sum((y - target) ** 2))


def gradient_sum(params: Array, x: Array, target: Array) -> Array:
    """Return the sum over the examples, not the mean, of the gradients [9]."""
    a, y = forward(params, x)
    delta_out = 2 * (y - target)  # [examples]
    delta = np.outer(delta_out, params[6:8]) * (1 - a**2)  # [examples, 2]
    product = x.T @ delta  # here the examples are added up
    return np.concatenate([product.ravel(), delta.sum(axis=0), a.T @ delta_out, [delta_out.sum()]])


def show(label: str, numbers: Array) -> None:
    print(f"{label:<7}" + "".join(f"{number:8.4f}" for number in numbers))


def main() -> None:
    a, y = forward(START, X)
    print("A row for each example: a1, a2, y, and dL/dw11 of this example alone:")
    alone = [gradient_sum(START, X[i : i + 1], TARGET[i : i + 1])[0] for i in range(len(X))]
    for i in range(len(X)):
        show(f"ex. {i + 1}", np.array([*a[i], y[i], alone[i]]))
    total = gradient_sum(START, X, TARGET)
    print(f"Their sum {sum(alone):.4f} is what the product over all rows has: {total[0]:.4f}")
    new = START - LEARNING_RATE * total / len(X)
    print("\nOne update, as in step 1:\n       " + "".join(f"{name:>8}" for name in NAMES))
    for label, row in [("start", START), ("sum", total), ("mean", total / len(X)), ("new", new)]:
        show(label, row)
    means = [loss_sum(forward(params, X)[1], TARGET) / len(X) for params in (START, new)]
    print(f"mean loss before {means[0]:.4f}, after {means[1]:.4f}")


if __name__ == "__main__":
    # under mpirun, which this example has no use for, one process prints
    if environ.get("PMI_RANK", environ.get("OMPI_COMM_WORLD_RANK", "0")) == "0":
        main()
