"""Shows that the command line is what people expect: help, settings, output, files, Ctrl-C."""

import io
import json
import os
import pty
import pydoc
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import numpy as np
import pytest
from conftest import BIN, Start

import dptrain as dptrain_package
from dptrain import load_trained
from dptrain.cli.commands.evaluate import evaluate
from dptrain.cli.commands.train import train
from dptrain.record.progress import Bar, Lines, fitted, progress

QUICK = ("--steps", "3", "--json")
WRITTEN = {"config.toml", "metrics.jsonl", "seconds.json", "receipt.jsonl"}
WRITTEN |= {"model.safetensors", "summary.json"}
"""What a run leaves beside its checkpoints."""


@pytest.mark.parametrize("command", [(), ("train",), ("evaluate",), ("predict",), ("bench",)])
def test_help_needs_neither_mpi_nor_numpy(command: tuple[str, ...], dptrain: Start) -> None:
    done = dptrain(*command, "--help", env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert (done.status, done.stdout[:6]) == (0, "Usage:")
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "click" in imported
    assert imported.isdisjoint({"numpy", "mpi4py", "mpi4py.MPI", "rich", "threadpoolctl"})


def test_help_is_printed_once_under_mpirun(dptrain: Start) -> None:
    assert dptrain("--help", ranks=2).stdout.count("Usage:") == 1
    assert dptrain("--version", ranks=2).stdout == "dptrain, version 0.2.0\n"


def test_every_option_has_a_help_text(quick: Start) -> None:
    text = quick("train", "--help").stdout
    for option in ("--shards", "--hidden", "--clip-norm", "--scale", "--warmup", "--reduce"):
        assert option in text
    for line in text.splitlines():
        assert len(line) <= 100


def test_an_option_goes_before_a_variable_before_a_file_before_the_default(
    quick: Start, tmp_path: Path
) -> None:
    text = 'batch-size = 10\nhidden = [7]\nreduce = "allreduce"\n'
    (tmp_path / "run.toml").write_text(text, encoding="utf-8-sig")  # as editors on Windows do

    def settings(*line: str, **env: str) -> dict[str, object]:
        run = quick("--config", "run.toml", *line, *QUICK, env=env).json["run"]
        return tomllib.loads((tmp_path / run / "config.toml").read_text())

    from_file = settings()
    assert [from_file[key] for key in ("batch-size", "hidden", "reduce")] == [10, [7], "allreduce"]
    assert from_file["seed"] == 0
    assert settings(DPTRAIN_BATCH_SIZE="20")["batch-size"] == 20
    assert settings("--batch-size", "30", DPTRAIN_BATCH_SIZE="20")["batch-size"] == 30


def test_the_config_of_a_run_repeats_it(quick: Start, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["a,b,c,kind"]
    lines += [f"{a},{b},{c},{'yes' if a > b else 'no'}" for a, b, c in rng.random((60, 3))]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    args = ("train", "rows.csv", "--target", "kind", "--test-data", "rows.csv", "--hidden", "none")
    more = ("--clip-value", "0.1", "--validation", "0.2", "--epochs", "2", "--out", "first")
    first = quick(*args, *more, "--json", ranks=2).json
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    again = quick("--config", "../first/config.toml", "--json", cwd=elsewhere).json
    assert again["params_sha256"] == first["params_sha256"]
    assert again["test_accuracy"] == first["test_accuracy"]


def test_train_json_says_what_the_design_names(quick: Start) -> None:
    done = quick(*QUICK)
    named = "params_sha256 shards ranks steps epochs train_loss test_loss test_accuracy"
    assert set(f"{named} examples_per_second run".split()) <= set(done.json)
    assert done.stdout.count("\n") == 1


def test_a_run_directory_holds_whole_files(quick: Start, tmp_path: Path) -> None:
    summary = quick("--epochs", "2", "--log-every", "10", "--json", "--clip-norm", "9").json
    run = tmp_path / summary["run"]
    assert run.parent == tmp_path / "runs"
    assert run.name.endswith("-digits")
    files = {path.name for path in run.iterdir()}
    assert files == {*WRITTEN, "checkpoints"}
    assert json.loads((run / "summary.json").read_text()) == summary
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 15, 20, 30, 30]
    assert lines[0].keys() == {
        "epoch", "step", "examples", "seconds", "loss", "learning_rate", "gradient_norm",
    }  # fmt: skip
    assert lines[-1]["train_loss"] == summary["train_loss"]
    assert lines[-1]["examples"] == 2 * 3823


def test_progress_is_plain_lines_in_a_pipe_and_nothing_when_quiet(quick: Start) -> None:
    done = quick("--epochs", "2", ranks=2)
    lines = done.stderr.splitlines()
    assert lines[-1].startswith("step 30/30  epoch 2  train loss 0.")
    assert lines[-1].endswith("0.0 s left")
    assert "\x1b" not in done.stderr
    assert "test        loss" in done.stdout
    assert done.stdout.count("sha256") == 1
    assert quick("--epochs", "2", "--quiet").stderr == ""


def test_the_time_left_goes_by_the_steps_of_this_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 100 steps 50 were done before; 10 more have taken 20 seconds."""
    clock = [5.0]
    monkeypatch.setattr("dptrain.record.progress.time.monotonic", lambda: clock[0])
    lines = Lines(100, 50)
    clock[0] += 20
    lines.step(60, 0.5)
    lines.metrics({"epoch": 1, "step": 60, "train_loss": 0.5})
    assert capsys.readouterr().err.splitlines() == [
        "step  60/100  loss 0.5  1 min 20 s left",
        "step  60/100  epoch 1  train loss 0.5  1 min 20 s left",
    ]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_line_of_an_epoch_fits(width: int) -> None:
    values = {"epoch": 300, "train_loss": 0.01234567, "validation_loss": 0.12345678,
              "validation_rmse": 0.1234, "validation_mae": 0.5, "validation_r2": 0.25}  # fmt: skip
    line = fitted(values, "step 45000/45000  ", "23 min 20 s", width)
    assert len(line) <= width
    assert line.startswith("epoch 300" if width < 120 else "step 45000/45000  epoch 300")
    assert "0.01235, valid" in line  # a loss of both, whatever is cut
    assert "rmse 0.1234" in line
    ends = {60: "rmse 0.1234", 80: "rmse 0.1234  23 min 20 s", 120: "23 min 20 s left"}
    assert line.endswith(ends[width])


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (60, "epoch 3  loss 0.012, valid 0.34, accuracy 0.9"),
        (80, "epoch 3  loss 0.012, accuracy 0.975, valid 0.34, accuracy 0.9  12 s"),
        (
            99,
            "epoch 3  train loss 0.012, accuracy 0.975, "
            "validation loss 0.34, accuracy 0.9  12 s left",
        ),
    ],
)
def test_train_accuracy_stands_beside_train_loss(width: int, line: str) -> None:
    values = {"epoch": 3, "train_loss": 0.012, "train_accuracy": 0.975, "validation_loss": 0.34,
              "validation_accuracy": 0.9}  # fmt: skip
    assert fitted(values, "step 450/4500  ", "12 s", width) == line


def test_of_hundreds_of_epochs_some_get_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(400, 0)
    for epoch in range(1, 201):
        lines.metrics({"epoch": epoch, "step": 2 * epoch, "train_loss": 0.5})
    said = capsys.readouterr().err.splitlines()
    assert [int(line.split()[3]) for line in said] == [*range(4, 201, 4)]


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("--lr", "did you mean --learning-rate?"),
        ("--workers", "mpirun -n 4 dptrain train"),
        ("-n", "mpirun -n 4 dptrain train"),
        ("--batchsize", "did you mean --batch-size?"),
        ("--device", "computes on CPUs only"),
        ("--qqq", "see dptrain train --help"),
    ],
)
def test_an_option_that_is_none_points_to_the_one_that_is_meant(option: str, meant: str) -> None:
    with pytest.raises(click.UsageError, match=re.escape(meant)):
        train.make_context("dptrain train", [option, "4"])


def test_ctrl_c_while_it_is_imported_ends_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "dptrain", "--help"]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


def test_an_argument_is_no_option_to_be_meant() -> None:
    with pytest.raises(click.UsageError, match=r"no option --run; see dptrain evaluate --help"):
        evaluate.make_context("dptrain evaluate", ["R", "--run", "4"])


def test_public_names_are_listed() -> None:
    listed = {name for name in dir(dptrain_package) if not name.startswith("_")}
    assert listed == {*dptrain_package.__all__} - {"__version__"}
    assert "fit(" in pydoc.plain(pydoc.render_doc(dptrain_package))


def test_more_threads_than_cores_are_said_once(quick: Start) -> None:
    cores = len(os.sched_getaffinity(0))
    said = f" has {cores} cores for {cores + 1} ranks; expect waiting"
    assert quick("--steps", "1", ranks=cores + 1).stderr.count(said) == 1
    assert "cores" not in quick("--steps", "1").stderr


def test_progress_is_a_bar_on_a_terminal(tmp_path: Path) -> None:
    terminal, theirs = pty.openpty()
    args = [str(BIN / "dptrain"), "--epochs", "3"]
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    done = subprocess.run(
        args, cwd=tmp_path, env=env, stderr=theirs, stdout=subprocess.PIPE, timeout=60, check=True
    )
    shown = os.read(terminal, 1 << 20).decode()
    os.close(terminal)
    os.close(theirs)
    assert "45/45" in shown
    assert shown.count("train loss") == 3  # a line an epoch stays
    assert "epoch 3" in shown
    assert b"sha256" in done.stdout


def test_a_terminal_that_goes_away_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, theirs = pty.openpty()
    stderr = io.TextIOWrapper(io.FileIO(theirs, "w", closefd=False), write_through=True)
    monkeypatch.setattr(sys, "stderr", stderr)
    bar = progress(2, 0, quiet=False)
    assert isinstance(bar, Bar)
    os.close(terminal)
    bar.step(1, 0.5)
    bar.metrics({"epoch": 1, "step": 2, "train_loss": 0.5})
    bar.warn("no room")
    bar.close()
    os.close(theirs)


def in_shell(script: str, folder: Path, **env: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of a shell, in which dptrain is this environment's."""
    path = f"{BIN}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={**os.environ, "PYTHONWARNINGS": "error", "PATH": path, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("streams", "status", "said"),
    [
        (">/dev/full", 74, r"dptrain: standard output can't be written: No space left on device\n"),
        ("2>/dev/full", 0, ""),
        (">&-", 0, "(?s).*step 3/3 .*left\n"),
        ("2>&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        ("2>&1 | true", 0, ""),
    ],
)
def test_a_run_is_whole_wherever_its_output_goes(
    streams: str, status: int, said: str, tmp_path: Path
) -> None:
    quiet = "--quiet" if status else ""
    line = f"(dptrain --steps 3 --out run {quiet}; echo $? >status) {streams}"
    stderr = in_shell(line, tmp_path).stderr.decode()
    assert (tmp_path / "status").read_text() == f"{status}\n", stderr
    assert re.fullmatch(said, stderr), stderr
    assert {path.name for path in (tmp_path / "run").iterdir()} == {*WRITTEN, "checkpoints"}


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("dptrain --steps 0 2>/dev/full", 2, ""),
        ("dptrain --steps 0 2>&-", 2, ""),
        ("dptrain explain | true; exit ${PIPESTATUS[0]}", 0, ""),
        ("ulimit -n 20; dptrain --steps 3", 2, "may open 20 files here, and 64 are needed"),
        ("ulimit -f 100; dptrain --steps 3", 2, "102,400 bytes here, and 16,777,216 are needed"),
        ("ulimit -v 300000; dptrain --steps 3", 2, "307,200,000 bytes of memory here, and"),
        ("mkfifo f; dptrain explain --html f --force", 2, "f, which is no plain file"),
        ("MPLBACKEND=x dptrain plot r --out r.svg", 2, "matplotlib does not start: Key backend"),
        ("mkdir a; cd a; rmdir ../a; dptrain train x.npz", 2, "the working directory can't be"),
        ("mkdir a; cd a; rmdir ../a; dptrain --version", 0, ""),
    ],
)
def test_surroundings_that_fail_are_one_message_or_none(
    line: str, status: int, said: str, tmp_path: Path
) -> None:
    done = in_shell(line, tmp_path)
    stderr = done.stderr.decode()
    assert done.returncode == status, stderr
    assert said in stderr
    assert stderr.count("\n") == (said != "")


def test_names_beyond_the_encoding_are_shown_and_data_is_written_as_in_a_file(
    tmp_path: Path,
) -> None:
    (tmp_path / "d.csv").write_text("a,kind\n" + "1,é\n2,ü\n" * 4, "utf-8")
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    train = "dptrain train d.csv --target kind --steps 3 --quiet --out run"
    assert in_shell(train, tmp_path, **ascii_only).returncode == 0
    done = in_shell("dptrain predict run d.csv", tmp_path, **ascii_only)
    assert set(done.stdout.decode().split()) == {"prediction", "é", "ü"}, done.stderr
    done = in_shell("dptrain plot run --out é.png", tmp_path, **ascii_only)
    assert b"wrote \\xe9.png: loss, accuracy, learning rate, " in done.stderr


RAISES = """
import dptrain
world, data = dptrain.connect(), dptrain.load()
class Faulty(dptrain.MLP):
    def loss_and_grad_sum(self, *args):
        if world.rank == 1:
            raise RuntimeError("something unexpected")
        return super().loss_and_grad_sum(*args)
dptrain.fit(Faulty([64, 10]), data, dptrain.TrainConfig(shards=2), quiet=False)
"""


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_a_rank_that_raises_ends_all_where_nobody_hears_it(closed: str, tmp_path: Path) -> None:
    (tmp_path / "raises.py").write_text(RAISES)
    line = f"mpirun -n 2 sh -c 'exec python raises.py {closed}'"
    done = in_shell(line, tmp_path)
    assert done.returncode not in (0, 124)
    assert ("something unexpected" in done.stderr.decode()) == ("2>" not in closed)


@pytest.mark.parametrize("ranks", [None, 2])
def test_ctrl_c_ends_all_ranks_cleanly_and_stores_the_model(
    ranks: int | None, tmp_path: Path, quick: Start
) -> None:
    launcher = [] if ranks is None else [str(BIN / "mpirun"), "-n", str(ranks)]
    args = ["--steps", "10000000", "--log-every", "1", "--json", "--out", "run"]
    with subprocess.Popen(
        [*launcher, str(BIN / "dptrain"), *args],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            metrics = tmp_path / "run" / "metrics.jsonl"
            while not metrics.exists() or metrics.stat().st_size == 0:
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, stderr
    summary = json.loads(stdout.splitlines()[-1])  # the launcher speaks first
    assert summary["stopped"] == "Ctrl-C"
    assert 0 < summary["steps"] < 10000000
    assert "Traceback" not in stderr
    steps = summary["steps"]
    again = quick("--steps", str(steps), "--json").json
    assert again["params_sha256"] == summary["params_sha256"]
    assert quick("evaluate", "run", "--json").json["accuracy"] == again["test_accuracy"]


def test_evaluate_shows_the_confusion_matrix(quick: Start) -> None:
    quick("--epochs", "3", "--out", "run", "--quiet")
    lines = quick("evaluate", "run").stdout.splitlines()
    assert lines[0] == "the test rows of the embedded digits: 1,797 examples"
    assert lines[1].startswith("loss 0.")
    assert lines[4].split() == [*"0123456789", "F1", "ROC-AUC"]
    counts = [[0 if c == "." else int(c) for c in line.split()[1:11]] for line in lines[5:]]
    assert sum(map(sum, counts)) == 1797


@pytest.fixture
def regression(quick: Start, tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1500, 3))
    np.savez(tmp_path / "r.npz", x=x, y=x @ [1.0, 2.0, 3.0], x_test=x[:40], y_test=x[:40].sum(1))
    np.save(tmp_path / "x.npy", x)
    quick("train", "r.npz", "--hidden", "none", "--epochs", "1", "--out", "run", "--quiet")
    return tmp_path


def test_evaluate_gives_rmse_mae_and_r2(regression: Path, quick: Start) -> None:
    found = quick("evaluate", "run", "--json").json
    done = quick("predict", "run", "r.npz", "--out", "p.npy")
    assert (done.status, done.stdout) == (0, "")
    error = np.load(regression / "p.npy") - np.load(regression / "r.npz")["y_test"]
    target = np.load(regression / "r.npz")["y_test"]
    spread = np.sum((target - target.mean()) ** 2)
    assert found["examples"] == 40
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)))
    learned = np.load(regression / "r.npz")["y"].std()  # what the model learns has spread 1
    assert found["loss"] == pytest.approx((found["rmse"] / learned) ** 2)
    assert found["mae"] == pytest.approx(np.mean(np.abs(error)))
    assert found["r2"] == pytest.approx(1 - np.sum(error**2) / spread)


def test_predict_gives_the_same_on_any_number_of_ranks(regression: Path, quick: Start) -> None:
    alone = quick("predict", "run", "x.npy")
    assert alone.stdout.splitlines()[0] == "prediction"
    assert len(alone.stdout.splitlines()) == 1501
    assert quick("predict", "run", "x.npy", ranks=3).stdout == alone.stdout
    quick("predict", "run", "x.npy", "--out", "p.csv", ranks=2)
    assert (regression / "p.csv").read_text() == alone.stdout
    quick("predict", "run", "x.npy", "--out", "p.npy", ranks=3)
    found = np.load(regression / "p.npy")
    assert [str(value) for value in found.tolist()] == alone.stdout.splitlines()[1:]
    np.testing.assert_array_equal(
        load_trained(regression / "run").predict(np.load(regression / "x.npy")), found
    )


def test_predict_takes_the_columns_by_name(quick: Start, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("u,v,kind\n" + "0,1,low\n5,1,high\n" * 20)
    (tmp_path / "b.csv").write_text("name,v,u\nAnn,1,5\nBob,1,0\n")
    args = ("--target", "kind", "--learning-rate", "0.05", "--out", "run", "--quiet")
    assert quick("train", "a.csv", *args).status == 0
    assert quick("predict", "run", "b.csv").stdout == "prediction\nhigh\nlow\n"
    lines = quick("predict", "run", "b.csv", "--probabilities").stdout.splitlines()
    assert lines[0] == "probability_high,probability_low"
    assert sum(map(float, lines[1].split(","))) == pytest.approx(1)


def test_the_embedded_digits_are_learned(quick: Start) -> None:
    assert quick("--json", "--shards", "4", ranks=2).json["test_accuracy"] >= 0.96
