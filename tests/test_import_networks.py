"""The command that takes networks of others: what it makes, says and refuses; and what was exported comes back."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.export_graphs import export
from pipeline.graph_plan import DatasetSpec
from pipeline.graph_store import open_graphs
from pipeline.import_networks import import_networks
from pipeline.import_state_dicts import StateDicts
from pipeline.verify_graphs import verify
from tiny_dataset import content, in_this_process, make_tiny_dataset

FACTORY = """
from torch import nn


def mlp(width=3):
    return nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, 1))
"""


@pytest.fixture(autouse=True)
def without_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    in_this_process(monkeypatch)


@pytest.fixture(name="networks")
def folder_of_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateDicts:
    """Six networks of two widths and a file that is none, their labels, and the module that makes them."""
    (tmp_path / "their_models.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(tmp_path)
    from their_models import mlp  # pyright: ignore[reportMissingImports]

    (tmp_path / "files").mkdir()
    lines = ["file,arguments.width,test_accuracy,optimizer"]
    torch.manual_seed(0)
    for number in range(6):
        width = 3 + number % 2
        torch.save(mlp(width).state_dict(), tmp_path / "files" / f"net-{number}.pt")
        lines.append(f"net-{number}.pt,{width},0.{number},sgd")
    (tmp_path / "files" / "net-6.pt").write_bytes(b"junk")
    lines.append("net-6.pt,3,0.6,adam")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    return StateDicts(factory="their_models:mlp", input="1,2", labels=str(tmp_path / "labels.csv"))


def test_a_folder_becomes_a_sound_dataset_and_what_is_refused_is_said(
    networks: StateDicts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import_networks(tmp_path / "files", tmp_path / "graphs.zarr", networks=networks)
    printed = capsys.readouterr().out
    assert re.search(r"files-\w{8}: 6 networks can be taken, 1 are refused\n  net-6.pt: ", printed)
    verify(tmp_path / "graphs.zarr")
    dataset = open_graphs(tmp_path / "graphs.zarr")
    assert {
        row["run_id"]: (row["width"], row["test_accuracy"], row["optimizer"]) for row in dataset.table.to_pylist()
    } == {f"net-{number}": (3 + number % 2, number / 10, "sgd") for number in range(6)}
    [left_out] = dataset.left_out.to_pylist()
    assert (left_out["graph_id"], left_out["reason"]) == ("net-6@0", "refused")
    for row, graph in zip(dataset.table.to_pylist(), dataset, strict=True):
        state_dict = torch.load(tmp_path / "files" / f"{row['run_id']}.pt", weights_only=True)
        assert all(torch.equal(tensor, state_dict[name]) for name, tensor in graph.state_dict().items())


def test_a_second_import_of_the_same_has_nothing_to_do_and_one_of_other_labels_is_another(
    networks: StateDicts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "graphs.zarr"
    import_networks(tmp_path / "files", out, networks=networks)
    before = content(out)
    import_networks(tmp_path / "files", out, networks=networks)
    assert "Nothing to do" in capsys.readouterr().out
    assert content(out) == before
    labels = tmp_path / "labels.csv"
    labels.write_text(labels.read_text().replace("0.4", "0.9"))
    with pytest.raises(ValueError, match=r"holds a dataset of other zoos or options; it differs in made_of\.sources"):
        import_networks(tmp_path / "files", out, networks=networks)
    assert content(out) == before


def test_networks_are_added_to_a_dataset_of_a_zoo(
    networks: StateDicts, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = tmp_path / "both.zarr"
    import_networks(tmp_path / "files", out, networks=networks)
    export(str(make_tiny_dataset(tmp_path_factory.getbasetemp())), tmp_path / "zoo", "small-cnn-zoo")
    import_networks(tmp_path / "zoo", out, "small-cnn-zoo", append=True)
    table = open_graphs(out).table
    assert table["family"].to_pylist() == ["mlp"] * 6 + ["small_cnn"] * 13
    assert table["optimizer"].to_pylist() == ["sgd"] * 6 + [None] * 13
    verify(out)


def test_what_is_exported_as_safetensors_is_imported_as_it_was(networks: StateDicts, tmp_path: Path) -> None:
    """Values, runs, labels, arguments of the factory: the same rows and the same values."""
    import_networks(tmp_path / "files", tmp_path / "one.zarr", networks=networks)
    export(str(tmp_path / "one.zarr"), tmp_path / "exported", "safetensors")
    again = StateDicts(factory=networks.factory, input="1,2", labels=str(tmp_path / "exported" / "labels.csv"))
    import_networks(tmp_path / "exported", tmp_path / "two.zarr", networks=again)
    one, two = open_graphs(tmp_path / "one.zarr"), open_graphs(tmp_path / "two.zarr")
    assert one.table.column_names == two.table.column_names
    for mine, theirs in zip(one.table.to_pylist(), two.table.to_pylist(), strict=True):
        assert {name: value for name, value in mine.items() if value == value} == {
            name: value for name, value in theirs.items() if value == value
        }
    for mine, theirs in zip(one, two, strict=True):
        assert mine.values.tobytes() == theirs.values.tobytes()


def test_what_is_exported_as_a_small_cnn_zoo_is_imported_with_the_same_values(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tiny = make_tiny_dataset(tmp_path_factory.getbasetemp())
    export(str(tiny), tmp_path / "exported", "small-cnn-zoo")
    import_networks(tmp_path / "exported", tmp_path / "graphs.zarr", "small-cnn-zoo")
    values = [
        sorted(zip(dataset.table["epoch"].to_pylist(), (graph.values.tobytes() for graph in dataset), strict=True))
        for dataset in (open_graphs(tiny), open_graphs(tmp_path / "graphs.zarr"))
    ]
    assert values[0] == values[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "state dicts need --networks.factory and --networks.input"),
        ({"format": "small-cnn-zoo", "networks": "given"}, "--networks says what state dicts are, and the format is"),
        ({"networks": "given", "append": True, "dataset": DatasetSpec(seed=3)}, "leave one of the two out"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    settings: dict[str, object], message: str, networks: StateDicts, tmp_path: Path
) -> None:
    given = {name: networks if value == "given" else value for name, value in settings.items()}
    with pytest.raises(ValueError, match=message):
        import_networks(tmp_path / "files", tmp_path / "graphs.zarr", **given)  # pyright: ignore[reportArgumentType]
    assert not (tmp_path / "graphs.zarr").exists()


def test_there_must_be_a_folder(networks: StateDicts, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder; give the folder that holds the state dicts"):
        import_networks(tmp_path / "nowhere", tmp_path / "graphs.zarr", networks=networks)


def test_values_are_compared_with_what_was_read_first(
    networks: StateDicts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that changes between the first reading and the writing is an error, not other values."""
    from pipeline import build_graphs

    make = build_graphs.make

    def meddle(*arguments: object) -> None:
        state_dict = torch.load(tmp_path / "files" / "net-2.pt", weights_only=True)
        state_dict["0.weight"][0, 0] += 1
        torch.save(state_dict, tmp_path / "files" / "net-2.pt")
        make(*arguments)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr("pipeline.import_networks.make", meddle)
    with pytest.raises(ValueError, match="graph net-2@0, in .*net-2.pt.*, was altered since it was first read"):
        import_networks(tmp_path / "files", tmp_path / "graphs.zarr", networks=networks)
    assert not np.any([path.name == "manifest.json" for path in (tmp_path / "graphs.zarr").iterdir()])
