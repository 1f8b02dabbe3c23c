"""The local copy of a dataset's values: the same bits, made once, and never believed when it is not that."""

import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from damage import flip, truncate
from pipeline import graph_sources, local_copy
from pipeline.build_graphs import append, graphs
from pipeline.graph_plan import DatasetSpec
from pipeline.graph_store import GraphDataset, open_graphs
from pipeline.whole_files import leftovers
from tiny_dataset import NUM_VALUES, content, in_this_process, make_tiny_dataset, write_zoo
from tiny_zoo import tiny_spec


@pytest.fixture(name="path", scope="module")
def shared_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_dataset(tmp_path_factory.getbasetemp())


def bytes_of(dataset: GraphDataset) -> list[bytes]:
    """The values of every graph; also called in other processes."""
    return [graph.values.tobytes() for graph in dataset]


def known_templates(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that follow trace nothing and run here."""
    dataset = open_graphs(path)
    digests = dict(zip(*(dataset.table[name].to_pylist() for name in ("architecture", "template")), strict=True))
    monkeypatch.setattr(
        graph_sources,
        "trace_architectures",
        lambda rows, files: {text: dataset.templates[digest] for text, digest in digests.items()},
    )
    in_this_process(monkeypatch)


def test_a_copy_has_the_same_values_bit_for_bit(path: Path, tmp_path: Path) -> None:
    dataset = open_graphs(path)
    copied = dataset.materialise(tmp_path / "copy")
    assert bytes_of(copied) == bytes_of(dataset)
    assert copied.table.equals(dataset.table)
    assert all(np.array_equal(copied.read_part(part), dataset.read_part(part)) for part in range(5))


def test_the_files_of_a_copy_are_those_of_the_page(path: Path, tmp_path: Path) -> None:
    """docs/stores.md, "A local copy of the values", with hashlib and json."""
    dataset = open_graphs(path)
    dataset.materialise(tmp_path / "copy")
    assert {entry.name for entry in (tmp_path / "copy").iterdir()} == {"values.f32", "copy.json"}
    parts = [dataset.read_part(part).astype("<f4").tobytes() for part in range(5)]
    assert (tmp_path / "copy" / "values.f32").read_bytes() == b"".join(parts)
    assert json.loads((tmp_path / "copy" / "copy.json").read_bytes()) == {
        "format": "metazoo-copy",
        "version": 1,
        "dataset": json.loads((path / "manifest.json").read_bytes())["digest"],
        "parts": [hashlib.sha256(part).hexdigest() for part in parts],
    }


def test_a_copy_reads_nothing_of_the_datasets_values(path: Path, tmp_path: Path) -> None:
    dataset = shutil.copytree(path, tmp_path / "graphs.zarr")
    expected = bytes_of(open_graphs(dataset).materialise(tmp_path / "copy"))
    shutil.rmtree(dataset / "values")
    assert bytes_of(open_graphs(dataset).materialise(tmp_path / "copy")) == expected


def test_a_copy_that_is_there_is_used_and_not_written(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_graphs(path).materialise(tmp_path / "copy")
    before = {entry.name: (entry.stat().st_ino, entry.stat().st_mtime_ns) for entry in (tmp_path / "copy").iterdir()}

    def fail(*_: object) -> None:
        raise AssertionError("it writes")

    monkeypatch.setattr(local_copy, "write_copy", fail)
    again = open_graphs(path).materialise(str(tmp_path / "copy"))
    assert bytes_of(again) == bytes_of(first)
    after = {entry.name: (entry.stat().st_ino, entry.stat().st_mtime_ns) for entry in (tmp_path / "copy").iterdir()}
    assert after == before


def test_folders_above_a_copy_are_made(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a folder may be told from where one is."""
    monkeypatch.chdir(tmp_path)
    copied = open_graphs(path).materialise(Path("some") / "where")
    assert (tmp_path / "some" / "where" / "values.f32").is_file()
    monkeypatch.chdir("/")
    assert len(bytes_of(pickle.loads(pickle.dumps(copied)))) == 13  # noqa: S301  # our own


def test_values_of_a_copy_cannot_be_written(path: Path, tmp_path: Path) -> None:
    copied = open_graphs(path).materialise(tmp_path / "copy")
    part = copied.read_part(1)
    assert not part.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        part[0] = 1
    with pytest.raises(ValueError, match="cannot set WRITEABLE"):
        part.flags.writeable = True
    copied[0].values[:] = 0  # a graph's own, as ever
    assert copied[0].values.any()


def test_a_selection_reads_from_the_copy_and_makes_one_of_everything(path: Path, tmp_path: Path) -> None:
    dataset = open_graphs(path)
    chosen = dataset.split("train").materialise(tmp_path / "copy")
    assert bytes_of(chosen) == bytes_of(dataset.split("train"))
    assert (tmp_path / "copy" / "values.f32").stat().st_size == 13 * NUM_VALUES * 4
    whole = dataset.materialise(tmp_path / "copy")
    late = pc.field("epoch") > 0
    assert bytes_of(whole.split("train").filter(late)) == bytes_of(dataset.split("train").filter(late))
    assert [row for row, _ in whole.stream(seed=2)] == [row for row, _ in dataset.stream(seed=2)]


def test_a_copy_of_a_copy_is_the_same(path: Path, tmp_path: Path) -> None:
    copied = open_graphs(path).materialise(tmp_path / "one")
    copied.materialise(tmp_path / "two")
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert bytes_of(copied.materialise(tmp_path / "one")) == bytes_of(copied)


def test_a_copy_of_float16_is_float32(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known_templates(path, monkeypatch)
    graphs(path.parent / "zoo", tmp_path / "half.zarr", DatasetSpec(dtype="float16", floats_per_part=3 * NUM_VALUES))
    half = open_graphs(tmp_path / "half.zarr")
    copied = half.materialise(tmp_path / "copy")
    assert bytes_of(copied) == bytes_of(half)
    assert copied[0].values.dtype == copied.read_part(0).dtype == np.float32
    assert (tmp_path / "copy" / "values.f32").stat().st_size == 13 * NUM_VALUES * 4


def test_the_copy_of_another_dataset_is_refused(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same graphs even, in another order."""
    known_templates(path, monkeypatch)
    graphs(path.parent / "zoo", tmp_path / "other.zarr", DatasetSpec(seed=1, floats_per_part=3 * NUM_VALUES))
    open_graphs(tmp_path / "other.zarr").materialise(tmp_path / "copy")
    before = content(tmp_path / "copy")
    with pytest.raises(
        ValueError, match="copy: a copy of another dataset, or of this one before .* delete it, or choose"
    ):
        open_graphs(path).materialise(tmp_path / "copy")
    assert content(tmp_path / "copy") == before


def test_a_copy_made_before_something_was_appended_is_refused_and_read_by_who_has_it_open(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_templates(path, monkeypatch)
    dataset = shutil.copytree(path, tmp_path / "graphs.zarr")
    before = open_graphs(dataset)
    copied, expected = before.materialise(tmp_path / "copy"), bytes_of(before)
    pickled = pickle.dumps(copied)
    write_zoo(tmp_path / "zoo", tiny_spec(seed=8, num_runs=2))
    append(dataset, tmp_path / "zoo")
    with pytest.raises(ValueError, match="or of this one before something was appended; delete it, or choose another"):
        open_graphs(dataset).materialise(tmp_path / "copy")
    with pytest.raises(ValueError, match="the dataset was replaced while it was in use"):
        pickle.loads(pickled)  # noqa: S301  # our own
    assert bytes_of(copied) == bytes_of(before.materialise(tmp_path / "copy")) == expected
    assert len(bytes_of(open_graphs(dataset).materialise(tmp_path / "new"))) == 13 + 4


def edited(change: dict[str, object]) -> bytes:
    """What is changed in ``copy.json``, which is not known yet."""
    return json.dumps(change).encode()


NO_COPY = "not a copy of a dataset .* choose another folder"
ANOTHER = "a copy of another dataset, or of this one before something was appended; delete it, or choose another folder"
SHORT = "values.f32: missing or cut short; delete .*, and it is made again"


@pytest.mark.parametrize(
    ("file", "damaged", "message"),
    [
        ("copy.json", None, NO_COPY),
        ("copy.json", b"", NO_COPY),
        ("copy.json", b"{", NO_COPY),
        ("copy.json", b"\xff\xfe", NO_COPY),
        ("copy.json", b"[]", NO_COPY),
        ("copy.json", b"3", NO_COPY),
        ("copy.json", b"{}", NO_COPY),
        ("copy.json", b"[" * 100_000, NO_COPY),
        ("copy.json", edited({"parts": None}), NO_COPY),
        ("copy.json", edited({"parts": 5}), NO_COPY),
        ("copy.json", edited({"parts": []}), ANOTHER),
        ("copy.json", edited({"parts": "0" * 6}), ANOTHER),
        ("copy.json", edited({"version": 2}), ANOTHER),
        ("copy.json", edited({"format": "metazoo-graphs"}), ANOTHER),
        ("copy.json", edited({"dataset": "0" * 64}), ANOTHER),
        ("copy.json", edited({"dataset": ["0" * 64]}), ANOTHER),
        ("values.f32", None, SHORT),
        ("values.f32", b"", SHORT),
        ("values.f32", b"0" * (13 * NUM_VALUES * 4 + 1), SHORT),
    ],
    ids=lambda given: str(given)[:40],
)
def test_a_damaged_copy_is_refused_with_what_to_do_and_left_as_it_is(
    file: str, damaged: bytes | None, message: str, path: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    open_graphs(path).materialise(folder)
    if damaged is None:
        (folder / file).unlink()
    elif damaged.startswith(b"{") and len(damaged) > 2:
        (folder / file).write_text(json.dumps(json.loads((folder / file).read_bytes()) | json.loads(damaged)))
    else:
        (folder / file).write_bytes(damaged)
    before = content(folder)
    with pytest.raises(ValueError, match=message) as error:
        open_graphs(path).materialise(folder)
    assert str(folder) in str(error.value)
    assert content(folder) == before


def test_a_copy_that_is_cut_short_is_refused(path: Path, tmp_path: Path) -> None:
    open_graphs(path).materialise(tmp_path / "copy")
    truncate("values.f32", tmp_path / "copy")
    with pytest.raises(ValueError, match=SHORT):
        open_graphs(path).materialise(tmp_path / "copy")


def test_a_flipped_bit_is_found_when_its_part_is_read(path: Path, tmp_path: Path) -> None:
    """In the middle, which is part 2 of 5: graphs 6 to 8."""
    open_graphs(path).materialise(tmp_path / "copy")
    flip("values.f32", tmp_path / "copy")
    copied = open_graphs(path).materialise(tmp_path / "copy")
    assert copied[5].values.tobytes() == open_graphs(path)[5].values.tobytes()
    for _ in range(2):
        with pytest.raises(ValueError, match="copy: altered, part 2 is not what was copied; delete the folder"):
            copied[6]
    assert copied[9].values.tobytes() == open_graphs(path)[9].values.tobytes()


@pytest.mark.parametrize("there", ["a file", "a folder of something else"])
def test_what_is_no_copy_is_left_alone(there: str, path: Path, tmp_path: Path) -> None:
    if there == "a file":
        (tmp_path / "copy").write_text("mine")
    else:
        (tmp_path / "copy").mkdir()
        (tmp_path / "copy" / "notes.txt").write_text("mine")
    before = content(tmp_path)
    with pytest.raises(ValueError, match=NO_COPY):
        open_graphs(path).materialise(tmp_path / "copy")
    assert content(tmp_path) == before


def test_a_copy_is_not_made_inside_a_dataset(path: Path, tmp_path: Path) -> None:
    """A dataset has no files but those its manifest names: ``verify`` would find it unsound."""
    dataset = shutil.copytree(path, tmp_path / "graphs.zarr")
    before = content(dataset)
    with pytest.raises(ValueError, match="choose a folder outside it"):
        open_graphs(dataset).materialise(dataset / "copy")
    assert content(dataset) == before


KILLED = """
import os, signal, sys
from pipeline.graph_store import open_graphs
from pipeline.local_copy import local_copy

dataset = open_graphs(sys.argv[1])

def read_part(part):
    if part == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return dataset.read_part(part)

local_copy(dataset.files.manifest, read_part, sys.argv[2])
"""


def test_a_process_killed_while_it_copies_leaves_only_what_the_next_one_sweeps(path: Path, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, path, tmp_path / "copy"], cwd=Path(__file__).parents[1], capture_output=True
    )
    assert ended.returncode == -signal.SIGKILL
    [aside] = tmp_path.iterdir()
    assert [leftover.path for leftover in leftovers(tmp_path)] == [aside]
    assert (aside / "values.f32").exists()
    assert bytes_of(open_graphs(path).materialise(tmp_path / "copy")) == bytes_of(open_graphs(path))
    assert [entry.name for entry in tmp_path.iterdir()] == ["copy"]


def test_an_error_while_copying_leaves_nothing(path: Path, tmp_path: Path) -> None:
    dataset = shutil.copytree(path, tmp_path / "graphs.zarr")
    flip("values/00003/c/0", dataset)
    with pytest.raises(ValueError, match=r"values/00003/c/0: altered"):
        open_graphs(dataset).materialise(tmp_path / "copies" / "copy")
    assert list((tmp_path / "copies").iterdir()) == []


def test_a_full_disk_is_an_error_that_names_the_folder(path: Path, tmp_path: Path) -> None:
    def full(_: int) -> np.ndarray:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left on device") as error:
        local_copy.local_copy(open_graphs(path).files.manifest, full, tmp_path / "copy")
    assert error.value.filename == str(tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def appears(path: Path, other: Path, folder: Path) -> local_copy.LocalCopy:
    """Make a copy of a dataset while another process makes one of another there, and ends first."""
    dataset = open_graphs(path)
    open_graphs(other).materialise(folder.with_name("elsewhere"))

    def read_part(part: int) -> np.ndarray:
        if part == 4:
            folder.with_name("elsewhere").rename(folder)
        return dataset.read_part(part)

    return local_copy.local_copy(dataset.files.manifest, read_part, folder)


def test_of_two_processes_that_copy_at_once_the_first_wins(path: Path, tmp_path: Path) -> None:
    found = appears(path, path, tmp_path / "copy")
    assert all(np.array_equal(found.read_part(part), open_graphs(path).read_part(part)) for part in range(5))
    assert [entry.name for entry in tmp_path.iterdir()] == ["copy"]


def test_another_dataset_that_was_copied_there_meanwhile_is_refused(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_templates(path, monkeypatch)
    graphs(path.parent / "zoo", tmp_path / "other.zarr", DatasetSpec(seed=1, floats_per_part=3 * NUM_VALUES))
    with pytest.raises(ValueError, match=ANOTHER):
        appears(path, tmp_path / "other.zarr", tmp_path / "copy")
    assert {entry.name for entry in tmp_path.iterdir()} == {"copy", "other.zarr"}


def test_a_copy_is_read_in_another_process_that_is_handed_a_pickle(path: Path, tmp_path: Path) -> None:
    """Spawned, so that it has nothing but the pickle; the values of the dataset are not there for it to read."""
    dataset = shutil.copytree(path, tmp_path / "graphs.zarr")
    chosen = open_graphs(dataset).materialise(tmp_path / "copy").split("train")
    shutil.rmtree(dataset / "values")
    assert len(pickle.dumps(chosen)) < 1000
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(bytes_of, chosen).result(timeout=120) == bytes_of(chosen)


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file") as error:
        open_graphs(path).materialise(tmp_path / "file" / "copy")
    assert os.fspath(tmp_path / "file") in str(error.value)
