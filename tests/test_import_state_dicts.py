"""Folders of other people's state dicts: what becomes a graph, which labels it has, what is left out and why."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from upath import UPath

from conftest import RayHead
from pipeline.cluster import Machine
from pipeline.dataset_tables import LEFT_OUT_COLUMNS
from pipeline.graph_source import SOURCE_COLUMNS, GraphSource, values_sha256
from pipeline.import_state_dicts import StateDicts, state_dict_source
from pipeline.places import Place
from pipeline.source_tables import LeftOut, checkpoint_ranks, left_out_rows
from pipeline.template_document import read_document
from pipeline.text_tables import typed

NETWORKS = """
import torch
from torch import nn


def mlp(width=3, act="relu", bias=True):
    if width == 7:
        raise RuntimeError("seven is\\nunlucky")
    act = {"relu": nn.ReLU, "tanh": nn.Tanh}[act]()
    return nn.Sequential(nn.Linear(2, width, bias=bias), act, nn.Linear(width, 1))


class Sine(nn.Module):
    def forward(self, numbers):
        return torch.sin(30.0 * numbers)


class Siren(nn.Module):
    def __init__(self):
        super().__init__()
        self.seq = nn.Sequential(nn.Linear(2, 5), Sine(), nn.Linear(5, 5), Sine(), nn.Linear(5, 1))

    def forward(self, coordinates):
        return self.seq(coordinates) + 0.5


def flat():
    return nn.Flatten()


class Twisted(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, numbers):
        return torch.fft.fft(self.layer(numbers)).real
"""

MNIST_INRS = r"mnist_png_(?P<published_split>[a-z]+)_(?P<image_class>[0-9])_(?P<image>[0-9]+)/checkpoints/model_final"


@pytest.fixture(name="module", scope="module")
def somebodys_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a module of somebody's with functions that make networks."""
    folder, name = tmp_path_factory.mktemp("module"), "networks_to_import"
    (folder / f"{name}.py").write_text(NETWORKS)
    sys.path.insert(0, str(folder))
    yield name
    sys.path.remove(str(folder))
    sys.modules.pop(name, None)


def mlp_state(seed: int, width: int = 3, bias: bool = True) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    shapes = {"0.weight": (width, 2), "0.bias": (width,), "2.weight": (1, width), "2.bias": (1,)}
    return {name: torch.randn(shape, generator=draw) for name, shape in shapes.items() if bias or name != "0.bias"}


def flattened(state_dict: dict[str, Tensor]) -> np.ndarray:
    return torch.cat([tensor.reshape(-1) for tensor in state_dict.values()]).numpy()


def write_folder(folder: Place, names: list[str]) -> Place:
    """A folder of small networks; the seed of each is its place."""
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("wb") as file:
            torch.save(mlp_state(seed), file)
    return folder


def read(folder: Place, module: str, labels: str | bytes | None = None, **settings: Any) -> GraphSource:
    """The source of a folder; labels are written beside it."""
    if labels is not None:
        path = folder.parent / f"{folder.name}-labels.csv"
        path.write_bytes(labels if isinstance(labels, bytes) else labels.encode())
        settings["labels"] = str(path)
    settings = {"factory": f"{module}:mlp", "input": "1,2", **settings}
    return state_dict_source(folder, StateDicts(**settings), Machine())


def refused(source: GraphSource) -> dict[str, str]:
    """The details of what is left out, by graph."""
    assert source.left_out.schema == LEFT_OUT_COLUMNS
    assert set(source.left_out["reason"].to_pylist()) <= {"refused"}
    return dict(zip(*(source.left_out[name].to_pylist() for name in ("graph_id", "detail")), strict=True))


def values_of(source: GraphSource, row: dict[str, Any]) -> np.ndarray:
    return source.files[row["file"]].read()[row["file_offset"] : row["file_offset"] + row["length"]]


def test_a_folder_is_a_row_for_each_file_and_its_values(tmp_path: Path, module: str) -> None:
    names = ["b/last.pt", "a.pth", "a.txt", "Größe, 2.bin", "b/first.ckpt"]
    source = read(write_folder(tmp_path / "zoo", names), module)
    rows = source.rows.to_pylist()
    assert source.rows.schema.names == SOURCE_COLUMNS.names
    assert source.rows.schema.types == SOURCE_COLUMNS.types
    assert [row["graph_id"] for row in rows] == ["Größe, 2@0", "a@0", "b/first@0", "b/last@0"]
    for row, seed in zip(rows, (3, 1, 4, 0), strict=True):
        assert values_of(source, row).tobytes() == flattened(mlp_state(seed)).tobytes()
        assert row["values_sha256"] == values_sha256(values_of(source, row))
        assert row["unit"] == row["run_id"] == row["graph_id"].removesuffix("@0")
        assert (row["epoch"], row["checkpoint"], row["step"], row["family"]) == (0, 0, 0, "mlp")
        assert row["architecture"] == f'{{"arguments":{{"input_shape":[2]}},"family":"{module}:mlp"}}'
        assert np.isnan([row[name] for name in SOURCE_COLUMNS.names if name.endswith(("loss", "accuracy"))]).all()
        assert read_document(source.documents[row["template"]]).num_values == row["length"] == 13
    assert refused(source) == {}
    [(name, digest)] = source.sources.items()
    assert name == f"zoo-{digest[:8]}"


def test_where_the_folder_lies_changes_nothing_and_what_is_in_it_does(tmp_path: Path, module: str) -> None:
    def made(folder: Place) -> GraphSource:
        write_folder(folder, ["a.pt", "b.pt"])
        (folder / "broken.pt").write_bytes(b"broken")
        return read(folder, module)

    here, there, store = (
        made(place) for place in (tmp_path / "zoo", tmp_path / "other" / "zoo", UPath("memory://import/zoo"))
    )
    assert here.sources == there.sources == store.sources
    assert repr(here.rows.to_pylist()) == repr(store.rows.to_pylist())
    assert here.left_out.equals(there.left_out)
    assert here.left_out.equals(store.left_out)
    assert values_of(store, store.rows.to_pylist()[1]).tobytes() == flattened(mlp_state(1)).tobytes()
    (tmp_path / "zoo" / "broken.pt").write_bytes(b"")
    assert read(tmp_path / "zoo", module).sources != here.sources
    torch.save(mlp_state(5), tmp_path / "other" / "zoo" / "b.pt")
    assert read(tmp_path / "other" / "zoo", module).sources != here.sources


def test_bad_files_are_left_out_with_their_reason_and_the_rest_is_taken(tmp_path: Path, module: str) -> None:
    zoo = tmp_path / "zoo"
    write_folder(zoo, ["good.pt", "cut.pt", "nan.pt", "wide.pt"])
    (zoo / "cut.pt").write_bytes((zoo / "cut.pt").read_bytes()[:-50])
    torch.save(mlp_state(1) | {"2.bias": torch.tensor([float("nan")])}, zoo / "nan.pt")
    torch.save(mlp_state(1, width=5), zoo / "wide.pt")
    torch.save({"state_dict": mlp_state(1)}, zoo / "inside.ckpt")
    (zoo / "folder.pt").mkdir()
    (zoo / "loop.pt").symlink_to("loop.pt")
    (zoo / "around").symlink_to(zoo)
    source = read(zoo, module)
    assert source.rows["graph_id"].to_pylist() == ["good@0"]
    details = refused(source)
    assert list(details) == ["cut@0", "folder@0", "inside@0", "loop@0", "nan@0", "wide@0"]
    assert details["cut@0"].startswith("cut.pt: is damaged or cut short")
    assert details["folder@0"].startswith("folder.pt: is a folder; expected a file")
    assert "the state dict may be in 'state_dict'" in details["inside@0"]
    assert details["loop@0"].startswith("loop.pt: is a link that leads nowhere")
    assert details["nan@0"].startswith("nan.pt: 2.bias: has NaN or infinite numbers")
    assert details["wide@0"].startswith("wide.pt: 0.weight: found shape (5, 2); the template expects (3, 2)")
    assert not any(str(tmp_path) in detail or "\n" in detail for detail in details.values())


def test_where_nothing_can_be_taken_the_first_error_is_told(tmp_path: Path, module: str) -> None:
    zoo = write_folder(tmp_path / "zoo", ["b.pt", "a.pt"])
    with pytest.raises(ValueError, match="none of its files can be taken; the first of 2: a.pt: has no entry 'net'"):
        read(zoo, module, key="net")
    with pytest.raises(ValueError, match="zoo: nothing of the pattern '\\*\\*/\\*.onnx' ends in .pt, .pth"):
        read(zoo, module, pattern="**/*.onnx")
    with pytest.raises(ValueError, match="nowhere: no such folder; give the folder that holds the state dicts"):
        read(tmp_path / "nowhere", module)
    with pytest.raises(
        ValueError, match="none of the 2 files can be taken; the first: a.pt: path_pattern '\\^\\(\\?P<x>7"
    ):
        read(zoo, module, path_pattern="^(?P<x>7)")


def test_many_files_are_read_as_tasks_and_give_the_same(
    tmp_path: Path, module: str, ray_head: RayHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo = write_folder(tmp_path / "zoo", [f"{number}.pt" for number in range(7)])
    (zoo / "3.pt").write_bytes(b"broken")
    alone = read(zoo, module)
    monkeypatch.setenv("RAY_ADDRESS", ray_head.address)
    monkeypatch.setattr("pipeline.file_outcomes.FILES_PER_TASK", 2)
    together = read(zoo, module)
    assert together.sources == alone.sources
    assert repr(together.rows.to_pylist()) == repr(alone.rows.to_pylist())
    assert refused(together) == refused(alone)


def siren_state(seed: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    shapes = {"0": (5, 2), "2": (5, 5), "4": (1, 5)}
    state: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        state |= {f"seq.{name}.weight": torch.randn(shape, generator=draw), f"seq.{name}.bias": torch.randn(shape[:1])}
    return state


def test_a_folder_of_implicit_networks_is_labelled_by_its_paths(tmp_path: Path, module: str) -> None:
    """The layout of the published MNIST INRs (Navon et al. 2023)."""
    for split, digit, image in (("training", 2, 12345), ("testing", 7, 12345), ("training", 2, 6)):
        path = tmp_path / "mnist-inrs" / f"mnist_png_{split}_{digit}_{image}" / "checkpoints" / "model_final.pth"
        path.parent.mkdir(parents=True)
        torch.save(siren_state(image + digit), path)
    (tmp_path / "mnist-inrs" / "mnist_splits.pt").write_bytes(b"no network")
    settings = {"factory": f"{module}:Siren", "path_pattern": MNIST_INRS}
    source = read(tmp_path / "mnist-inrs", module, **settings)
    rows = source.rows.to_pylist()
    assert [row["run_id"] for row in rows] == [
        f"mnist_png_{name}/checkpoints/model_final" for name in ("testing_7_12345", "training_2_12345", "training_2_6")
    ]
    assert [row["image_class"] for row in rows] == [7, 2, 2]
    assert [row["image"] for row in rows] == [12345, 12345, 6]
    assert [row["published_split"] for row in rows] == ["testing", "training", "training"]
    assert str(source.rows.schema.field("image_class").type) == "int64"
    assert values_of(source, rows[1])[:10].tobytes() == siren_state(12347)["seq.0.weight"].numpy().tobytes()
    assert refused(source) == {
        "mnist_splits@0": f"mnist_splits.pt: path_pattern {MNIST_INRS!r} does not match its path"
    }
    assert read(tmp_path / "mnist-inrs", module, pattern="*/checkpoints/*", **settings).left_out.num_rows == 0


def test_runs_epochs_and_units_come_from_the_path_and_checkpoints_are_ranks(tmp_path: Path, module: str) -> None:
    names = [
        "model3/seed1/epoch_50.pt",
        "model3/seed1/epoch_5.pt",
        "model3/seed2/epoch_5.pt",
        "model3/seed1/epoch_7.pt",
    ]
    zoo = write_folder(tmp_path / "zoo", names)
    (zoo / names[3]).write_bytes(b"broken")
    pattern = r"(?P<unit>model[0-9]+)/(?P<run_id>seed[0-9]+)/epoch_(?P<epoch>[0-9]+)"
    rows = {row["graph_id"]: row for row in read(zoo, module, path_pattern=pattern).rows.to_pylist()}
    assert {name: (row["epoch"], row["checkpoint"]) for name, row in rows.items()} == {
        "seed1@5": (5, 0),
        "seed1@50": (50, 2),  # the one between them is broken, and still counts
        "seed2@5": (5, 0),
    }
    assert {row["unit"] for row in rows.values()} == {"model3"}


def test_two_files_of_one_graph_are_both_named(tmp_path: Path, module: str) -> None:
    zoo = write_folder(tmp_path / "zoo", ["a/x1.pt", "a/x2.pt", "same.pt", "same.bin"])
    with pytest.raises(ValueError, match="^a/x1.pt and a/x2.pt both give the graph a@0"):
        read(zoo, module, path_pattern="(?P<run_id>^.)")
    with pytest.raises(ValueError, match="^same.bin and same.pt both give the graph same@0"):
        read(zoo, module)


LABELS = """\
file,test_accuracy,note,rank,config.lr,fold,run_id,train_loss
./a.pt,0.5,"good, really",1,1e-3,7,first,
b/b.pt,,"""

LABELS_REST = """1.5,0.1,,second,0.25
gone.pt,0.1,,3,0.1,9,third,1
"""


def test_labels_fill_known_columns_and_others_become_columns_of_their_type(tmp_path: Path, module: str) -> None:
    zoo = write_folder(tmp_path / "zoo", ["a.pt", "b/b.pt", "unlisted.pt"])
    source = read(zoo, module, ("\ufeff" + LABELS + "bad," + LABELS_REST).encode())
    first, second = source.rows.to_pylist()
    assert (first["run_id"], first["graph_id"], first["test_accuracy"], first["note"]) == (
        *("first", "first@0", 0.5),
        "good, really",
    )
    assert (second["rank"], second["fold"], second["config.lr"], second["train_loss"]) == (1.5, None, 0.1, 0.25)
    assert np.isnan([first["train_loss"], second["test_accuracy"]]).all()
    types = {field.name: str(field.type) for field in source.rows.schema}
    assert {name: types[name] for name in ("note", "rank", "config.lr", "fold")} == {
        "note": "string",
        "rank": "double",
        "config.lr": "double",
        "fold": "int64",
    }
    assert source.rows.column_names[-4:] == ["note", "rank", "fold", "config.lr"]
    assert refused(source) == {
        "third@0": "file gone.pt: the labels have a row for it, and there is no such file",
        "unlisted@0": "unlisted.pt: the labels have no row for it; add one",
    }


def test_labels_of_runs_belong_to_all_files_of_the_run_or_to_those_of_the_epoch(tmp_path: Path, module: str) -> None:
    zoo = write_folder(tmp_path / "zoo", ["r1/1.pt", "r1/2.pt", "r2/1.pt"])
    pattern = "(?P<run_id>r.)/(?P<epoch>.)"
    source = read(zoo, module, "run_id,optimizer\nr1,adam\nr2,sgd\nr3,sgd\n", path_pattern=pattern)
    assert source.rows["optimizer"].to_pylist() == ["adam", "adam", "sgd"]
    assert list(refused(source)) == ["r3@0"]
    labels = "run_id,epoch,test_accuracy\nr1,01,0.1\nr1,2,0.2\n"
    source = read(zoo, module, labels, path_pattern=pattern)
    assert source.rows["test_accuracy"].to_pylist() == [0.1, 0.2]
    assert list(refused(source)) == ["r2@1"]


def test_arguments_of_labels_make_a_network_each_and_are_kept_as_configuration(tmp_path: Path, module: str) -> None:
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    torch.save(mlp_state(0, width=5), zoo / "a.pt")
    torch.save(mlp_state(1, width=4, bias=False), zoo / "b.pt")
    torch.save(mlp_state(2, width=5), zoo / "c.pt")
    torch.save(mlp_state(3, width=7), zoo / "d.pt")
    torch.save(mlp_state(3, width=5), zoo / "e.pt")
    labels = (
        "file,arguments.width,arguments.act,arguments.bias\n"
        "a.pt,5,relu,True\nb.pt,4,relu,false\nc.pt,5,tanh,true\nd.pt,7,relu,True\ne.pt,5,,\n"
    )
    source = read(zoo, module, labels)
    rows = {row["run_id"]: row for row in source.rows.to_pylist()}
    assert len(source.documents) == 3
    assert rows["a"]["template"] == rows["e"]["template"] != rows["c"]["template"]
    assert [rows[name]["length"] for name in "abc"] == [21, 13, 21]
    assert json.loads(rows["b"]["architecture"])["arguments"] == {
        "act": "relu",
        "bias": False,
        "input_shape": [2],
        "width": 4,
    }
    assert json.loads(rows["e"]["architecture"])["arguments"] == {"input_shape": [2], "width": 5}
    assert [rows[name]["config.width"] for name in "abce"] == [5, 4, 5, 5]
    assert [rows[name]["config.act"] for name in "abce"] == ["relu", "relu", "tanh", None]
    assert refused(source) == {
        "d@0": f"d.pt: {module}:mlp(width=7, act='relu', bias=True) fails: RuntimeError: seven is unlucky"
    }
    with pytest.raises(ValueError, match=r"networks_to_import:mlp\(wide=5\) fails: TypeError"):
        read(zoo, module, "file,arguments.wide\na.pt,5\n")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("", "is empty; expected a csv file"),
        ("\n\n", "is empty; expected a csv file"),
        (b"\xff\xfea", "is not text in UTF-8"),
        ("name,class\na,1\n", "its columns are name, class; expected one named file (the path of each file below"),
        ("file,x,x\na.pt,1,2\n", "column 'x' is there twice"),
        ("file,x\na.pt\n", "line 2 has 1 cells for 2 columns"),
        ("file,x\na.pt,1,2\n", "line 2 has 3 cells for 2 columns"),
        ('file,x\na.pt,"1\n', "unexpected end of data"),
        ("file,x\na.pt,1\nb.pt,2\n./a.pt,1\n", "rows 1 and 3 after the names both have file 'a.pt'; keep one"),
        ("run_id,x\na,1\na,2\n", "rows 1 and 2 after the names both have run_id 'a'; keep one"),
        ("file\n/etc/passwd.pt\n", "row 1 after the names: file is '/etc/passwd.pt'; expected a path below the folder"),
        ("file\na.pt\n../b.pt\n", "row 2 after the names: file is '../b.pt'; expected a path below the folder"),
        ("file,x\n,1\n", "row 1 after the names: file is ''; expected a path below the folder"),
        ("file,epoch\na.pt,1.5\n", "row 1 after the names: epoch is '1.5'; expected a whole number from 0 on"),
        ("file,epoch\na.pt,2147483648\n", "epoch is '2147483648'; expected a whole number"),
        ("file,step\na.pt,-1\n", "step is '-1'; expected a whole number from 0 on"),
        ("file,run_id\na.pt,\n", "run_id is empty; expected a name"),
        ("file,test_loss\na.pt,low\n", "test_loss is 'low'; expected a number, or nothing where it is not known"),
        ("file,split\na.pt,train\n", "the name 'split' is taken; give the column another one"),
        ("file,checkpoint\na.pt,1\n", "the name 'checkpoint' is taken"),
        ("file,arguments.input_shape\na.pt,1\n", "arguments.input_shape: the shape of the input is the same for all"),
        (
            "file,arguments.width,config.width\na.pt,3,3\n",
            "arguments.width is kept as config.width, which is there too",
        ),
        ("file,arguments.width\na.pt,nan\n", "width: found nan; expected finite numbers"),
    ],
)
def test_labels_that_cannot_be_meant_are_refused(
    tmp_path: Path, module: str, labels: str | bytes, message: str
) -> None:
    zoo = write_folder(tmp_path / "zoo", ["a.pt", "b.pt"])
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read(zoo, module, labels)
    assert len(str(caught.value).splitlines()) == 1


def test_a_column_comes_from_the_labels_or_from_the_path(tmp_path: Path, module: str) -> None:
    zoo = write_folder(tmp_path / "zoo", ["a.pt", "b.pt"])
    with pytest.raises(ValueError, match="both it and the pattern for paths give 'letter'; leave it out of one"):
        read(zoo, module, "file,letter\na.pt,a\n", path_pattern="(?P<letter>.)")
    with pytest.raises(ValueError, match="missing.csv: cannot be read \\(No such file or directory\\)"):
        state_dict_source(
            zoo, StateDicts(factory=f"{module}:mlp", input="1,2", labels=str(tmp_path / "missing.csv")), Machine()
        )


def test_a_path_whose_cells_are_wrong_is_left_out(tmp_path: Path, module: str) -> None:
    zoo = write_folder(tmp_path / "zoo", ["1.pt", "x.pt", "run.pt"])
    details = refused(read(zoo, module, path_pattern=r"(?P<run_id>run)?.*\.pt"))
    assert details["x@0"] == "x.pt: run_id is empty; expected a name"
    details = refused(read(zoo, module, path_pattern=r"^(?P<epoch>.+)\.pt"))
    assert details["x@0"] == "x.pt: epoch is 'x'; expected a whole number from 0 on"


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("path_pattern", "(?P<run_id", "path_pattern is '(?P<run_id', no regular expression: missing >"),
        ("path_pattern", "[0-9]+", "path_pattern is '[0-9]+'; expected named groups, such as (?P<image_class>[0-9])"),
        ("path_pattern", "(?P<split_by_class>.)", "path_pattern: the name 'split_by_class' is taken"),
        ("path_pattern", "(?P<file>.)", "path_pattern: the name 'file' is taken"),
        ("input", "3", "--input is '3'; expected whole numbers from 1 on"),
        ("pattern", "", "pattern is ''; expected one for files below the folder"),
        ("pattern", "/tmp/*", "pattern is '/tmp/*'; expected one for files below the folder"),
        ("pattern", "../*", "pattern is '../*'; expected one for files below the folder"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_read(setting: str, value: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        replace(StateDicts(factory="package.module:function", input="1,2"), **{setting: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"factory": "nowhere_to_be_found:mlp"}, "there is no module 'nowhere_to_be_found'"),
        ({"factory": "networks_to_import:cnn"}, "networks_to_import has no 'cnn'; expected a function"),
        ({"factory": "networks_to_import:Twisted"}, "networks_to_import:Twisted(): "),
        ({"factory": "networks_to_import:flat"}, "networks_to_import:flat(): "),
        ({"input": "1,5"}, "networks_to_import:mlp(): "),
        ({"pattern": "**x"}, "pattern is '**x': "),
    ],
)
def test_a_factory_that_gives_no_template_is_named(
    tmp_path: Path, module: str, settings: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read(write_folder(tmp_path / "zoo", ["a.pt"]), module, **settings)
    assert len(str(caught.value).splitlines()) == 1


def test_a_template_that_is_not_right_is_refused(tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: Any) -> None:
        raise ValueError("Sequential: the graph\ncomputes something else")

    monkeypatch.setattr("pipeline.symmetry.check", wrong)
    with pytest.raises(ValueError, match=r"import:mlp\(\): Sequential: the graph computes something else"):
        read(write_folder(tmp_path / "zoo", ["a.pt"]), module)


def test_what_is_left_out_is_in_one_order() -> None:
    rows = [LeftOut(graph_id=name, reason="refused", detail=detail) for name, detail in ("ab", "ba", "aa", "bb")]
    assert left_out_rows(rows).equals(left_out_rows(rows[::-1]))
    assert left_out_rows(rows)["detail"].to_pylist() == ["a", "b", "a", "b"]


def test_lightning_checkpoints_of_wrapped_double_networks_are_taken(tmp_path: Path, module: str) -> None:
    (tmp_path / "zoo").mkdir()
    double = {f"model.{name}": tensor.double() for name, tensor in mlp_state(3).items()}
    torch.save({"epoch": 3, "state_dict": double, "optimizer_states": [{"lr": 0.1}]}, tmp_path / "zoo" / "last.ckpt")
    settings: dict[str, Any] = {"key": "state_dict", "prefix": "model."}
    source = read(tmp_path / "zoo", module, cast=True, **settings)
    assert values_of(source, source.rows.to_pylist()[0]).tobytes() == flattened(mlp_state(3)).tobytes()
    with pytest.raises(ValueError, match="last.ckpt: 0.weight: found float64; values are float32"):
        read(tmp_path / "zoo", module, **settings)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20)), unique=True))
def test_the_rank_of_a_checkpoint_counts_the_earlier_ones_of_its_run(pairs: list[tuple[str, int]]) -> None:
    expected = [sum(run == other and epoch > earlier for other, earlier in pairs) for run, epoch in pairs]
    assert checkpoint_ranks([run for run, _ in pairs], [epoch for _, epoch in pairs]).tolist() == expected


@pytest.mark.parametrize(
    ("cells", "kind", "expected"),
    [
        (["1", " 2", "-3", ""], "int64", [1, 2, -3, None]),
        (["1", "2.5", None], "double", [1.0, 2.5, None]),
        (["1e-3", "inf"], "double", [0.001, float("inf")]),
        (["1", "x", " "], "string", ["1", "x", None]),
        (["1_000", "2"], "string", ["1_000", "2"]),
        (["9223372036854775807"], "int64", [2**63 - 1]),
        (["9223372036854775808"], "double", [float(2**63)]),
        (["True", "False"], "string", ["True", "False"]),
        (["٣"], "string", ["٣"]),
        ([""], "string", [None]),
    ],
)
def test_the_type_of_a_column_is_that_of_all_its_cells(cells: list[str | None], kind: str, expected: list[Any]) -> None:
    column = typed(cells)
    assert (str(column.type), column.to_pylist()) == (kind, expected)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1), st.sampled_from([str, lambda number: f" {number} "]))
def test_whole_numbers_come_back_exactly(numbers: list[int], write: Callable[[int], str]) -> None:
    assert typed([write(number) for number in numbers]).to_pylist() == numbers


def test_a_network_without_labels_is_the_module_that_its_file_was_saved_from(tmp_path: Path, module: str) -> None:
    """The longest way: module, file, source, graph, state dict, module; the same function."""
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    (tmp_path / "zoo").mkdir()
    torch.save(network.state_dict(), tmp_path / "zoo" / "network.pt")
    source = read(tmp_path / "zoo", module)
    [row] = source.rows.to_pylist()
    template = read_document(source.documents[row["template"]])
    again = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    again.load_state_dict(template.graph(np.array(values_of(source, row))).state_dict())
    inputs = torch.linspace(-1, 1, 14).reshape(7, 2)
    assert torch.equal(network(inputs), again(inputs))
