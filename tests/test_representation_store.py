"""Representations on disk: what is written is read, by anybody; what is not whole is refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.representation_store import (
    DOCUMENT,
    SAMPLES,
    find_representations,
    open_representation,
    write_representation,
)
from pipeline.file_records import FileRecord
from stored_networks import layers, samples, write_network

WIDTHS = {"input": 11, "layer0.nodes": 3, "output": 1}


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    write_network(tmp_path / "net-0", layers(0, WIDTHS))
    return tmp_path / "net-0"


def test_what_is_written_in_batches_is_read_as_one_array_per_layer(stored: Path) -> None:
    opened = open_representation(stored)
    assert (opened.network, opened.made_of, opened.num_samples) == ("net-0", {"network": "made up"}, 86)
    assert [(layer.name, layer.width, layer.reading) for layer in opened.layers] == [
        (name, width, f"reading of {name}") for name, width in WIDTHS.items()
    ]
    for name, features in layers(0, WIDTHS).items():
        assert np.array_equal(opened.features(name), features)
        assert isinstance(opened.features(name), np.memmap)
    assert opened.samples().equals(samples())


def test_the_files_need_no_program_of_ours(stored: Path) -> None:
    document = json.loads((stored / DOCUMENT).read_text())
    assert (document["format"], document["version"]) == ("metazoo-representations", 1)
    for layer in document["layers"]:
        features = np.load(stored / f"{layer['name']}.npy", allow_pickle=False)
        assert (features.shape, features.dtype) == ((86, layer["width"]), np.float32)
    assert pq.read_table(stored / SAMPLES).column_names == ["sample_id", "unit"]
    assert sorted(path.name for path in stored.parent.iterdir()) == ["net-0"], "nothing is left beside it"


def test_the_sample_digest_is_that_of_the_set(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(86)
    features = layers(0, WIDTHS)
    straight = write_network(tmp_path / "straight", features)
    shuffled = write_network(tmp_path / "shuffled", features, samples(order))
    fewer = write_network(tmp_path / "fewer", layers(0, WIDTHS, n=84), samples(num_units=42))
    assert straight.sample_digest == shuffled.sample_digest != fewer.sample_digest
    assert straight.digest != shuffled.digest


def test_writing_again_replaces_the_whole_folder(stored: Path) -> None:
    first = open_representation(stored)
    second = write_network(stored, layers(1, {"input": 7}))
    assert first.digest != second.digest
    assert sorted(path.name for path in stored.iterdir()) == ["input.npy", DOCUMENT, SAMPLES]
    assert [path.name for path in stored.parent.iterdir()] == ["net-0"]


def test_a_writer_that_is_stopped_leaves_what_was_there(stored: Path) -> None:
    before = open_representation(stored)

    def batches():
        yield layers(1, WIDTHS, n=7)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_representation(stored, {}, dict.fromkeys(WIDTHS, ""), samples(), batches())
    assert open_representation(stored) == before
    assert [path.name for path in stored.parent.iterdir()] == ["net-0"]


def document_with(**changes: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        document = json.loads((path / DOCUMENT).read_text())
        (path / DOCUMENT).write_text(json.dumps({**document, **changes}))

    return change


def replace(name: str, write: Callable[[Path], None]) -> Callable[[Path], None]:
    """Another file, its digest in order."""

    def change(path: Path) -> None:
        write(path / name)
        document = json.loads((path / DOCUMENT).read_text())
        found = FileRecord.of_file(path / name)
        document["files"][name] = {"size": found.size, "sha256": found.sha256}
        (path / DOCUMENT).write_text(json.dumps(document))

    return change


def save(array: np.ndarray) -> Callable[[Path], None]:
    return lambda path: np.save(path, array)


def flip(path: Path) -> None:
    content = bytearray((path / "input.npy").read_bytes())
    content[-1] ^= 1
    (path / "input.npy").write_bytes(content)


TWICE = pa.table({"sample_id": ["a"] * 86, "unit": ["u"] * 86})
UNKNOWN = pa.table({"sample_id": [None, *map(str, range(85))], "unit": ["u"] * 86})
OUTSIDE = [{"name": "../input", "width": 11, "reading": ""}]

DAMAGES = {
    "no document": (lambda path: (path / DOCUMENT).unlink(), r"no representation here.*python -m analysis represent"),
    "no JSON": (lambda path: (path / DOCUMENT).write_text("{"), r"representation\.json: not JSON"),
    "another format": (document_with(format="x"), r"does not describe a representation"),
    "another version": (document_with(version=2), r"version 2; this program reads version 1"),
    "a missing field": (
        lambda path: (path / DOCUMENT).write_text('{"format": "metazoo-representations", "version": 1}'),
        r"not of version 1: KeyError",
    ),
    "a missing file": (lambda path: (path / "input.npy").unlink(), r"input\.npy: missing"),
    "an altered file": (flip, r"input\.npy: altered or cut short"),
    "a truncated file": (lambda path: (path / "input.npy").write_bytes(b"\x93NUMPY"), r"input\.npy: altered or cut"),
    "a file elsewhere": (document_with(layers=OUTSIDE), r"its files .* are not those of its layers"),
    "float64": (replace("input.npy", save(np.zeros((86, 11)))), r"float64 of shape \[86, 11\]; expected float32"),
    "another width": (replace("input.npy", save(np.zeros((86, 7), np.float32))), r"shape \[86, 7\]; expected float32"),
    "other ids": (
        replace(SAMPLES, lambda path: pq.write_table(samples(num_units=42), path)),
        r"84 rows .* expected 86",
    ),
    "an id twice": (replace(SAMPLES, lambda path: pq.write_table(TWICE, path)), r"sample id 'a' occurs 86 times"),
    "an id missing": (replace(SAMPLES, lambda path: pq.write_table(UNKNOWN, path)), r"sample_id is missing for 1"),
    "another digest": (document_with(sample_digest="0" * 64), r"sample_digest is not that of sample_ids\.parquet"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_not_whole_is_refused_by_name(name: str, stored: Path) -> None:
    damage, message = DAMAGES[name]
    damage(stored)
    with pytest.raises(ValueError, match=message):
        open_representation(stored)


def test_a_pickle_is_not_loaded(stored: Path) -> None:
    replace("input.npy", lambda path: np.save(path, np.array([{}] * 86, dtype=object)))(stored)
    with pytest.raises(ValueError, match=r"input\.npy: not an array of numbers"):
        open_representation(stored)


@pytest.mark.parametrize(
    ("features", "table", "message"),
    [
        (layers(0, WIDTHS), TWICE, r"sample id 'a' occurs 86 times; expected once"),
        (layers(0, WIDTHS, n=83), samples(), r"83 samples were represented; expected 86"),
        ({"a/b": np.zeros((86, 3))}, samples(), r"layer 'a/b': expected a name of letters"),
    ],
)
def test_nothing_is_written_of_what_does_not_fit(
    features: dict[str, np.ndarray], table: pa.Table, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        write_network(tmp_path / "net", features, table)
    assert list(tmp_path.iterdir()) == []


def test_every_batch_must_bring_every_layer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a batch has the layers \['b'\]; expected \['a'\]"):
        write_representation(tmp_path / "net", {}, {"a": ""}, samples(), [{"b": np.zeros((86, 3))}])


def test_a_folder_gives_the_representations_in_it(stored: Path, tmp_path: Path) -> None:
    write_network(tmp_path / "net-1", layers(1, WIDTHS))
    (tmp_path / "else").mkdir()
    assert [found.network for found in find_representations([tmp_path])] == ["net-0", "net-1"]
    assert [found.network for found in find_representations([tmp_path / "net-1", stored])] == ["net-1", "net-0"]
    with pytest.raises(ValueError, match=r"else: neither a representation nor a folder of some"):
        find_representations([tmp_path / "else"])
    shutil.copytree(stored, tmp_path / "else" / "net-0")
    with pytest.raises(ValueError, match=r"net-0 and .*else/net-0 are both called 'net-0'; leave out one"):
        find_representations([tmp_path, tmp_path / "else"])
