"""A JAX network that learns how two coupled pendulums move, and keeps their energy by its form.

It learns one number of a state, the energy H(q, p), from how the state changes: dq/dt = dH/dp and
dp/dt = -dH/dq (Greydanus and others, Hamiltonian Neural Networks, 2019). So the network's output is
a gradient itself, and training takes the gradient of that: two lines in JAX.

    python examples/pendulum.py states.npz
    mpirun -n 3 dptrain train states.npz --model examples/pendulum.py:build --scale none --epochs 30

`build` returns two functions, and the file imports nothing of dptrain.
"""

import sys
from typing import Any

import numpy as np


def main() -> None:
    """Write random states (two angles, two momenta), and how gravity and a spring change them.

    H = |p|^2 / 2 + (1 - cos q1) + (1 - cos q2) + (q1 - q2)^2 / 2, with a little noise in training.
    """
    rng = np.random.default_rng(0)
    q, p = rng.uniform(-1.5, 1.5, (2, 6000, 2))
    spring = q[:, :1] - q[:, 1:]
    change = np.hstack([p, -np.sin(q) - np.hstack([spring, -spring])])
    x, y = np.hstack([q, p]), change + 0.01 * rng.standard_normal(change.shape)
    np.savez(sys.argv[1], x=x[:5000], y=y[:5000], x_test=x[5000:], y_test=change[5000:])


def build(shape: tuple[int, ...], outputs: int, width: int = 64) -> Any:
    """Return what makes parameters of a key, and what makes changes of states [m, 4]."""
    import jax
    import jax.numpy as jnp

    half = outputs // 2

    def init(key: Any) -> Any:
        sizes = [shape[0], width, width, 1]
        keys = jax.random.split(key, len(sizes) - 1)
        return [
            {"weight": jax.random.normal(k, (a, b)) / a**0.5, "bias": jnp.zeros(b)}
            for k, a, b in zip(keys, sizes, sizes[1:], strict=False)
        ]

    def hamiltonian(params: Any, state: Any) -> Any:
        z = state
        for layer in params[:-1]:
            z = jnp.tanh(z @ layer["weight"] + layer["bias"])
        return (z @ params[-1]["weight"] + params[-1]["bias"])[0]

    def apply(params: Any, x: Any) -> Any:
        slope = jax.vmap(jax.grad(hamiltonian, argnums=1), (None, 0))(params, x)
        return jnp.hstack([slope[:, half:], -slope[:, :half]])

    return init, apply


if __name__ == "__main__":
    main()
