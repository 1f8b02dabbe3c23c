"""The zoo's job without a cluster: what is left to do, what one task does, and what is said about a zoo."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import RayHead
from pipeline import train_zoo
from pipeline.distributions import Choice, Distribution
from pipeline.families import FamilySpec
from pipeline.images import Images, ImageSpec, load_images
from pipeline.train_zoo import status, zoo
from pipeline.trainers import Trainer
from pipeline.zoo import Plan, ZooSpec, expand, plan
from pipeline.zoo_job import missing_chunks, train_and_write
from pipeline.zoo_store import Zoo, create_zoo, finished_chunks, read_chunk
from pipeline.zoo_summary import summary
from tiny_zoo import TINY, tiny_spec


@pytest.fixture(scope="module")
def images() -> Images:
    return load_images(TINY.images)


def train_all(path: Path, spec: ZooSpec, images: Images) -> Zoo:
    """A zoo, trained without a cluster."""
    store = create_zoo(path, spec)
    for index in range(spec.num_chunks):
        train_and_write(index, store, images)
    return store


def test_longest_chunks_come_first_and_finished_ones_not_at_all(tmp_path: Path, images: Images) -> None:
    spec = tiny_spec(num_runs=11, runs_per_chunk=2)
    runs = expand(spec)
    store = create_zoo(tmp_path / "zoo", spec)
    chunks = missing_chunks(store, plan(spec).chunk_steps(spec))
    steps = [sum(runs[run].num_steps for run in spec.chunk(index)) for index in chunks]
    assert sorted(chunks) == [0, 1, 2, 3, 4, 5]
    assert steps == sorted(steps, reverse=True)
    assert len(set(steps)) > 1
    train_and_write(4, store, images)
    assert missing_chunks(store, plan(spec).chunk_steps(spec)) == [index for index in chunks if index != 4]


def test_a_task_writes_its_chunk_and_says_how_many_runs_that_were(tmp_path: Path, images: Images) -> None:
    store = create_zoo(tmp_path / "zoo", TINY)
    assert train_and_write(1, store, images) == 2
    assert finished_chunks(store) == [1]
    assert read_chunk(store, 1).rows["run_index"].to_pylist() == [3, 3, 4, 4]


def test_shared_images_that_cannot_be_written_to_do(tmp_path: Path, images: Images) -> None:
    """As they come from Ray's object store."""
    arrays = {name: value.copy() for name, value in vars(images).items() if isinstance(value, np.ndarray)}
    for array in arrays.values():
        array.setflags(write=False)
    store = create_zoo(tmp_path / "zoo", TINY)
    assert train_and_write(1, store, Images(**arrays, num_classes=10)) == 2


def test_the_log_says_when_and_where_and_is_no_part_of_the_zoo(tmp_path: Path, images: Images) -> None:
    store = train_all(tmp_path / "zoo", TINY, images)
    train_and_write(1, store, images)
    first, second = (json.loads(line) for line in store.log_path(1).read_text().splitlines())
    runs = expand(TINY)
    assert first["chunk"] == second["chunk"] == 1
    assert first["steps"] == runs[3].num_steps + runs[4].num_steps
    assert first["packages"]["torch"]
    assert {path.name for path in store.path.iterdir()} == {"zoo.json", "chunks", "log"}


def test_a_finished_zoo_is_left_alone_and_no_cluster_is_started(
    tmp_path: Path, images: Images, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = train_all(tmp_path / "zoo", TINY, images)
    before = {path: path.stat().st_mtime_ns for path in store.path.rglob("*")}
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it is an error

    def fail(spec: ImageSpec, folder: Path | None) -> Images:
        raise AssertionError("a finished zoo needs no images")

    def fail_to_plan(spec: ZooSpec) -> Plan:
        raise AssertionError("a finished zoo needs no plan")

    monkeypatch.setattr(train_zoo, "load_images", fail)
    monkeypatch.setattr(train_zoo, "plan", fail_to_plan)
    zoo(TINY, store.path)
    assert capsys.readouterr().out.splitlines()[0] == f"Nothing to do: all 2 chunks of {store.path} are trained."
    assert {path: path.stat().st_mtime_ns for path in store.path.rglob("*")} == before


def test_an_impossible_zoo_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="run 0: train_fraction 0.2 .* less than one batch"):
        zoo(tiny_spec(train_fraction=Distribution(choice=(0.2,))), tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_a_family_that_cannot_be_stacked_makes_no_folder(tmp_path: Path) -> None:
    one = {"activation": "gelu", "width": 4, "depth": 1, "patch_size": 17, "num_heads": 2, "expansion": 1}
    family = FamilySpec(family="vit", **{name: Choice(choice=(value,)) for name, value in one.items()})  # pyright: ignore
    with pytest.raises(
        ValueError, match="positions is a parameter outside layers, which cannot be stacked; train with"
    ):
        zoo(tiny_spec(architecture=family), tmp_path / "zoo", trainer=Trainer(name="stacked"))
    assert not (tmp_path / "zoo").exists()


def test_networks_that_read_another_axis_are_not_stacked(tmp_path: Path) -> None:
    one = {"activation": "gelu", "width": 4, "depth": 2}
    family = FamilySpec(family="deepsets", **{name: Choice(choice=(value,)) for name, value in one.items()})  # pyright: ignore
    with pytest.raises(ValueError, match="deepsets: its layers read another axis than that of channels"):
        zoo(tiny_spec(architecture=family), tmp_path / "zoo", trainer=Trainer(name="stacked"))
    assert not (tmp_path / "zoo").exists()


def test_what_this_machine_does_not_have_makes_no_folder(
    tmp_path: Path, ray_head: RayHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ValueError, match="RAY_ADDRESS is 127.0.0.1:1, where nothing answers"):
        zoo(TINY, tmp_path / "zoo")
    monkeypatch.setenv("RAY_ADDRESS", "hello")
    with pytest.raises(ValueError, match="RAY_ADDRESS is hello: .*; correct or unset it"):
        zoo(TINY, tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_a_zoo_whose_images_do_not_load_makes_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(spec: ImageSpec, folder: Path | None) -> Images:
        raise RuntimeError("cannot allocate")

    monkeypatch.setattr(train_zoo, "load_images", fail)
    with pytest.raises(RuntimeError, match="cannot allocate"):
        zoo(TINY, tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_status_says_how_far_a_zoo_is(tmp_path: Path, images: Images, capsys: pytest.CaptureFixture[str]) -> None:
    store = create_zoo(tmp_path / "zoo", TINY)
    status(store.path)
    assert capsys.readouterr().out.splitlines() == [
        f"Zoo 'tiny' in {store.path}",
        "  chunks          0 of 2, 0.0 MB",
        "  runs            0 of 5, 2 checkpoints each",
    ]
    train_and_write(0, store, images)
    status(store.path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("  chunks          1 of 2, 0.1 MB")
    assert lines[2:4] == ["  runs            3 of 5, 2 checkpoints each", "  diverged        0 runs"]
    accuracy = read_chunk(store, 0).rows["test_accuracy"].to_numpy()[1::2]
    low, median, high = np.percentile(accuracy, [5, 50, 95])
    assert lines[4:] == [
        f"  final accuracy  median {median:.3f}, 5th to 95th percentile {low:.3f} to {high:.3f} (test)"
    ]
    assert all(len(line) <= 80 for line in lines[1:])


def test_status_of_a_zoo_in_which_every_run_diverged(tmp_path: Path, images: Images) -> None:
    spec = tiny_spec(learning_rate=Distribution(choice=(1e30,)), optimizer=Choice(choice=("sgd",)), num_runs=2)
    lines = list(summary(train_all(tmp_path / "zoo", spec, images)))
    assert lines[3:] == [
        "  diverged        2 runs",
        "  final accuracy  none: every run diverged; lower the learning rates",
    ]


def test_status_of_a_path_without_a_zoo_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no zoo here \(no zoo.json\)"):
        status(tmp_path)
