"""Shows that JAX functions are trained as NumPy's models are: sums, bits, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import start

import dptrain
from dptrain import DataConfig, InputError, TrainConfig

pytest.importorskip("jax", reason="jax is not here: make test-frameworks")
from dptrain.data.encode import Flat
from dptrain.model.jax import JaxModel

import jax  # isort: skip
import jax.numpy as jnp  # isort: skip
from jax_models import apply, apply_dropping, initial

jax.config.update("jax_enable_x64", True)
enable_x64: Any = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64


def no_rng() -> np.random.Generator:
    return np.random.default_rng(0)


def perceptron(key: Any) -> Any:
    return initial(key, "float64")


def test_arrays_are_named_by_their_places() -> None:
    model = JaxModel(perceptron, apply)
    found = [(param.name, param.shape, param.kind) for param in model.layout]
    assert found == [
        ("layers.0.bias", (32,), "bias"),
        ("layers.0.weight", (64, 32), "weight"),
        ("layers.1.bias", (10,), "bias"),
        ("layers.1.weight", (32, 10), "weight"),
    ]

    alone = JaxModel(lambda key: perceptron(key)["layers"][0]["weight"], lambda w, x: x @ w)
    assert [param.name for param in alone.layout] == ["params"]  # an empty name names nothing


def test_gradients_and_steps_are_those_of_the_numpy_perceptron() -> None:
    own, model = dptrain.MLP([64, 32, 10], dtype="float64"), JaxModel(perceptron, apply)
    numbers = np.arange(own.num_params, dtype=np.float64)
    parts = [part for weight, bias in own.layers(numbers) for part in (bias, weight)]
    order = np.concatenate([part.astype(int).ravel() for part in parts])
    data = dptrain.load(config=DataConfig(scale="standard"))
    x, y = data.train.gather(slice(0, 37), Flat(np.float64))
    params = own.initial_params(no_rng())
    for smoothing, weights in ((0.0, None), (0.0, np.linspace(0, 2, 37)), (0.2, None)):
        wanted, found = np.empty_like(params), np.full_like(params, np.nan)
        numpys = dptrain.MLP(own.sizes, dtype="float64", label_smoothing=smoothing)
        sums = numpys.loss_and_grad_sum(params, x, y, weights, wanted, no_rng)
        other = JaxModel(perceptron, apply, label_smoothing=smoothing)
        assert other.loss_and_grad_sum(
            params[order], x, y, weights, found, no_rng
        ) == pytest.approx(sums, rel=1e-13)
        np.testing.assert_allclose(found, wanted[order], rtol=0, atol=1e-12)
    start = own.initial_params(dptrain.keys.generator(0, dptrain.keys.Purpose.PARAMS))
    model.initial_params = lambda rng: start[order]  # type: ignore[method-assign] # noqa: ARG005
    config = TrainConfig(steps=50)
    trained, likewise = dptrain.fit(own, data, config), dptrain.fit(model, data, config)
    np.testing.assert_allclose(likewise.params, trained.params[order], rtol=0, atol=1e-8)
    assert likewise.summary.metrics["test_accuracy"] == trained.summary.metrics["test_accuracy"]


def test_the_usual_losses_are_those_of_the_numpy_perceptron() -> None:
    rng = np.random.default_rng(0)
    cases: Any = (
        ("regression", "mean-squared-error", rng.standard_normal((5, 3))),
        ("multilabel", "binary-cross-entropy", rng.integers(0, 2, (5, 3)).astype(float)),
        ("classification", "binary-cross-entropy", rng.integers(0, 2, 5)),
    )
    for task, kind, y in cases:
        width = y.shape[1] if y.ndim > 1 else 1
        z = rng.standard_normal((5, width))
        model = JaxModel(perceptron, apply)
        model.check(task, 1, width, 2 if task == "classification" else 0)
        wanted = dptrain.MLP([1, width], loss=kind, dtype="float64").loss_sum(z, y, None)
        assert model.loss_sum(z, y, None)[:2] == pytest.approx(wanted[:2], rel=1e-14)


def test_what_does_not_fit_is_refused() -> None:
    data, config = dptrain.load(config=DataConfig(scale="standard")), TrainConfig(steps=1)

    def fit(model: JaxModel) -> None:
        dptrain.fit(model, data, config)

    with pytest.raises(InputError, match="weight is float16"):
        JaxModel(lambda _: {"layers": [{"weight": jnp.zeros(3, "float16")}]}, apply)
    with pytest.raises(InputError, match="no parameters"):
        JaxModel(lambda _: {}, apply)
    with pytest.raises(InputError, match="3 is no function"):
        JaxModel(perceptron, 3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"test_jax.py, line \d+, in <lambda>: AttributeError"):
        JaxModel(lambda rng: rng.standard_normal(3), apply)
    with enable_x64(False):
        number = JaxModel(lambda _: {"scale": 1.0, "weight": jnp.ones((64, 10))}, apply)
        assert number.initial_params(np.random.default_rng(0)).dtype == number.dtype == np.float32
    with pytest.raises(InputError, match=r"one number for 64 examples; .* one an example"):
        fit(JaxModel(perceptron, apply, lambda z, _: z.mean()))
    with pytest.raises(InputError, match=r"shape \[64, 9\]; return \[m, 10\], a score"):
        fit(JaxModel(perceptron, lambda params, x: apply(params, x)[:, :9]))
    with pytest.raises(InputError, match="give an array"):
        fit(JaxModel(perceptron, lambda params, x: apply(params, x)[1:]))
    with pytest.raises(InputError, match="the network returns int64; give float32"):
        fit(JaxModel(perceptron, lambda params, x: apply(params, x).astype(int)))
    with pytest.raises(InputError, match=r"an array named 'a\.b'; give each a name of its own"):
        fit(JaxModel(lambda _: {"a.b": jnp.ones(9), "a": {"b": jnp.ones(9)}}, apply))
    with pytest.raises(InputError, match=r"takes 0 positional arguments but 1 was given$"):
        JaxModel(lambda: perceptron, apply)
    fit(JaxModel(perceptron, lambda params, x, **_: apply(params, x)))


def test_jax_that_has_computed_with_threads_is_refused(tmp_path: Path) -> None:
    text = "import jax; jax.devices(); from dptrain import JaxModel; JaxModel(None, None)"
    done = start("python", "-c", text, cwd=tmp_path, env={"NPROC": "", "XLA_FLAGS": ""})
    assert "from dptrain import JaxModel` at the top" in done.stderr


def test_xla_has_one_thread_to_compute_with(tmp_path: Path) -> None:
    if not Path("/proc/self/task").exists():
        pytest.skip("needs /proc")
    if not hasattr(jax, "enable_x64"):
        pytest.skip("of this version's threads none has a name")
    text = (
        "from dptrain import JaxModel; import pathlib, jax.numpy as jnp\n"
        "jnp.exp(jnp.ones((900, 900)) @ jnp.ones((900, 900))).block_until_ready()\n"
        "names = [t.read_text() for t in pathlib.Path('/proc/self/task').glob('*/comm')]\n"
        "print(sum('XLAEigen' in name for name in names))"
    )
    done = start("python", "-c", text, cwd=tmp_path, env={"NPROC": "", "XLA_FLAGS": ""})
    assert done.stdout.strip() == "1", done.stderr


def test_a_run_is_stored_and_known_again(tmp_path: Path) -> None:
    run, data = tmp_path / "run", dptrain.load(config=DataConfig(scale="standard"))
    trained = dptrain.fit(JaxModel(perceptron, apply_dropping), data, TrainConfig(steps=3), out=run)
    first = json.loads((run / "receipt.jsonl").read_text().splitlines()[0])
    assert f"jax {jax.__version__}" in first["libraries"]
    x = data.test.raw_x(slice(0, 50)) if data.test else None
    found = dptrain.load_trained(run, JaxModel(perceptron, apply_dropping))
    np.testing.assert_array_equal(found.outputs(x), trained.outputs(x))
    np.testing.assert_allclose(found.probabilities(x).sum(axis=1), 1, rtol=1e-6)
    verdict = dptrain.verify(run, "2:3", model=JaxModel(perceptron, apply_dropping))
    assert verdict.verdict == "identical"


def test_the_pendulums_keep_an_energy_that_is_learned(tmp_path: Path) -> None:
    example = Path(__file__).parent.parent / "examples" / "pendulum.py"
    start("python", example, "states.npz", cwd=tmp_path)
    line = ("states.npz", "--model", f"{example}:build", "--scale", "none", "--epochs", "4")
    done = start("dptrain", "train", *line, "--json", "--quiet", cwd=tmp_path, timeout=110)
    assert done.json["test_r2"] > 0.8


def test_keys_are_of_one_kind_whatever_the_process_prefers() -> None:
    data, config = dptrain.load(config=DataConfig(scale="standard")), TrainConfig(steps=1)
    found = []
    for kind in ("threefry2x32", "rbg"):
        with jax.default_prng_impl(kind):
            trained = dptrain.fit(JaxModel(perceptron, apply_dropping), data, config)
        found.append(trained.summary.params_sha256)
    assert found[0] == found[1]


def test_random_numbers_of_numpy_are_found_where_a_run_begins() -> None:
    def drops(params: Any, x: Any) -> Any:
        return apply(params, x * np.random.default_rng().random(64))

    data = dptrain.load(config=DataConfig(scale="standard"))
    with pytest.raises(InputError, match=r"differs from itself in the gradient of layers\.0"):
        dptrain.fit(JaxModel(perceptron, drops), data, TrainConfig(steps=1))


def test_64_bits_are_those_of_where_the_model_was_made() -> None:
    """Also in threads that never asked for them, and with metrics of one's own."""
    rows = np.random.default_rng(0).standard_normal((40, 64))

    def sums(outputs: Any, targets: Any) -> dict[str, Any]:
        return {"all": jnp.sum(jnp.asarray(outputs)) + 0 * targets[0]}

    model = JaxModel(perceptron, apply, metrics=sums)
    start = model.initial_params(no_rng())
    wanted = model.outputs(start, rows)
    with enable_x64(False):
        found = model.outputs(start, rows)
        gradient = np.empty_like(start)
        model.loss_and_grad_sum(start, rows, np.arange(40) % 10, None, gradient, no_rng)
        whole = model.metric_sums(wanted, np.arange(40))["all"][0]  # type: ignore[misc]
        np.testing.assert_array_equal(model.initial_params(no_rng()), start)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, wanted)
    assert whole == pytest.approx(wanted.sum(), rel=1e-14)
    own, layers = dptrain.MLP([64, 32, 10], dtype="float64"), np.split(start, model._stops[:-1])
    turned = np.concatenate([layers[n] for n in (1, 0, 3, 2)])
    exact = np.empty_like(turned)
    own.loss_and_grad_sum(turned, rows, np.arange(40) % 10, None, exact, no_rng)
    exact = np.concatenate([np.split(exact, [2048, 2080, 2400])[n] for n in (1, 0, 3, 2)])
    np.testing.assert_allclose(gradient, exact, rtol=0, atol=1e-12)


def test_what_jax_is_set_to_belongs_to_the_model(tmp_path: Path) -> None:
    """Draws depend on it in float32, too: a run went on with others, without a word."""
    run, data = tmp_path / "run", dptrain.load(config=DataConfig(scale="standard"))

    def made() -> JaxModel:
        return JaxModel(lambda key: initial(key, "float32"), apply_dropping)

    dptrain.fit(made(), data, TrainConfig(steps=2), out=run)
    with enable_x64(False), pytest.raises(InputError, match=r"jax_enable_x64 is .*, was True"):
        dptrain.fit(made(), data, TrainConfig(steps=4), out=run, resume=True)
    with enable_x64(False):
        verdict = dptrain.verify(run, "1:2", model=made())
    assert any("jax_enable_x64" in note for note in verdict.notes)
    assert dptrain.verify(run, "1:2", model=made()).verdict == "identical"


def test_what_xla_is_told_belongs_to_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for what dptrain tells it: some flags decide bits, and none was noted."""
    plain = JaxModel(perceptron, apply).software()
    flags = "--xla_cpu_enable_fast_math=true --xla_backend_optimization_level=0"
    monkeypatch.setenv("XLA_FLAGS", f"{flags} --xla_cpu_multi_thread_eigen=false")
    told = " ".join(sorted(flags.split()))
    assert JaxModel(perceptron, apply).software() == [plain[0], f"{plain[1]} ({told})"]


def test_whole_numbers_that_jax_would_cut_are_refused() -> None:
    x, y = np.arange(80).reshape(40, 2) + 2**32, np.arange(40) % 2
    data = dptrain.load((x, y), DataConfig(scale="none"))

    def large(params: Any, x: Any) -> Any:
        return (x > 2**31).astype("float32") @ params

    def fit() -> None:
        weight = jnp.ones((2, 2), "float32")
        dptrain.fit(JaxModel(lambda _: weight, large), data, TrainConfig(steps=1))

    fit()
    with enable_x64(False), pytest.raises(InputError, match=r"data have 4294967\d+, .* 32 bits"):
        fit()
