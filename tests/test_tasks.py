"""Training a metanetwork through the command line: the same steps however they are cut up, and files that are safe to
load."""

import math
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch

from pipeline.graph_store import open_graphs
from tiny_dataset import NUM_VALUES, content, write_dataset
from training.__main__ import read_command
from training.graph_batch import batch_graphs
from training.graph_data import LabelledBatch
from training.predictions import read_predictions
from training.tasks import PredictColumn, load_task

SETTINGS = (
    "--config=configs/training/accuracy.yaml",
    "--model.network.width=5",
    "--model.network.depth=2",
    "--model.optimizer.warmup_steps=2",
    "--trainer.max_epochs=3",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.precision=64-true",
    "--trainer.accelerator=cpu",
)

LOG = {"config.yaml", "hparams.yaml", "metrics.csv"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 23 runs with two checkpoints each, in several parts."""
    return write_dataset(tmp_path_factory.mktemp("dataset"), num_runs=23)


def arguments(dataset: Path, out: Path, *others: str) -> list[str]:
    return [*SETTINGS, f"--data.path={dataset}", f"--trainer.default_root_dir={out}", *others]


def plan(graphs_per_micro_batch: int, micro_batches_per_step: int) -> tuple[str, str]:
    return (
        f"--data.plan.values_per_micro_batch={graphs_per_micro_batch * NUM_VALUES}",
        f"--data.plan.micro_batches_per_step={micro_batches_per_step}",
    )


def curve(out: Path, column: str) -> list[float]:
    """The values of a column that a run which was not resumed has logged, in order."""
    found = pyarrow.csv.read_csv(out / "logs" / "version_0" / "metrics.csv")[column].drop_null()
    return found.cast(pa.float64()).to_pylist()


@pytest.fixture(scope="module")
def trained(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with steps of one micro-batch of six graphs."""
    out = tmp_path_factory.mktemp("trained")
    read_command(["fit", *arguments(dataset, out, *plan(6, 1))])()
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be written to."""
    return shutil.copytree(trained, tmp_path / "run")


def test_training_writes_curves_configuration_and_checkpoints(trained: Path) -> None:
    losses = curve(trained, "train/loss")
    assert len(losses) == 3
    assert all(map(math.isfinite, losses))
    assert len(curve(trained, "val/r_squared")) == 3
    assert {path.name for path in (trained / "logs" / "version_0").iterdir()} == LOG
    assert {path.name for path in trained.iterdir()} == {"logs", "checkpoints"}
    assert {path.name for path in (trained / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


def test_the_same_seed_gives_the_same_losses_and_another_gives_others(
    dataset: Path, trained: Path, tmp_path: Path
) -> None:
    read_command(["fit", *arguments(dataset, tmp_path / "same", *plan(6, 1))])()
    read_command(["fit", *arguments(dataset, tmp_path / "other", *plan(6, 1), "--seed_everything=1")])()
    assert curve(tmp_path / "same", "train/loss") == curve(trained, "train/loss")
    assert curve(tmp_path / "other", "train/loss") != curve(trained, "train/loss")


def test_a_step_of_small_micro_batches_equals_one_of_a_large_one(dataset: Path, trained: Path, tmp_path: Path) -> None:
    """The last step is not full: its graphs still weigh one over their number, and empty micro-batches nothing."""
    read_command(["fit", *arguments(dataset, tmp_path, *plan(2, 3))])()
    assert curve(tmp_path, "train/loss") == pytest.approx(curve(trained, "train/loss"), rel=1e-10)
    assert curve(tmp_path, "val/r_squared") == pytest.approx(curve(trained, "val/r_squared"), rel=1e-9)


def test_two_ranks_equal_one(dataset: Path, tmp_path: Path) -> None:
    """Steps of two micro-batches of three graphs, on one process and on two that talk to each other by gloo."""
    one, two = tmp_path / "one", tmp_path / "two"
    read_command(["fit", *arguments(dataset, one, *plan(3, 2))])()
    ranks = ("--trainer.devices=2", "--trainer.strategy=ddp")
    command = [sys.executable, "-m", "training", "fit", *arguments(dataset, two, *plan(3, 2), *ranks)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    for column in ("train/loss", "val/r_squared", "val/kendall_tau"):
        assert curve(two, column) == pytest.approx(curve(one, column), rel=1e-8), column
    left, right = (load_task(folder / "checkpoints" / "last.ckpt").state_dict() for folder in (one, two))
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=1e-8, atol=1e-10, msg=name)


def test_predictions_are_the_checkpoints_own_for_each_test_graph_once(
    dataset: Path, trained: Path, tmp_path: Path
) -> None:
    checkpoint = trained / "checkpoints" / "best.ckpt"
    read_command(["predict", *arguments(dataset, tmp_path), f"--ckpt_path={checkpoint}"])()
    found = read_predictions(tmp_path / "predictions.parquet")
    test = open_graphs(dataset).split("test")
    assert found["graph_id"].to_pylist() == test.table["graph_id"].to_pylist()
    assert found["target"].to_pylist() == test.table["test_accuracy"].to_pylist()
    task = load_task(checkpoint).double()
    expected = task.network(batch_graphs(list(test)))[:, 0] * task.target_sd + task.target_mean
    assert found["prediction"].to_pylist() == pytest.approx(expected.tolist(), rel=1e-9)


def test_a_checkpoint_carries_settings_and_scales(dataset: Path, trained: Path) -> None:
    task = load_task(trained / "checkpoints" / "last.ckpt")
    assert task.network.settings.width == 5
    train = open_graphs(dataset).split("train").table["test_accuracy"].to_numpy()
    assert float(task.target_mean) == pytest.approx(train.mean())
    assert float(task.target_sd) == pytest.approx(train.std())
    assert (task.network.edge_encoder.value_scale > 0).all()


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_only_fit_writes_into_the_folder_of_a_run(command: str, dataset: Path, run: Path) -> None:
    before = content(run)
    read_command([command, *arguments(dataset, run), f"--ckpt_path={run / 'checkpoints' / 'best.ckpt'}"])()
    after = content(run)
    assert before.items() <= after.items()
    assert set(after) - set(before) == ({"predictions.parquet"} if command == "predict" else set())


@pytest.mark.parametrize("command", ["validate", "test", "predict", "fit"])
def test_a_command_that_fails_deletes_nothing(command: str, dataset: Path, run: Path) -> None:
    before = content(run)
    others = ("--data.column=accuracy", "--trainer.max_epochs=5", f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}")
    with pytest.raises(ValueError, match="column 'accuracy' is not there"):
        read_command([command, *arguments(dataset, run, *others)])()
    assert before.items() <= content(run).items()


def test_validation_gives_the_scores_of_the_last_epoch_again(
    dataset: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = trained / "checkpoints" / "last.ckpt"
    read_command(["validate", *arguments(dataset, tmp_path), f"--ckpt_path={checkpoint}"])()
    [shown] = re.findall(r"val/r_squared[\s│]+(\S+)", capsys.readouterr().out)
    assert float(shown) == pytest.approx(curve(trained, "val/r_squared")[-1], rel=1e-9)


def test_an_earlier_run_is_not_written_over(dataset: Path, trained: Path, tmp_path: Path) -> None:
    """Neither by a run that starts, nor by one that goes on from a checkpoint of a third."""
    before = content(trained)
    (tmp_path / "third.ckpt").write_bytes((trained / "checkpoints" / "last.ckpt").read_bytes())
    for others in ((), (f"--ckpt_path={tmp_path / 'third.ckpt'}",)):
        with pytest.raises(ValueError, match="holds the checkpoints of an earlier run; go on with it by --ckpt_path"):
            read_command(["fit", *arguments(dataset, trained, *others)])()
    fixed = (f"--ckpt_path={trained / 'checkpoints' / 'last.ckpt'}", "--trainer.logger.init_args.version=0")
    with pytest.raises(ValueError, match="version_0 holds the log of an earlier run; leave out trainer.logger"):
        read_command(["fit", *arguments(dataset, trained, *fixed)])()
    assert content(trained) == before


def test_training_goes_on_from_a_checkpoint(dataset: Path, run: Path) -> None:
    """Three epochs are done; a fourth is all that is left of four, and has a log of its own."""
    before = content(run)
    others = (*plan(6, 1), "--trainer.max_epochs=4", f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}")
    read_command(["fit", *arguments(dataset, run, *others)])()
    after = content(run)
    assert {name for name in before if before[name] != after[name]} == {"checkpoints/last.ckpt"}
    second = run / "logs" / "version_1"
    assert {path.name for path in second.iterdir()} == LOG
    assert len(pyarrow.csv.read_csv(second / "metrics.csv")["train/loss"].drop_null()) == 1
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 3


def test_training_that_is_done_says_so_and_writes_nothing(
    dataset: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, checkpoint = content(trained), trained / "checkpoints" / "last.ckpt"
    read_command(["fit", *arguments(dataset, trained, f"--ckpt_path={checkpoint}")])()
    assert capsys.readouterr().out.splitlines() == [f"Nothing to do: all 3 epochs of {checkpoint} are done."]
    assert content(trained) == before


@pytest.mark.parametrize("bar", ["true", "false"])
def test_an_interrupt_before_the_first_checkpoint_is_a_line_of_its_own(
    bar: str, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    step = PredictColumn.training_step

    def interrupt(self: PredictColumn, batch: LabelledBatch, batch_idx: int) -> torch.Tensor:
        if batch_idx == 1:
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)

    monkeypatch.setattr(PredictColumn, "training_step", interrupt)
    others = (*plan(6, 1), f"--trainer.enable_progress_bar={bar}")
    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as stop:
            read_command(["fit", *arguments(dataset, tmp_path, *others)])()
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning leaves it ignored
    assert stop.value.code == 130
    printed = capfd.readouterr()
    assert "v_num" not in printed.out, "the scores fit into 80 columns without the number of the log"
    assert printed.out.endswith("\n") == (bar == "true")
    assert "python -m training: interrupted; there is no checkpoint yet, so start again" in printed.err.splitlines()


def test_a_checkpoint_of_another_shape_is_refused_before_anything_is_written(
    dataset: Path, trained: Path, tmp_path: Path
) -> None:
    others = ("--model.network.width=7", f"--ckpt_path={trained / 'checkpoints' / 'last.ckpt'}")
    with pytest.raises(
        ValueError, match=r"last.ckpt: of a network .*'width': 5.*; the configuration asks for .*'width': 7"
    ):
        read_command(["predict", *arguments(dataset, tmp_path / "out", *others)])()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "bad.ckpt: no such checkpoint"),
        ({"state_dict": {}}, "it has no hyper_parameters"),
        ({"state_dict": {}, "hyper_parameters": {}, "pytorch-lightning_version": "2"}, "it is of another task"),
        (
            {"state_dict": {}, "hyper_parameters": {"network": {}, "optimizer": {}}},
            "Lightning's own entries are missing",
        ),
    ],
)
@pytest.mark.parametrize("command", ["fit", "predict"])
def test_what_is_no_checkpoint_of_ours_is_refused_before_anything_is_written(
    command: str, content: dict | None, message: str, dataset: Path, tmp_path: Path
) -> None:
    if content is not None:
        torch.save(content, tmp_path / "bad.ckpt")
    others = (f"--ckpt_path={tmp_path / 'bad.ckpt'}",)
    with pytest.raises(ValueError, match=message):
        read_command([command, *arguments(dataset, tmp_path / "out", *others)])()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["fit", "baselines"])
def test_nothing_is_written_into_a_dataset(command: str, dataset: Path) -> None:
    before = sorted(dataset.rglob("*"))
    given = {"fit": arguments(dataset, dataset / "out"), "baselines": [f"--path={dataset}", f"--out={dataset}"]}
    with pytest.raises(ValueError, match="is in the dataset .*, which holds nothing else; choose a folder outside it"):
        read_command([command, *given[command]])()
    assert sorted(dataset.rglob("*")) == before


class Payload:
    """What a malicious checkpoint would run."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch ran",)


def test_a_malicious_checkpoint_is_refused_and_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Payload()}, "bad.ckpt", pickle_module=pickle)
    with pytest.raises(ValueError, match="bad.ckpt: not a checkpoint that python -m training fit wrote"):
        load_task(Path("bad.ckpt"))
    assert not Path("ran").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", pickle.dumps({"a": 1}, protocol=2)])
def test_a_file_that_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match="not a checkpoint that python -m training fit wrote"):
        load_task(tmp_path / "bad.ckpt")


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none.ckpt: no such checkpoint; python -m training fit writes them"):
        load_task(tmp_path / "none.ckpt")


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (["--data.column=accuracy"], "column 'accuracy' is not there; expected a column of numbers: epoch"),
        (["--data.column=run_id"], "column 'run_id' holds string; expected a column of numbers: epoch"),
        (["--data.split_column=fold"], "no column 'fold'"),
        (["--data.epochs=[7]"], r"has no graphs among the checkpoints of epochs \[7\]"),
        (["--trainer.accumulate_grad_batches=2"], "set data.plan.micro_batches_per_step instead"),
        (["--trainer.reload_dataloaders_every_n_epochs=0"], "every epoch has a plan of its own"),
    ],
)
def test_what_cannot_be_trained_on_is_said_before_training(
    others: list[str], message: str, dataset: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        read_command(["fit", *arguments(dataset, tmp_path, *others)])()
    assert not (tmp_path / "checkpoints").exists()


def test_a_missing_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none.zarr"):
        read_command(["fit", *arguments(tmp_path / "none.zarr", tmp_path)])()


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (["fit", "--model.network.widht=3"], "widht"),
        (["fit", "--data.colum=test_loss"], "--data.colum"),
        (["fit", "--model.network.width=0"], "width is 0"),
        (["train"], "no command 'train'; choose from fit, validate, test, predict, baselines"),
        (["predict"], "needs --ckpt_path"),
    ],
)
def test_a_wrong_setting_is_named(
    others: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, *rest = others
    with pytest.raises(SystemExit) as stop:
        read_command([command, *arguments(tmp_path / "graphs.zarr", tmp_path), *rest])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_file_that_holds_no_predictions_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"graph_id": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="other.parquet: columns are graph_id; expected graph_id, run_id, unit"):
        read_predictions(tmp_path / "other.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ValueError, match="broken.parquet: not a readable Parquet file"):
        read_predictions(tmp_path / "broken.parquet")
    with pytest.raises(ValueError, match="none.parquet: no such file; make it with python -m training predict"):
        read_predictions(tmp_path / "none.parquet")
