"""Shows that memory is allocated once, and that calls share neither it nor anything else.

A step allocates nothing as large as what it computes with.

NumPy reports its arrays to tracemalloc, so the peak of what is traced over many steps counts every
temporary. What stays is small and does not grow with the network: views, the targets of a batch,
and the 8192 entries that NumPy adds a row of biases through.
"""

import copy
import errno
import gc
import json
import pickle
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import threadpoolctl
from conftest import start
from numpy.typing import NDArray

import dptrain
from dptrain import DataConfig, InputError, ModelConfig, Param, TrainConfig, Trained, World
from dptrain.arrays import Sums
from dptrain.config import Activation, Loss, Rule, Task
from dptrain.data.encode import Encoding
from dptrain.data.feed import Rows
from dptrain.data.field import Field
from dptrain.data.given import pair
from dptrain.data.roles import Roles
from dptrain.machine import free_bytes
from dptrain.model import mlp, products
from dptrain.model.products import NEAR
from dptrain.optim.named import Part
from dptrain.optim.optimizer import Optimizer
from dptrain.optim.rules import transforms
from dptrain.optim.schedule import learning_rate
from dptrain.order import Batch
from dptrain.reduce import memory
from dptrain.train.control import Control
from dptrain.train.evaluate import evaluate
from dptrain.train.loop import begin, train, train_epoch

ROOT = Path(__file__).parent.parent
ROWS, INPUTS, WIDTH, OUTPUTS, BATCH = 1024, 64, 256, 10, 128
HIDDEN_LAYER = BATCH * WIDTH * 4
"""Bytes of the smallest hidden activations; the whole gradient is larger."""

TASKS: dict[Loss, Task] = {
    "cross-entropy": "classification",
    "binary-cross-entropy": "multilabel",
    "mean-squared-error": "regression",
    "huber": "regression",
}
RULES: tuple[Rule, ...] = get_args(Rule)
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
ADAM = TrainConfig(shards=1, batch_size=BATCH, epochs=2)


class Meter(Control):
    """Traces what the steps of the second epoch allocate, from the end of its first step on."""

    def __init__(self, steps_per_epoch: int) -> None:
        self.first, self.last = steps_per_epoch + 1, 2 * steps_per_epoch
        self.peak = -1

    def after_step(self, batch: Batch, loss: float, asked: int) -> None:  # noqa: ARG002
        if batch.step + 1 == self.first:
            tracemalloc.start()
        if batch.step + 1 == self.last:
            self.peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Compute with one thread a process, as `fit` does."""
    with threadpoolctl.threadpool_limits(1, "blas"):
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("memory")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS, INPUTS)).astype(np.float32)
    targets: dict[Task, NDArray[Any]] = {
        "classification": rng.integers(0, OUTPUTS, ROWS),
        "multilabel": rng.integers(0, 2, (ROWS, OUTPUTS)),
        "regression": rng.standard_normal((ROWS, OUTPUTS)),
    }
    for task, y in targets.items():
        np.savez(folder / f"{task}.npz", x=x, y=y)
    return folder


def peak_of_steps(files: Path, settings: ModelConfig, config: TrainConfig) -> int:
    """Return how many bytes the steps after the first epoch allocate at most at one time."""
    assert settings.loss != "auto"
    task = TASKS[settings.loss]
    data = dptrain.load(files / f"{task}.npz", DataConfig(task=task))
    world = World()
    run = begin(dptrain.mlp_for(data, settings), data, config, world)
    meter = Meter(run.order.steps_per_epoch)
    for _ in range(2):
        train_epoch(run, meter)
        run.next_epoch()
    print(f"at most {meter.peak:,} bytes at one time, a hidden layer has {HIDDEN_LAYER:,}")
    assert meter.peak > 0
    return meter.peak


def network(**settings: Any) -> ModelConfig:
    return ModelConfig(**{"hidden": (WIDTH, WIDTH), "loss": "cross-entropy", **settings})


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_step_allocates_less_than_a_hidden_layer(
    activation: Activation, dropout: float, files: Path
) -> None:
    settings = network(activation=activation, dropout=dropout)
    assert peak_of_steps(files, settings, ADAM) < HIDDEN_LAYER


def test_so_it_does_where_dropout_meets_layers_of_different_widths(files: Path) -> None:
    settings = network(hidden=(2 * WIDTH, WIDTH), dropout=0.2)
    assert peak_of_steps(files, settings, ADAM) < HIDDEN_LAYER


@pytest.mark.parametrize("loss", TASKS)
def test_so_it_does_with_every_loss(loss: Loss, files: Path) -> None:
    assert peak_of_steps(files, network(loss=loss), ADAM) < HIDDEN_LAYER


@pytest.mark.parametrize(
    "more",
    [{}, {"clip_value": 0.1, "weight_decay": 0.01}, {"clip_norm": 0.1}],
    ids=["plain", "clip_value", "clip_norm"],
)
@pytest.mark.parametrize("rule", RULES)
def test_so_it_does_with_every_optimizer(rule: Rule, more: dict[str, Any], files: Path) -> None:
    config = replace(ADAM, optimizer=rule, schedule="cosine", warmup=3, **more)
    assert peak_of_steps(files, network(), config) < HIDDEN_LAYER


@pytest.mark.parametrize(("shards", "batch"), [(2, 2 * BATCH), (3, 200), (7, 900)])
def test_so_it_does_with_several_shards_of_uneven_sizes(
    shards: int, batch: int, files: Path
) -> None:
    """Also where a rank adds as it goes, and where the last batch of an epoch is smaller."""
    config = replace(ADAM, shards=shards, batch_size=batch)
    assert peak_of_steps(files, network(), config) < HIDDEN_LAYER * batch // shards // BATCH


def test_a_temporary_as_large_as_a_hidden_layer_would_be_seen(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without this, the tests above could not fail."""

    def with_a_copy(a: Any, b: Any, out: NDArray[Any]) -> None:
        out[...] = a @ b

    monkeypatch.setattr(mlp, "product", with_a_copy)
    assert peak_of_steps(files, network(), ADAM) > HIDDEN_LAYER


class WholeMeter(Meter):
    """Notes the peak of all that is traced, from the end of the first step to the last."""

    def after_step(self, batch: Batch, loss: float, asked: int) -> None:  # noqa: ARG002
        if batch.step == 0:
            tracemalloc.reset_peak()
        self.peak = tracemalloc.get_traced_memory()[1]


LARGE = network(hidden=(900, 900))
SMALL_BATCH = TrainConfig(batch_size=16, steps=9)


@pytest.mark.parametrize(
    ("rule", "slots", "shards", "alone", "buffers", "near"),
    [
        ("sgd", 0, 4, True, 4, 0),
        ("momentum", 1, 4, True, 4, 0),
        ("adam", 2, 1, True, 1, 0),
        ("adam", 2, 4, True, 4, 0),
        ("adam", 2, 16, True, 5, 0),
        ("adam", 2, 16, False, 1, 4),
    ],
)
def test_a_run_holds_parameters_gradient_sums_and_state_and_no_more(
    rule: Rule, slots: int, shards: int, alone: bool, buffers: int, near: int, files: Path
) -> None:
    """In vectors as long as the parameters; what else there is comes to less than half of one.

    Shards that are not written alone have `near` sums in progress, of some rows of the gradient.
    """
    data = dptrain.load(files / "classification.npz")
    model, world = dptrain.mlp_for(data, LARGE), World()
    config = replace(SMALL_BATCH, optimizer=rule, shards=shards, noise_scale=alone, steps=5)
    meter = WholeMeter(5)
    tracemalloc.start()
    train(begin(model, data, config, world), meter)
    tracemalloc.stop()
    vectors = (meter.peak - near * NEAR) / (4 * model.num_params)
    print(f"{vectors:.2f} vectors")
    assert 1 + buffers + slots <= vectors < 1 + buffers + slots + 0.5


def test_after_a_fit_the_parameters_are_all_that_is_left(files: Path) -> None:
    data = dptrain.load(files / "classification.npz")
    model = dptrain.mlp_for(data, LARGE)
    tracemalloc.start()
    trained = dptrain.fit(model, data, replace(SMALL_BATCH, shards=4), world=World())
    gc.collect()
    left = tracemalloc.get_traced_memory()[0] / trained.params.nbytes
    for _ in range(3):
        model.outputs(trained.params.copy(), np.ones((3, INPUTS), np.float32))
    then = tracemalloc.get_traced_memory()[0] / trained.params.nbytes
    tracemalloc.stop()
    assert 1 <= left < 1.5
    assert then < 1.5


@pytest.mark.parametrize("num_hidden", [0, 1, 3])
def test_the_gradient_with_respect_to_the_inputs_is_not_computed(
    num_hidden: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3L - 1 products for L layers: one forward and two back, but for the first layer one back."""
    sizes = [7, *range(11, 11 + num_hidden), 5]
    model = dptrain.MLP(sizes)
    x = np.random.default_rng(0).standard_normal((13, 7)).astype(np.float32)
    params = model.initial_params(np.random.default_rng(0))
    shapes = []

    def counted(a: Any, b: Any, out: Any) -> None:
        if min(np.ndim(a), np.ndim(b)) == 2:  # sums of biases aside
            shapes.append((np.shape(a), np.shape(b)))
        np.matmul(a, b, out=out)

    for module in (mlp, products):
        monkeypatch.setattr(module, "product", counted)
    y = np.zeros(13, np.intp)
    model.loss_and_grad_sum(
        params, x, y, None, np.empty_like(params), lambda: np.random.default_rng(0)
    )
    assert len(shapes) == 3 * (num_hidden + 1) - 1
    assert all((a[0], b[1]) != x.shape for a, b in shapes)


def peak_of(work: Callable[[], None]) -> int:
    """Return how many bytes some work allocates at most at one time."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("rule", RULES)
def test_an_update_of_a_million_allocates_next_to_nothing(rule: Rule) -> None:
    """In blocks, in place: the vector alone has 4 MB."""
    config = replace(ADAM, optimizer=rule, weight_decay=0.01, clip_value=0.5, clip_norm=1.0)
    size = 1_000_003
    parts = [Part(slice(0, size), 0)]
    optimizer = Optimizer(transforms(config), learning_rate(config, 1), size, np.float32, parts)
    rng = np.random.default_rng(0)
    params = rng.standard_normal(size, np.float32)
    gradient = rng.standard_normal(size, np.float32)
    first = peak_of(lambda: print(optimizer.update(params, gradient, 0, 2.0, 1.0)))
    then = peak_of(lambda: print(optimizer.update(params, gradient, 1, 2.0, 1.0)))
    print(f"{rule}: {first:,} bytes at first, then {then:,}")
    assert first < 100_000
    assert then < 5_000


def test_ranks_divide_the_optimizer_s_state_among_them(tmp_path: Path) -> None:
    done = start("python", ROOT / "tests" / "cases.py", "state", ranks=3, cwd=tmp_path)
    assert done.status == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["rule"] for line in found} == set(RULES)
    for line in found:
        assert sum(line["sizes"]) == line["slots"] * line["num_params"], line
        assert max(line["sizes"]) <= line["slots"] * (line["num_params"] // 3 + 1024), line


def test_memory_to_share_is_what_is_left_for_this_user(monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimpleNamespace(f_bavail=3, f_bfree=5, f_blocks=9, f_frsize=4096, f_bsize=1024)
    monkeypatch.setattr("dptrain.machine.os.statvfs", lambda _: found)
    assert free_bytes() == 3 * 4096


def test_a_rank_maps_nothing_where_the_first_one_has_found_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What that one has made has no bytes yet, or some: those that another rank has taken."""
    (tmp_path / "made").touch()
    first = (tmp_path / "made", OSError(errno.ENOSPC, "full"))
    monkeypatch.setattr(memory, "allgathered", lambda _, own: [first, own, own])
    with pytest.raises(OSError, match="full"):
        memory._take(SimpleNamespace(rank=1, size=3), 4096)  # type: ignore[arg-type]
    assert (tmp_path / "made").stat().st_size == 0


# Calls at once

THREADS, CALLS = 8, 200
TINY = network(hidden=(32, 16), dropout=0.2)
CONFIGS = [
    TrainConfig(steps=3, batch_size=40, seed=seed, shards=shards)
    for seed, shards in enumerate((1, 3, 5))
]


def trained_on(files: Path, settings: ModelConfig) -> Trained:
    data = dptrain.load(files / "classification.npz")
    config = TrainConfig(steps=3)
    return dptrain.fit(dptrain.mlp_for(data, settings), data, config, world=World())


def in_threads(work: Callable[[int], list[Any]]) -> list[list[Any]]:
    """Return what eight threads found that did the same at once, each with a number of its own."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, range(THREADS), timeout=100))


def test_eight_threads_get_the_answers_of_one(files: Path) -> None:
    trained = trained_on(files, network(hidden=(WIDTH,)))
    rng = np.random.default_rng(1)
    asked = [rng.standard_normal((40 + n, INPUTS)) for n in range(4)]
    alone = [trained.outputs(x).tobytes() for x in asked]

    def ask(number: int) -> list[int]:
        turns = [(number + call) % len(asked) for call in range(CALLS)]
        return [n for n in turns if trained.outputs(asked[n]).tobytes() != alone[n]]

    assert in_threads(ask) == [[]] * THREADS


def test_eight_threads_fit_one_model_to_the_bytes_of_one_while_others_predict(files: Path) -> None:
    data = dptrain.load(files / "classification.npz")
    model, x = dptrain.mlp_for(data, TINY), np.ones((50, INPUTS))
    trained = [dptrain.fit(model, data, config) for config in CONFIGS]
    alone = [(one.summary.params_sha256, one.outputs(x).tobytes()) for one in trained]

    def fit(number: int) -> list[int]:
        wrong = []
        for n in ((number + call) % len(CONFIGS) for call in range(CALLS // THREADS)):
            found = dptrain.fit(model, data, CONFIGS[n])
            if (found.summary.params_sha256, trained[n].outputs(x).tobytes()) != alone[n]:
                wrong.append(n)
        return wrong

    assert in_threads(fit) == [[]] * THREADS


def pickled(trained: Trained) -> Trained:
    found: Trained = pickle.loads(pickle.dumps(trained))  # noqa: S301 (made here)
    return found


@pytest.mark.parametrize("again", [copy.deepcopy, pickled])
def test_a_copy_of_a_model_carries_no_memory_that_it_computes_in(
    again: Callable[[Trained], Trained], files: Path
) -> None:
    trained, x = trained_on(files, network(hidden=(WIDTH,))), np.ones((ROWS, INPUTS))
    expected = trained.outputs(x).tobytes()
    assert len(pickle.dumps(trained)) < trained.params.nbytes + 10_000
    assert again(trained).outputs(x).tobytes() == expected
    assert trained in [again(trained), trained]  # arrays are no single yes or no to be asked
    assert len({trained, again(trained)}) == 2
    data = dptrain.load(files / "classification.npz")
    assert data != copy.deepcopy(data)
    assert data.train != copy.deepcopy(data.train)


def blas_threads() -> list[int]:
    pools = threadpoolctl.threadpool_info()
    return [pool["num_threads"] for pool in pools if pool["user_api"] == "blas"]


class Held:
    """A model of one parameter that stops where it computes until it may go on."""

    layout, dtype = (Param("held", (1,)),), np.float64

    def __init__(self) -> None:
        self.reached, self.go = threading.Event(), threading.Event()
        self.seen: list[int] = []

    def _hold(self) -> None:
        self.reached.set()
        assert self.go.wait(60)
        self.seen += blas_threads()

    def initial_params(self, rng: np.random.Generator) -> Any:  # noqa: ARG002
        return np.zeros(1)

    def loss_and_grad_sum(self, *args: Any) -> Sums:
        self._hold()
        args[4][:] = 0
        return Sums(0.0, float(len(args[1])))

    def outputs(self, params: Any, x: Any) -> Any:  # noqa: ARG002
        self._hold()
        return np.zeros((len(x), OUTPUTS))

    def loss_sum(self, outputs: Any, y: Any, weights: Any) -> Sums:  # noqa: ARG002
        return Sums(0.0, float(len(outputs)))


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads of a process that has 2 BLAS threads, and has them again in the end."""
    with threadpoolctl.threadpool_limits(2, "blas"):
        with ThreadPoolExecutor(2) as threads:
            yield threads
        assert set(blas_threads()) == {2}


def test_each_of_two_fits_keeps_its_blas_threads_when_the_other_ends(
    files: Path, pool: ThreadPoolExecutor
) -> None:
    data = dptrain.load(files / "regression.npz")
    first, second = Held(), Held()
    runs = []
    for model in (first, second):
        runs.append(pool.submit(dptrain.fit, model, data, TrainConfig(steps=1)))
        assert model.reached.wait(60)
    for model, run in zip((first, second), runs, strict=True):
        model.go.set()
        run.result(30)
    assert {*first.seen, *second.seen} == {1}


def test_another_number_of_blas_threads_is_refused_while_a_fit_goes_on(
    files: Path, pool: ThreadPoolExecutor
) -> None:
    data = dptrain.load(files / "regression.npz")
    model, other = Held(), Held()
    run = pool.submit(dptrain.fit, model, data, TrainConfig(steps=1))
    assert model.reached.wait(60)
    wide = Trained(other, np.zeros(1), data.encoding, threads=2)
    with pytest.raises(InputError, match=r"threads is 2, and another call .* with 1 BLAS"):
        wide.predict(np.ones((1, INPUTS)))
    with pytest.raises(InputError, match=r"threads is 2, and another call"):
        dptrain.fit(other, data, TrainConfig(steps=1, threads=2))
    other.go.set()
    dptrain.fit(other, data, TrainConfig(steps=1))
    model.go.set()
    run.result(30)
    assert len(wide.predict(np.ones((1, INPUTS)))) == 1
    assert {*model.seen} == {1}
    assert {*other.seen} == {1, 2}


def test_a_prediction_waits_for_one_with_other_blas_threads_and_has_its_own(
    files: Path, pool: ThreadPoolExecutor
) -> None:
    encoding = dptrain.load(files / "regression.npz").encoding
    one, two = (Trained(Held(), np.zeros(1), encoding, threads=n) for n in (1, 2))
    x = np.ones((1, INPUTS))
    asked = [pool.submit(one.predict, x)]
    assert one.model.reached.wait(60)  # type: ignore[attr-defined]
    asked.append(pool.submit(two.predict, x))
    assert not two.model.reached.wait(0.2)  # type: ignore[attr-defined]
    for trained in (one, two):
        trained.model.go.set()  # type: ignore[attr-defined]
    for answer in asked:
        answer.result(30)
    assert {*one.model.seen} == {1}  # type: ignore[attr-defined]
    assert {*two.model.seen} == {2}  # type: ignore[attr-defined]


def test_a_stored_model_predicts_with_the_blas_threads_of_its_run(
    files: Path, tmp_path: Path
) -> None:
    data = dptrain.load(files / "classification.npz")
    config = TrainConfig(steps=1, threads=3)
    fitted = dptrain.fit(dptrain.mlp_for(data, TINY), data, config, out=tmp_path / "run")
    assert fitted.threads == dptrain.load_trained(tmp_path / "run").threads == 3


RANKS = """
import json, sys, threading, tracemalloc
from pathlib import Path
import numpy as np
import dptrain
from dptrain.run.apply import predict_run

world, found = dptrain.connect(), []

def fit():
    try:
        dptrain.load()
    except dptrain.InputError as error:
        found.append(str(error))

thread = threading.Thread(target=fit)
thread.start()
thread.join()
predict_run("run", ["x.npy"], "warm.npy", probabilities=True, world=world)
tracemalloc.start()
predict_run("run", ["x.npy"], "p.npy", probabilities=True, world=world)
peak = tracemalloc.get_traced_memory()[1]
tracemalloc.stop()
for line in world.allgather(json.dumps([peak, found])):
    if world.rank == 0:
        print(line)
"""


def test_each_rank_predicts_and_holds_its_share_only_and_makes_calls_from_one_thread(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(256) % 64
    data = tmp_path / "d.npz"
    np.savez(data, x=rng.standard_normal((256, 2)), y=labels)
    np.save(tmp_path / "x.npy", rng.standard_normal((60_000, 2)))
    loaded = dptrain.load(data, DataConfig(task="classification"))
    model = dptrain.mlp_for(loaded, ModelConfig(hidden=()))
    trained = dptrain.fit(model, loaded, TrainConfig(steps=1), out=tmp_path / "run")
    (tmp_path / "run.py").write_text(RANKS)
    done = start("python", "run.py", ranks=2, cwd=tmp_path)
    assert done.status == 0, done.stderr
    expected = trained.probabilities(np.load(tmp_path / "x.npy"))
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for peak, errors in found:
        assert peak < 0.7 * expected.nbytes
        assert len(errors) == 1
        assert "from another thread" in errors[0]
    assert np.load(tmp_path / "p.npy").tobytes() == expected.tobytes()


def test_no_table_of_classes_by_classes_is_made_unless_it_is_asked_for() -> None:
    classes = 40_000
    model = dptrain.MLP([1, classes])
    x, y = np.ones((2, 1)), np.array([1, 2])
    fields = (Field("x", "numbers", (1,)),)
    encoding = Encoding("classification", fields, np.zeros(1), np.ones(1), np.arange(classes), 1)
    rows = Rows(pair(x, y, Roles(), "two rows"), encoding)
    params = np.zeros(model.num_params, np.float32)

    def work() -> None:
        evaluate(model, params, rows, World())

    assert peak_of(work) < 20 * 4 * classes
