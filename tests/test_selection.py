"""Which checkpoints of a zoo become graphs, why others do not, and what a zoo says of those that do."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import graph_sources
from pipeline.dataset_tables import LEFT_OUT_COLUMNS
from pipeline.graph_source import SOURCE_COLUMNS, GraphSource
from pipeline.graph_sources import Selection, finished_zoos, zoo_digest, zoo_names, zoo_source
from pipeline.graph_store import open_graphs
from pipeline.parameter_graph import GraphTemplate
from pipeline.template_document import read_document
from pipeline.zoo_store import Zoo
from tiny_dataset import NUM_VALUES, make_tiny_dataset, write_zoo
from tiny_zoo import tiny_spec

EPOCHS = (0, 2, 5)


@pytest.fixture(name="zoo", scope="module")
def shared_zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """Five runs of three checkpoints; runs 1 and 3 diverged before their second one: 11 have values."""
    folder = tmp_path_factory.mktemp("selection") / "zoo"
    return write_zoo(folder, tiny_spec(checkpoint_epochs=EPOCHS, epochs=5), diverged_runs=[1, 3])


@pytest.fixture(autouse=True)
def known_templates(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing takes seconds: the two architectures are those of the tiny dataset."""
    dataset = open_graphs(make_tiny_dataset(tmp_path_factory.getbasetemp()))
    digests = dict(zip(*(dataset.table[name].to_pylist() for name in ("architecture", "template")), strict=True))

    def look_up(rows: pa.Table, files: object) -> dict[str, GraphTemplate]:
        return {text: dataset.templates[digests[text]] for text in rows["architecture"].unique().to_pylist()}

    monkeypatch.setattr(graph_sources, "trace_architectures", look_up)


def zoo_rows(zoo: Zoo) -> list[dict[str, Any]]:
    """Every row of every chunk, as the files have it, with its values."""
    rows = []
    for index in range(zoo.spec.num_chunks):
        folder = zoo.path / "chunks" / f"{index:05d}"
        values = np.load(str(folder / "values.npy"))
        rows += [
            row | {"values": values[row["offset"] : row["offset"] + row["length"]]}
            for row in pq.read_table(str(folder / "rows.parquet"), use_threads=False).to_pylist()
        ]
    return rows


def taken(source: GraphSource) -> set[tuple[int, int]]:
    """Run and epoch of every graph, told by its id."""
    names = [name.rsplit("-", 1)[1].split("@") for name in source.rows["graph_id"].to_pylist()]
    return {(int(run), int(epoch)) for run, epoch in names}


def reasons(source: GraphSource) -> dict[tuple[int, int], str]:
    """Why others are left out, likewise."""
    rows = source.left_out.to_pylist()
    names = [row["graph_id"].rsplit("-", 1)[1].split("@") for row in rows]
    return {(int(run), int(epoch)): row["reason"] for (run, epoch), row in zip(names, rows, strict=True)}


SELECTIONS = {
    "everything": (Selection(), {"diverged": 4}),
    "two epochs": (Selection(epochs=[0, 5]), {"diverged": 2, "not chosen": 5}),
    "the first epoch": (Selection(epochs=[0]), {"not chosen": 10}),
    "the last": (Selection(last=True), {"diverged": 2, "not chosen": 10}),
    "whole runs": (Selection(diverged="leave out run"), {"diverged": 6}),
    "whole runs, the first epoch": (Selection(diverged="leave out run", epochs=[0]), {"diverged": 2, "not chosen": 10}),
    "whole runs, the last": (Selection(diverged="leave out run", last=True), {"diverged": 2, "not chosen": 10}),
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_what_is_not_taken_is_counted_by_its_reason(name: str, zoo: Zoo) -> None:
    """By hand: of 15 checkpoints, 5 of each epoch, four have no values, the later ones of runs 1 and 3. An epoch that
    is not asked for is not chosen, whether it diverged or not."""
    selection, expected = SELECTIONS[name]
    source = zoo_source([zoo], selection)
    assert Counter(source.left_out["reason"].to_pylist()) == expected
    assert source.rows.num_rows + source.left_out.num_rows == 15
    assert source.left_out.schema == LEFT_OUT_COLUMNS
    assert set(source.left_out["detail"].to_pylist()) == {""}
    assert not taken(source) & set(reasons(source))
    assert taken(source) | set(reasons(source)) == {(run, epoch) for run in range(5) for epoch in EPOCHS}


def test_only_the_epochs_that_are_asked_for_are_taken(zoo: Zoo) -> None:
    assert taken(zoo_source([zoo], Selection(epochs=[2]))) == {(0, 2), (2, 2), (4, 2)}
    assert taken(zoo_source([zoo], Selection(epochs=[5, 0]))) == {
        (0, 0),
        (1, 0),
        (2, 0),
        (3, 0),
        (4, 0),
        (0, 5),
        (2, 5),
        (4, 5),
    }


def test_the_last_checkpoint_of_a_run_that_diverged_is_none(zoo: Zoo) -> None:
    """Not its last one with values: that is another moment of training than the others' last."""
    source = zoo_source([zoo], Selection(last=True))
    assert taken(source) == {(0, 5), (2, 5), (4, 5)}
    assert reasons(source)[1, 5] == reasons(source)[3, 5] == "diverged"
    assert reasons(source)[1, 0] == "not chosen"


def test_a_run_that_diverged_may_be_left_out_whole(zoo: Zoo) -> None:
    source = zoo_source([zoo], Selection(diverged="leave out run"))
    assert {run for run, _ in taken(source)} == {0, 2, 4}
    assert {run for run, _ in reasons(source)} == {1, 3}
    first = zoo_source([zoo], Selection(diverged="leave out run", epochs=[0]))
    assert taken(first) == {(0, 0), (2, 0), (4, 0)}  # run 1 diverged later, which it may not have at epoch 0


def test_an_epoch_that_no_checkpoint_is_of_is_refused(zoo: Zoo) -> None:
    with pytest.raises(ValueError, match=r"selection: no checkpoint of epoch 3; found \[0, 2, 5\]"):
        zoo_source([zoo], Selection(epochs=[2, 3]))


def test_epochs_and_the_last_together_are_refused() -> None:
    for epochs in ([0], []):
        with pytest.raises(ValueError, match="selection: expected epochs or last, not both"):
            Selection(epochs=epochs, last=True)


def test_nothing_chosen_is_an_error_that_counts(zoo: Zoo) -> None:
    with pytest.raises(
        ValueError, match="nothing to make graphs of: of 15 checkpoints 0 have no values .* not chosen$"
    ):
        zoo_source([zoo], Selection(epochs=[]))


@given(data=st.data(), num_runs=st.integers(1, 6))
def test_reasons_are_those_of_a_slow_reference(data: st.DataObject, num_runs: int) -> None:
    """Row by row and run by run, whatever the order of the rows; runs have different checkpoints."""
    runs = {
        f"run {run}": data.draw(st.lists(st.sampled_from(EPOCHS), min_size=1, unique=True)) for run in range(num_runs)
    }
    rows = [
        {
            "run_id": run,
            "epoch": epoch,
            "checkpoint": EPOCHS.index(epoch),
            "status": data.draw(st.sampled_from(["ok", "diverged"])),
        }
        for run, epochs in runs.items()
        for epoch in epochs
    ]
    rows = data.draw(st.permutations(rows))
    there = sorted({row["epoch"] for row in rows})
    epochs = data.draw(st.none() | st.lists(st.sampled_from(there)))
    last = epochs is None and data.draw(st.booleans())
    whole = data.draw(st.booleans())
    selection = Selection(epochs=epochs, last=last, diverged="leave out run" if whole else "keep earlier")

    def reason(row: dict[str, Any]) -> str:
        run = [other for other in rows if other["run_id"] == row["run_id"]]
        if epochs is not None and row["epoch"] not in epochs:
            return "not chosen"
        if last and row["epoch"] < max(other["epoch"] for other in run):
            return "not chosen"
        without_values = any(other["status"] == "diverged" for other in (run if whole else [row]))
        return "diverged" if without_values else ""

    assert selection.reason(pa.Table.from_pylist(rows)).tolist() == [reason(row) for row in rows]


def test_the_rows_of_a_source_are_complete(zoo: Zoo) -> None:
    source = zoo_source([zoo])
    assert source.rows.schema.names[: len(SOURCE_COLUMNS)] == SOURCE_COLUMNS.names
    for column in SOURCE_COLUMNS:
        assert source.rows.schema.field(column.name).type == column.type
        assert source.rows[column.name].null_count == 0
    further = source.rows.schema.names[len(SOURCE_COLUMNS) :]
    assert further
    assert all(name.startswith("config.") for name in further)
    assert {name for name in zoo_rows(zoo)[0] if name.startswith("config.")} == set(further)


def test_the_digest_of_every_graph_is_that_of_the_bytes_of_its_values(zoo: Zoo) -> None:
    expected = {
        f"{row['run_id']}@{row['epoch']}": hashlib.sha256(row["values"].astype("<f4").tobytes()).hexdigest()
        for row in zoo_rows(zoo)
        if row["status"] == "ok"
    }
    rows = zoo_source([zoo]).rows
    assert dict(zip(rows["graph_id"].to_pylist(), rows["values_sha256"].to_pylist(), strict=True)) == expected


def test_file_and_offset_lead_to_the_values_and_templates_fit_them(zoo: Zoo) -> None:
    source = zoo_source([zoo], Selection(epochs=[0, 5]))
    expected = {f"{row['run_id']}@{row['epoch']}": row for row in zoo_rows(zoo)}
    assert {read_document(text).digest: text for text in source.documents.values()} == source.documents
    for row in source.rows.to_pylist():
        values = source.files[row["file"]].read()[row["file_offset"] : row["file_offset"] + row["length"]]
        zoo_row = expected[row["graph_id"]]
        assert values.tobytes() == zoo_row["values"].tobytes()
        assert row["length"] == read_document(source.documents[row["template"]]).num_values == NUM_VALUES
        assert row["family"] == "small_cnn"
        assert all(row[name] == zoo_row[name] for name in ("unit", "step", "train_loss", "architecture", "config.l2"))


def test_a_source_is_called_by_its_zoo_and_by_the_digest_of_what_was_trained(zoo: Zoo) -> None:
    joined = "".join(
        hashlib.sha256((zoo.path / "chunks" / f"{index:05d}" / "done.json").read_bytes()).hexdigest()
        for index in range(zoo.spec.num_chunks)
    )
    name = f"tiny-{zoo.spec.digest[:8]}"
    assert zoo_source([zoo]).sources == zoo_names([zoo]) == {name: hashlib.sha256(joined.encode()).hexdigest()}
    assert zoo_digest(zoo) == zoo_names([zoo])[name]


def test_several_zoos_are_one_source(zoo: Zoo, tmp_path: Path) -> None:
    other = write_zoo(tmp_path / "other", tiny_spec(seed=8, num_runs=2), diverged_runs=[1])
    zoos = finished_zoos([zoo.path, other.path])
    source = zoo_source(zoos, Selection(epochs=[2]))
    assert source.rows.num_rows == 3 + 1
    assert len(source.files) == 2 + 1
    assert len(source.sources) == 2
    assert Counter(source.left_out["reason"].to_pylist()) == {"diverged": 3, "not chosen": 10 + 2}
    with pytest.raises(ValueError, match=r"no checkpoint of epoch 4; found \[0, 2, 5\]"):
        zoo_source(zoos, Selection(epochs=[4]))
