"""A dataset in an object store is the same files as on a disk: written, killed, continued, read, verified, copied."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from kills import Killed
from object_store import BUCKET, object_store, stored
from pipeline import dataset_writer
from pipeline.build_graphs import append, graphs
from pipeline.dataset_writer import BUILDING
from pipeline.graph_store import open_graphs
from pipeline.inspect_graphs import inspect
from pipeline.places import Place, place
from pipeline.train_zoo import status
from pipeline.verify_graphs import verify
from pipeline.zoo_store import finished_chunks
from tiny_dataset import SMALL_PARTS, content, in_this_process, known_templates, make_tiny_dataset, write_zoo
from tiny_zoo import tiny_spec

ROOT = Path(__file__).parents[1]


@pytest.fixture(name="variables", scope="module", autouse=True)
def shared_store() -> Iterator[dict[str, str]]:
    with object_store() as variables:
        yield variables


@pytest.fixture(name="undisturbed")
def shared_undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same dataset on a disk; its zoo lies beside it."""
    return make_tiny_dataset(tmp_path_factory.getbasetemp())


@pytest.fixture(autouse=True)
def without_a_cluster(undisturbed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known_templates(undisturbed, monkeypatch)
    in_this_process(monkeypatch)


def test_the_objects_are_the_files_to_the_byte(undisturbed: Path) -> None:
    graphs(undisturbed.parent / "zoo", f"s3://{BUCKET}/same/graphs.zarr", SMALL_PARTS)
    assert stored("same/graphs.zarr") == content(undisturbed)


def test_a_build_killed_at_any_write_and_run_again_gives_the_same_objects(undisturbed: Path) -> None:
    zoo, out, written = undisturbed.parent / "zoo", f"s3://{BUCKET}/killed/graphs.zarr", 0
    write_file = dataset_writer.write_file
    left = 0

    def write(path: Place, data: bytes) -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        write_file(path, data)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(dataset_writer, "write_file", write)
        while not any(name == "manifest.json" for name in stored("killed/graphs.zarr")):
            left, written = 3, written + 3  # a part is three: each try finishes one at least
            with suppress(Killed):
                graphs(zoo, out, SMALL_PARTS)
    assert written >= 20
    graphs(zoo, out, SMALL_PARTS)
    assert stored("killed/graphs.zarr") == content(undisturbed)


def test_what_is_read_is_what_is_read_from_a_disk(undisturbed: Path, tmp_path: Path) -> None:
    path = f"s3://{BUCKET}/read/graphs.zarr"
    graphs(undisturbed.parent / "zoo", path, SMALL_PARTS)
    verify(path)
    inspect(path)
    local, remote = open_graphs(undisturbed), open_graphs(path)
    assert remote.table.equals(local.table)
    copy = remote.materialise(tmp_path / "copy")
    for row in range(len(local)):
        assert remote[row].values.tobytes() == copy[row].values.tobytes() == local[row].values.tobytes()


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_read_it_after_this_process_has(start: str, undisturbed: Path) -> None:
    """Connections do not survive a fork: a worker makes its own."""
    path = f"s3://{BUCKET}/workers/graphs.zarr"
    graphs(undisturbed.parent / "zoo", path, SMALL_PARTS)
    dataset = open_graphs(path)
    expected = [graph.values.tobytes() for graph in dataset]
    loader = DataLoader(
        dataset.stream(parts_per_window=1), batch_size=None, num_workers=2, multiprocessing_context=start
    )
    found = {row: graph.values.tobytes() for row, graph in loader}
    assert [found[row] for row in range(len(expected))] == expected


def test_zoos_are_appended(undisturbed: Path, tmp_path: Path) -> None:
    path = f"s3://{BUCKET}/appended/graphs.zarr"
    write_zoo(tmp_path / "other", tiny_spec(seed=8, num_runs=3))
    graphs(undisturbed.parent / "zoo", path, SMALL_PARTS)
    append(path, tmp_path / "other")
    assert len(open_graphs(path)) == 13 + 6
    verify(path)


def test_damage_is_found(undisturbed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = f"s3://{BUCKET}/damaged/graphs.zarr"
    graphs(undisturbed.parent / "zoo", path, SMALL_PARTS)
    shard = place(path) / "values/00001/c/0"
    shard.write_bytes(shard.read_bytes()[::-1])
    (place(path) / "notes.txt").write_bytes(b"mine")
    with pytest.raises(ValueError, match="2 findings"):
        verify(path)
    report = capsys.readouterr().out
    assert f"{path}/values/00001/c/0: altered" in report
    assert f"{path}/notes.txt: the manifest does not name it" in report
    shard.unlink()
    with pytest.raises(ValueError, match="values/00001/c/0: missing"):
        open_graphs(path).read_part(1)


def test_a_place_with_other_things_is_not_touched(undisturbed: Path) -> None:
    (place(f"s3://{BUCKET}/mine") / "photo.png").write_bytes(b"a cat")
    with pytest.raises(ValueError, match=r"is not empty and not a dataset \(it holds photo.png\)"):
        graphs(undisturbed.parent / "zoo", f"s3://{BUCKET}/mine", SMALL_PARTS)
    assert set(stored("mine")) == {"photo.png"}


def test_a_bucket_that_is_not_there_or_a_store_that_does_not_answer_is_one_line(
    undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="s3://nowhere/graphs.zarr: no parameter-graph dataset here"):
        open_graphs("s3://nowhere/graphs.zarr")
    with pytest.raises(OSError, match="bucket does not exist"):
        graphs(undisturbed.parent / "zoo", "s3://nowhere/graphs.zarr", SMALL_PARTS)
    with pytest.raises(ValueError, match=r"abc://x/graphs.zarr: .*needs the packages of the extra \[s3\]"):
        open_graphs("abc://x/graphs.zarr")


def test_a_driver_killed_while_it_writes_leaves_what_the_same_command_finishes(
    undisturbed: Path, variables: dict[str, str]
) -> None:
    """A real job on a cluster of its own, and a real SIGKILL, as soon as something is recorded."""
    command = [
        *(sys.executable, "-m", "pipeline", "graphs", "--zoo", str(undisturbed.parent / "zoo")),
        *("--out", f"s3://{BUCKET}/job/graphs.zarr", "--dataset.floats_per_part", str(SMALL_PARTS.floats_per_part)),
    ]
    environment = os.environ | variables
    driver = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, start_new_session=True)
    while driver.poll() is None and not any(name.startswith(f"{BUILDING}/0") for name in stored("job/graphs.zarr")):
        pass
    os.killpg(driver.pid, signal.SIGKILL)
    driver.communicate()
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    one_table = open_graphs(f"s3://{BUCKET}/job/graphs.zarr")
    assert len(one_table.files.manifest.tables) == 1
    assert one_table.table.equals(open_graphs(undisturbed).table)
    assert np.array_equal(one_table.read_part(3), open_graphs(undisturbed).read_part(3))
    verify(f"s3://{BUCKET}/job/graphs.zarr")


def test_a_zoo_is_trained_into_an_object_store_and_made_graphs_of(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same objects as files on a disk, but for the log; a chunk that lacks its last object is trained again."""
    spec = tiny_spec(num_runs=3)
    local, remote = (write_zoo(path, spec) for path in (tmp_path / "zoo", place(f"s3://{BUCKET}/animals/zoo")))
    assert finished_chunks(remote) == finished_chunks(local)
    assert stored("animals/zoo") == content(tmp_path / "zoo")
    graphs(str(remote.path), tmp_path / "remote.zarr", SMALL_PARTS)
    graphs(tmp_path / "zoo", tmp_path / "local.zarr", SMALL_PARTS)
    assert content(tmp_path / "remote.zarr") == content(tmp_path / "local.zarr")
    inspect(remote.path)
    status(remote.path)
    (remote.chunk_path(0) / "done.json").unlink()
    assert finished_chunks(remote) == finished_chunks(local)[1:]
    with pytest.raises(ValueError, match="1 of . chunks are not trained yet"):
        graphs(str(remote.path), tmp_path / "again.zarr", SMALL_PARTS)
    write_zoo(remote.path, spec)
    assert stored("animals/zoo") == content(tmp_path / "zoo")
