"""What was appended is as sound as what was made at once, and nothing is appended that makes a dataset unreadable."""

from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pyarrow as pa
import pytest

from pipeline import build_graphs, graph_sources
from pipeline.build_graphs import append, graphs
from pipeline.graph_source import GraphSource
from pipeline.graph_sources import Selection
from pipeline.graph_store import open_graphs
from pipeline.verify_graphs import verify
from pipeline.zoo_store import Zoo
from tiny_dataset import SMALL_PARTS, content, in_this_process, make_tiny_dataset, write_zoo
from tiny_zoo import tiny_spec


@pytest.fixture(name="tiny")
def shared_tiny(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny dataset; making another of its zoo traces nothing."""
    path = make_tiny_dataset(tmp_path_factory.getbasetemp())
    dataset = open_graphs(path)
    digests = dict(zip(*(dataset.table[name].to_pylist() for name in ("architecture", "template")), strict=True))
    monkeypatch.setattr(
        graph_sources,
        "trace_architectures",
        lambda rows, files: {text: dataset.templates[digest] for text, digest in digests.items()},
    )
    in_this_process(monkeypatch)
    return path


def test_further_epochs_of_a_zoo_can_be_appended_and_the_dataset_is_sound(tiny: Path, tmp_path: Path) -> None:
    """What one addition did not choose the other did: it is in the table of what was left out, and in the dataset."""
    out = tmp_path / "graphs.zarr"
    graphs(tiny.parent / "zoo", out, SMALL_PARTS, Selection(epochs=[0]))
    append(out, tiny.parent / "zoo", Selection(epochs=[1]))
    assert len(open_graphs(out)) == 5 + 4
    verify(out)


def with_column(name: str, column: pa.Array, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every source this column, once for each row."""
    source = build_graphs.zoo_source

    def changed(zoos: list[Zoo], selection: Selection) -> GraphSource:
        found = source(zoos, selection)
        others = found.rows.drop_columns([name] if name in found.rows.column_names else [])
        return replace(found, rows=others.append_column(name, pa.concat_arrays([column] * found.rows.num_rows)))

    monkeypatch.setattr(build_graphs, "zoo_source", changed)


def test_a_column_of_another_type_than_it_has_is_refused_before_anything_is_written(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = copytree(tiny, tmp_path / "graphs.zarr")
    write_zoo(tmp_path / "other", tiny_spec(seed=8, num_runs=2))
    with_column("config.l2", pa.array(["much"]), monkeypatch)
    with pytest.raises(ValueError, match="config.l2"):
        append(out, tmp_path / "other")
    assert len(open_graphs(out)) == 13
    assert content(out)["manifest.json"] == content(tiny)["manifest.json"]


def test_a_column_that_only_what_is_appended_has_is_null_before(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = copytree(tiny, tmp_path / "graphs.zarr")
    write_zoo(tmp_path / "other", tiny_spec(seed=8, num_runs=2))
    with_column("colour", pa.array(["blue"]), monkeypatch)
    append(out, tmp_path / "other")
    assert open_graphs(out).table["colour"].to_pylist() == [None] * 13 + ["blue"] * 4
    verify(out)


@pytest.mark.parametrize("name", ["split_by_others", "split"])
def test_a_column_of_a_source_that_reads_as_a_split_is_refused(
    name: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every column whose name begins with "split" is one, and what a source calls so need not be: "training", nulls, a
    unit on both sides. Such a dataset is made, and then ``verify`` calls it unsound."""
    with_column(name, pa.array(["training"]), monkeypatch)
    with pytest.raises(ValueError, match=f"the source has a column '{name}'"):
        graphs(tiny.parent / "zoo", tmp_path / "graphs.zarr", SMALL_PARTS)
