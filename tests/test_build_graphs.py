"""The command that makes a dataset, its tasks run in this process: the same bytes after any kill; clear refusals."""

import fcntl
import json
import pickle
import shutil
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from kills import Killed, killed_after
from pipeline import build_graphs, graph_sources
from pipeline.architectures import Architecture
from pipeline.build_graphs import graphs
from pipeline.dataset_manifest import MANIFEST
from pipeline.dataset_writer import BUILDING
from pipeline.graph_plan import DatasetSpec, plan_dataset
from pipeline.graph_source import GraphSource, NpyFile
from pipeline.graph_sources import (
    Selection,
    check_round_trip,
    read_zoos,
    trace_architecture,
    trace_architectures,
    zoo_source,
)
from pipeline.graph_store import open_graphs
from pipeline.split_rules import SplitRule
from pipeline.tracing import trace
from pipeline.verify_graphs import verify
from pipeline.zoo_store import Zoo, open_zoo, read_chunk
from tiny_dataset import (
    NUM_VALUES,
    SMALL_PARTS,
    content,
    in_this_process,
    known_templates,
    make_tiny_dataset,
    write_zoo,
)
from tiny_zoo import tiny_spec

THREE_PARTS = 1 + 2 + 3 * 3
"""Writes until three parts are recorded: what is written, two groups, and three files a part."""


@pytest.fixture(name="undisturbed")
def shared_undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset made in one go; its zoo lies beside it."""
    return make_tiny_dataset(tmp_path_factory.getbasetemp())


@pytest.fixture(name="zoo")
def shared_zoo(undisturbed: Path) -> Path:
    return undisturbed.parent / "zoo"


@pytest.fixture(autouse=True)
def without_a_cluster(undisturbed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known_templates(undisturbed, monkeypatch)
    in_this_process(monkeypatch)


def test_the_command_says_what_it_made(zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graphs(zoo, tmp_path / "graphs.zarr", SMALL_PARTS)
    printed = capsys.readouterr().out
    assert "13 checkpoints of 5 runs\n  left out     2 diverged\n" in printed
    assert "5 parts, 20 files" in printed
    verify(tmp_path / "graphs.zarr")


def test_a_second_run_says_that_there_is_nothing_to_do_and_does_nothing(
    zoo: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("it does something")

    for name in ("zoo_source", "one_writer", "write_addition", "tidy"):
        monkeypatch.setattr(build_graphs, name, fail)
    before = content(undisturbed)
    graphs(zoo, undisturbed, SMALL_PARTS)
    assert (
        f"Nothing to do: {undisturbed} is finished; python -m pipeline verify compares every file."
        in capsys.readouterr().out
    )
    assert content(undisturbed) == before


def test_a_dataset_whose_manifest_is_a_folder_is_not_called_finished(
    zoo: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "graphs.zarr")
    (out / MANIFEST).unlink()
    (out / MANIFEST).mkdir()
    capsys.readouterr()
    with pytest.raises(ValueError, match=r"manifest.json: not a file; restore the file from a copy, or build"):
        graphs(zoo, out, SMALL_PARTS)
    assert capsys.readouterr().out == ""


def test_the_order_in_which_parts_finish_does_not_matter(
    zoo: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_this_process(monkeypatch, order=lambda parts: parts[::-1])
    graphs(zoo, tmp_path / "graphs.zarr", SMALL_PARTS)
    assert content(tmp_path / "graphs.zarr") == content(undisturbed)


def test_nothing_in_a_dataset_tells_where_it_or_its_zoo_lay(zoo: Path, undisturbed: Path, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(zoo, tmp_path / "another place" / "zoo")
    graphs(elsewhere, tmp_path / "graphs.zarr", SMALL_PARTS)
    assert content(tmp_path / "graphs.zarr") == content(undisturbed)


def test_a_build_killed_at_any_write_and_run_again_gives_the_same_bytes(zoo: Path, tmp_path: Path) -> None:
    """What is written, two groups; of each part its array's two files and its record; what is left out, a table for
    each part, the templates; the manifest."""
    spec, out = DatasetSpec(floats_per_part=5 * NUM_VALUES), tmp_path / "graphs.zarr"
    with killed_after(1000) as writes:
        graphs(zoo, out, spec)
    num_writes, undisturbed = len(writes), content(out)
    assert num_writes == 1 + 2 + 3 * 3 + 1 + 3 + 1 + 1  # three parts, both templates first needed in part 0
    for kill in range(num_writes):
        shutil.rmtree(out)
        with killed_after(kill) as writes:
            graphs(zoo, out, spec)
        assert len(writes) == kill + 1
        assert not (out / MANIFEST).exists()
        with pytest.raises(ValueError, match=r"dataset is not finished; run .* again|no parameter-graph dataset here"):
            open_graphs(out)
        graphs(zoo, out, spec)
        assert content(out) == undisturbed, f"killed during write {kill}"


def test_a_build_goes_on_with_the_parts_that_have_no_record(zoo: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "graphs.zarr"
    with killed_after(THREE_PARTS):
        graphs(zoo, out, SMALL_PARTS)
    with killed_after(1000) as writes:
        graphs(zoo, out, SMALL_PARTS)
    arrays = {path.relative_to(out).as_posix() for path in writes if "values" in path.parts}
    assert arrays == {f"values/0000{part}/{name}" for part in (3, 4) for name in ("zarr.json", "c/0")}
    assert content(out) == content(undisturbed)


def test_a_build_killed_before_it_tidied_up_is_tidied_up(
    zoo: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(_: Path) -> None:
        raise Killed

    out = tmp_path / "graphs.zarr"
    with monkeypatch.context() as patched:
        patched.setattr(build_graphs, "tidy", die)
        with pytest.raises(Killed):
            graphs(zoo, out, SMALL_PARTS)
    assert (out / MANIFEST).exists()
    assert len(open_graphs(out)) == 13
    assert content(out) != content(undisturbed)
    graphs(zoo, out, SMALL_PARTS)
    assert content(out) == content(undisturbed)


@pytest.mark.parametrize("record", [b"", b"{", b"{}", b"[]", b'{"plan": "", "files": {"values/00001/c/0": 3}}'])
def test_a_record_that_is_none_does_not_count(record: bytes, zoo: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "graphs.zarr"
    with killed_after(THREE_PARTS):
        graphs(zoo, out, SMALL_PARTS)
    (out / BUILDING / "00001.json").write_bytes(record)
    graphs(zoo, out, SMALL_PARTS)
    assert content(out) == content(undisturbed)


@pytest.mark.parametrize("file", ["values/00001/zarr.json", "values/00001/c/0"])
@pytest.mark.parametrize("damage", ["cut short", "missing"])
def test_a_recorded_part_that_is_not_whole_is_written_again(
    file: str, damage: str, zoo: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "graphs.zarr"
    with killed_after(THREE_PARTS):
        graphs(zoo, out, SMALL_PARTS)
    if damage == "missing":
        (out / file).unlink()
    else:
        (out / file).write_bytes((out / file).read_bytes()[:-1])
    graphs(zoo, out, SMALL_PARTS)
    assert content(out) == content(undisturbed)


def test_a_part_that_was_planned_otherwise_is_written_again(zoo: Path, undisturbed: Path, tmp_path: Path) -> None:
    """As when the program changed between the kill and the second run: the record has the digest of another plan."""
    out = tmp_path / "graphs.zarr"
    with killed_after(THREE_PARTS):
        graphs(zoo, out, SMALL_PARTS)
    record = out / BUILDING / "00001.json"
    (out / "values/00001/c/0").write_bytes(bytes((out / "values/00001/c/0").stat().st_size))
    record.write_text(json.dumps(json.loads(record.read_bytes()) | {"plan": "0" * 64}))
    graphs(zoo, out, SMALL_PARTS)
    assert content(out) == content(undisturbed)


def test_a_dataset_has_one_writer(zoo: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "graphs.zarr"
    (out / BUILDING).mkdir(parents=True)
    with (out / BUILDING / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match=r"graphs\.zarr: another process is writing this dataset; wait until it"):
            graphs(zoo, out, SMALL_PARTS)
    assert list(content(out)) == [f"{BUILDING}/lock"]
    graphs(zoo, out, SMALL_PARTS)  # a lock that nobody holds any more is none
    assert content(out) == content(undisturbed)


def test_a_dataset_that_another_process_made_meanwhile_is_not_touched(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not there when the folder was checked, and is there when the lock is free."""
    out, one_writer = tmp_path / "graphs.zarr", build_graphs.one_writer

    @contextmanager
    def late(folder: Path) -> Iterator[None]:
        monkeypatch.setattr(build_graphs, "one_writer", one_writer)
        graphs(zoo, folder, DatasetSpec(seed=1))
        with one_writer(folder):
            yield

    monkeypatch.setattr(build_graphs, "one_writer", late)
    with pytest.raises(ValueError, match=r"it differs in options\.seed \(1 there, 0 asked for\)"):
        graphs(zoo, out)
    assert open_graphs(out).made_of["seed"] == 1


def test_what_a_task_takes_along_grows_with_its_part_and_not_with_the_dataset(zoo: Path) -> None:
    """Sixteen times the rows make sixteen times the parts, and each is no larger than before."""
    few = zoo_source([open_zoo(zoo)])
    tables = []
    for copy in range(16):
        ids = pa.array([f"{copy}-{name}" for name in few.rows["graph_id"].to_pylist()])
        tables.append(few.rows.set_column(few.rows.column_names.index("graph_id"), "graph_id", ids))
    many = replace(few, rows=pa.concat_tables(tables))
    few_parts, many_parts = (plan_dataset(some, SMALL_PARTS, "keep").parts for some in (few, many))
    assert len(many_parts) > 10 * len(few_parts)
    assert len(pickle.dumps(many_parts[-2])) < 1.2 * len(pickle.dumps(few_parts[-2]))


def test_every_row_of_the_zoo_is_in_the_table_with_its_columns(zoo: Path, undisturbed: Path) -> None:
    store = open_zoo(zoo)
    expected = {
        f"{row['run_id']}@{row['epoch']}": row
        for index in range(store.spec.num_chunks)
        for row in read_chunk(store, index).rows.to_pylist()
        if row["status"] == "ok"
    }
    copied = ["run_id", "unit", "epoch", "checkpoint", "step", "test_accuracy", "train_loss", "architecture"]
    rows = open_graphs(undisturbed).table.to_pylist()
    assert {row["graph_id"] for row in rows} == set(expected)
    for row in rows:
        zoo_row = expected[row["graph_id"]]
        config = [name for name in zoo_row if name.startswith("config.")]
        assert config
        assert {name: row[name] for name in copied + config} == {name: zoo_row[name] for name in copied + config}
        assert row["split"] == SplitRule().of(row["unit"])


def test_the_two_halves_together_are_the_test_accuracy(undisturbed: Path) -> None:
    """1,696 test images, 848 in each half."""
    table = open_graphs(undisturbed).table
    half_a, half_b, whole = (
        table[name].to_numpy() for name in ("test_accuracy_half_a", "test_accuracy_half_b", "test_accuracy")
    )
    assert np.allclose((half_a + half_b) / 2, whole, rtol=1e-12)
    assert not np.array_equal(half_a, half_b)


def test_each_template_is_stored_once_with_the_first_table_that_needs_it(undisturbed: Path) -> None:
    dataset = open_graphs(undisturbed)
    assert [table.num_templates for table in dataset.files.manifest.tables] == [2, 0, 0, 0, 0]
    assert [path.name for path in (undisturbed / "templates").iterdir()] == ["00000.parquet"]


def test_several_zoos_make_one_dataset_whatever_their_order(zoo: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_zoo(other, tiny_spec(seed=8, num_runs=2))
    graphs([zoo, other], tmp_path / "one.zarr", SMALL_PARTS)
    graphs([other, zoo], tmp_path / "two.zarr", SMALL_PARTS)
    assert content(tmp_path / "one.zarr") == content(tmp_path / "two.zarr")
    assert len(open_graphs(tmp_path / "one.zarr")) == 13 + 2 * 2
    verify(tmp_path / "one.zarr")


def test_another_seed_gives_another_order_of_the_same_graphs(zoo: Path, undisturbed: Path, tmp_path: Path) -> None:
    graphs(zoo, tmp_path / "graphs.zarr", DatasetSpec(seed=1, floats_per_part=3 * NUM_VALUES))
    one, other = (open_graphs(path).table["graph_id"].to_pylist() for path in (undisturbed, tmp_path / "graphs.zarr"))
    assert one != other
    assert sorted(one) == sorted(other)


@pytest.mark.parametrize(
    ("spec", "difference"),
    [
        (DatasetSpec(seed=1, floats_per_part=3 * NUM_VALUES), r"options\.seed \(0 there, 1 asked for\)"),
        (DatasetSpec(), r"options\.floats_per_part \(14910 there, 4194304 asked for\)"),
        (
            DatasetSpec(floats_per_part=3 * NUM_VALUES, split=SplitRule(val=0.1)),
            r"options\.splits\.split\.val \(0\.15 there, 0\.1 asked for\)",
        ),
    ],
)
def test_a_dataset_of_other_options_is_not_touched(
    spec: DatasetSpec, difference: str, zoo: Path, undisturbed: Path
) -> None:
    before = content(undisturbed)
    with pytest.raises(ValueError, match=f"a dataset of other zoos or options; it differs in {difference}. Choose"):
        graphs(zoo, undisturbed, spec)
    assert content(undisturbed) == before


def test_a_dataset_of_another_zoo_is_not_touched(undisturbed: Path, tmp_path: Path) -> None:
    write_zoo(tmp_path / "zoo", tiny_spec(seed=8, num_runs=2))
    with pytest.raises(ValueError, match=r'differs in made_of\.sources\.tiny-\w{8} \("\w{64}" there, null asked for\)'):
        graphs(tmp_path / "zoo", undisturbed, SMALL_PARTS)


def test_a_folder_with_other_things_is_not_touched(zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(ValueError, match=r"is not empty and not a dataset \(it holds photos\); choose another folder"):
        graphs(zoo, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file is a file; a dataset is a folder"):
        graphs(zoo, tmp_path / "file")
    assert not (tmp_path / BUILDING).exists()


def test_a_zoo_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no zoo here"):
        graphs(tmp_path / "nowhere", tmp_path / "graphs.zarr")
    with pytest.raises(ValueError, match="no zoo is given; expected at least one folder"):
        graphs([], tmp_path / "graphs.zarr")


@pytest.mark.parametrize("num_missing", [1, 2])
def test_a_zoo_that_is_not_finished_is_an_error_that_says_how_to_finish_it(
    num_missing: int, zoo: Path, tmp_path: Path
) -> None:
    unfinished = shutil.copytree(zoo, tmp_path / "zoo")
    for index in range(num_missing):
        shutil.rmtree(unfinished / "chunks" / f"{index:05d}")
    message = rf"zoo: {num_missing} of 2 chunks are not trained yet; .* python -m pipeline zoo --config \.\.\. --out"
    with pytest.raises(ValueError, match=message):
        graphs(unfinished, tmp_path / "graphs.zarr")
    assert not (tmp_path / "graphs.zarr").exists()


def test_a_zoo_given_twice_is_an_error(zoo: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="zoo and .*copy are the same zoo; give it once"):
        graphs([zoo, shutil.copytree(zoo, tmp_path / "copy")], tmp_path / "graphs.zarr")


def test_a_zoo_in_which_every_network_diverged_is_an_error(tmp_path: Path) -> None:
    write_zoo(tmp_path / "zoo", tiny_spec(num_runs=2, checkpoint_epochs=(1, 2)), diverged_runs=[0, 1], first_diverged=0)
    with pytest.raises(
        ValueError, match=r"nothing to make graphs of: of 4 checkpoints 4 have no values because the run diverged"
    ):
        graphs(tmp_path / "zoo", tmp_path / "graphs.zarr")
    assert not (tmp_path / "graphs.zarr" / "zarr.json").exists()  # the folder is free for another zoo


def test_a_chunk_without_its_digests_is_an_error(zoo: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(zoo, tmp_path / "zoo")
    (damaged / "chunks" / "00001" / "done.json").unlink()
    with pytest.raises(ValueError, match=r"chunks/00001/done\.json is missing"):
        graphs(damaged, tmp_path / "graphs.zarr")


@pytest.mark.parametrize("file", ["values.npy", "rows.parquet", "correct.npy"])
def test_a_damaged_chunk_is_an_error_and_no_dataset(file: str, zoo: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(zoo, tmp_path / "zoo")
    path = damaged / "chunks" / "00001" / file
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"chunks/00001/{file} has \d+ bytes, \d+ were written"):
        graphs(damaged, tmp_path / "graphs.zarr")
    assert not (tmp_path / "graphs.zarr" / MANIFEST).exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.inf, "has values that are not finite"), (0.5, "was altered since it was first read")],
)
def test_values_that_changed_after_they_were_planned_are_an_error_that_names_the_graph(
    value: float, message: str, zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = build_graphs.zoo_source

    def then_altered(zoos: list[Zoo], selection: Selection) -> GraphSource:
        read = source(zoos, selection)

        def poisoned(file: NpyFile) -> np.ndarray:
            values = np.load(str(file.path)).copy()
            values[NUM_VALUES] = value
            return values

        monkeypatch.setattr(NpyFile, "read", poisoned)
        return read

    monkeypatch.setattr(build_graphs, "zoo_source", then_altered)
    with pytest.raises(ValueError, match=rf"graph \w{{8}}-00000\d@\d, in .*values\.npy.*, {message}"):
        graphs(zoo, tmp_path / "graphs.zarr", SMALL_PARTS)
    assert not (tmp_path / "graphs.zarr" / MANIFEST).exists()


def test_a_run_with_another_number_of_values_is_an_error(
    zoo: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, chunks = read_zoos([open_zoo(zoo)])
    rows = rows.filter(pa.array(rows["status"].to_numpy() == "ok"))
    lengths = rows["length"].to_pylist()
    rows = rows.set_column(rows.column_names.index("length"), "length", pa.array([*lengths[:-1], NUM_VALUES - 1]))
    template = open_graphs(undisturbed)[0].template
    monkeypatch.setattr(graph_sources, "trace_architecture", lambda *_: template)
    with pytest.raises(ValueError, match=r"run \w+-000004: 4969 values; its architecture .*small_cnn.* has 4970"):
        trace_architectures(rows, list(chunks))


def test_values_in_another_order_than_the_state_dicts_are_an_error() -> None:
    """Two modules with the same names and shapes, whose tensors lie in another order."""
    forward, backward = nn.ModuleDict(), nn.ModuleDict()
    for name in ("first", "second"):
        forward[name] = nn.Linear(3, 3)
    for name in ("second", "first"):
        backward[name] = nn.Linear(3, 3)
    template = trace(nn.Sequential(OrderedDict(forward.items())), torch.zeros(1, 3))
    values = np.arange(24, dtype=np.float32)
    check_round_trip(forward, template, values)
    with pytest.raises(ValueError, match="the values of a run come back changed"):
        check_round_trip(backward, template, values)


def test_an_architecture_that_cannot_be_traced_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Architecture, "build", lambda _: nn.Sequential(nn.Linear(5, 5), nn.Bilinear(5, 5, 2)))
    architecture = Architecture(family="odd", arguments={"input_shape": [5]})
    with pytest.raises(ValueError, match='architecture {"arguments":{"input_shape":\\[5\\]},"family":"odd"}: '):
        trace_architecture(architecture.document(), np.zeros(3, dtype=np.float32))
