"""Representations of one network on disk: format "metazoo-representations" version 1 (docs/representations.md).

    stored = open_representation(Path("runs/digits/representations/gmn-0"))
    stored.features("layer1.nodes")     memory-mapped [n, width]; row i is sample i of ``stored.samples()``

Reads   representation.json and the files it names, every one compared with its digest when a representation is opened
Writes  a folder per network, aside, renamed when it is whole

Nothing needs unpickling, nor this program: the files are JSON, Parquet and plain .npy.
"""

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Real

from pipeline.file_records import FileRecord, sha256
from pipeline.parquet_files import read_table
from pipeline.whole_files import aside_path, sweep

FORMAT = "metazoo-representations"
VERSION = 1
DOCUMENT = "representation.json"
SAMPLES = "sample_ids.parquet"
SAMPLE_COLUMNS = pa.schema([("sample_id", pa.string()), ("unit", pa.string())])
LAYER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}")
"""Layer names are file names too."""
MAKE = "python -m analysis represent"


@dataclass(frozen=True, kw_only=True)
class StoredLayer:
    """One layer of the network."""

    name: str
    width: int
    """Features per sample."""
    reading: str
    """In words, how a sample became one vector: pooled, flattened, ..."""


@dataclass(frozen=True, kw_only=True)
class Representation:
    """The activations of a network on identified samples, as they lie on disk."""

    path: Path
    """Absolute, so that other processes find it."""
    network: str
    """What tables and pictures call the network: the name of the folder."""
    made_of: dict[str, Any]
    """Network, weights, dataset and split: everything that decides the numbers."""
    layers: tuple[StoredLayer, ...]
    """In the order in which the network computes them."""
    num_samples: int
    sample_digest: str
    """SHA-256 of the sample ids in alphabetical order: equal for the same samples in another order."""
    digest: str
    """SHA-256 of representation.json, and so of everything."""

    def features(self, layer: str) -> Float32[np.ndarray, "n width"]:
        """The features of one layer, memory-mapped."""
        return np.load(self.path / f"{layer}.npy", mmap_mode="r", allow_pickle=False)

    def samples(self) -> pa.Table:
        """Columns ``sample_id`` and ``unit``, in the order of the rows of every layer."""
        return read_table(self.path / SAMPLES)


def write_representation(
    path: Path,
    made_of: Mapping[str, Any],
    readings: Mapping[str, str],
    samples: pa.Table,
    batches: Iterable[Mapping[str, Real[np.ndarray, "_ _"]]],
) -> Representation:
    """Write what the batches bring, one after another, and make it appear at ``path`` when all are in.

    Args:
        readings: what `StoredLayer.reading` says of each layer; its order is that of the layers.
        samples: `SAMPLE_COLUMNS`, in the order in which the batches bring them.
        batches: features of some samples by layer, every layer in every batch.

    Raises:
        ValueError: sample ids that are not unique, layers other than those of ``readings``, or too few samples.
    """
    samples = samples.cast(SAMPLE_COLUMNS)
    check_samples(str(path), samples)
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    aside = aside_path(path)
    shutil.rmtree(aside, ignore_errors=True)  # an earlier try of this process
    aside.mkdir()
    try:
        widths = write_layers(aside, readings, samples.num_rows, batches)
        pq.write_table(samples, aside / SAMPLES)
        layers = [StoredLayer(name=name, width=widths[name], reading=reading) for name, reading in readings.items()]
        document = {
            "format": FORMAT,
            "version": VERSION,
            "network": path.name,
            "made_of": dict(made_of),
            "layers": [asdict(layer) for layer in layers],
            "num_samples": samples.num_rows,
            "sample_digest": sample_digest(samples),
            "files": {file.name: asdict(FileRecord.of_file(file)) for file in sorted(aside.iterdir())},
        }
        (aside / DOCUMENT).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
        put_in_place(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return open_representation(path)


def write_layers(
    folder: Path, readings: Mapping[str, str], num_samples: int, batches: Iterable[Mapping[str, np.ndarray]]
) -> dict[str, int]:
    """One .npy per layer, filled as the batches come; returns the widths."""
    for name in readings:
        if not LAYER_NAME.fullmatch(name):
            raise ValueError(f"layer {name!r}: expected a name of letters, digits, _, . and -, for it names a file")
    arrays: dict[str, np.memmap] = {}
    start = 0
    for batch in batches:
        if set(batch) != set(readings):
            raise ValueError(f"a batch has the layers {sorted(batch)}; expected {sorted(readings)}")
        stop = start + len(next(iter(batch.values())))
        for name, features in batch.items():
            if name not in arrays:
                shape = (num_samples, features.shape[1])
                arrays[name] = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.dtype("<f4"), shape)
            arrays[name][start:stop] = features
        start = stop
    if start != num_samples or not arrays:
        raise ValueError(f"{start} samples were represented; expected {num_samples}, and at least one")
    for array in arrays.values():
        array.flush()
    return {name: array.shape[1] for name, array in arrays.items()}


def put_in_place(aside: Path, path: Path) -> None:
    """Give the finished folder its name. What was there until now goes only when the new one is there."""
    old = aside_path(path, ".replaced")
    if path.exists():
        path.rename(old)
    aside.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def open_representation(path: Path) -> Representation:
    """The representation in a folder, its files compared with their digests.

    Raises:
        ValueError: none is there, it has another version, or a file is missing or altered.
    """
    document_path = path / DOCUMENT
    if not document_path.is_file():
        raise ValueError(f"{path}: no representation here ({DOCUMENT} is missing); make one with {MAKE}")
    content = document_path.read_bytes()
    document = read_document(document_path, content)
    try:
        layers = tuple(StoredLayer(**layer) for layer in document["layers"])
        files = {name: FileRecord(**file) for name, file in document["files"].items()}
        stored = Representation(
            path=path.absolute(),
            network=str(document["network"]),
            made_of=dict(document["made_of"]),
            layers=layers,
            num_samples=int(document["num_samples"]),
            sample_digest=str(document["sample_digest"]),
            digest=sha256(content),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{document_path}: not of version {VERSION}: {type(error).__name__}: {error}") from error
    check_files(stored, files)
    return stored


def read_document(path: Path, content: bytes) -> dict[str, Any]:
    """The JSON, once its format and version are known to be ours."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error}); make the representation again with {MAKE}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"{path}: does not describe a representation (format {FORMAT!r})")
    if document.get("version") != VERSION:
        raise ValueError(
            f"{path}: version {document.get('version')!r}; this program reads version {VERSION}: make the "
            f"representation again with {MAKE}"
        )
    return document


def check_files(stored: Representation, files: Mapping[str, FileRecord]) -> None:
    """Hold every file to its digest and to what the document says of it."""
    expected = {SAMPLES, *(f"{layer.name}.npy" for layer in stored.layers)}
    names = [layer.name for layer in stored.layers]
    if set(files) != expected or len(set(names)) < len(names) or not all(map(LAYER_NAME.fullmatch, names)):
        raise ValueError(f"{stored.path / DOCUMENT}: its files {sorted(files)} are not those of its layers {names}")
    for name, file in files.items():
        path = stored.path / name
        if not path.is_file():
            raise ValueError(f"{path}: missing; make the representation again with {MAKE}")
        if FileRecord.of_file(path) != file:
            raise ValueError(f"{path}: altered or cut short; make the representation again with {MAKE}")
    for layer in stored.layers:
        check_array(stored.path / f"{layer.name}.npy", (stored.num_samples, layer.width))
    samples = stored.samples()
    if samples.schema.remove_metadata() != SAMPLE_COLUMNS or samples.num_rows != stored.num_samples:
        raise ValueError(
            f"{stored.path / SAMPLES}: {samples.num_rows} rows of {samples.column_names}; expected "
            f"{stored.num_samples} of {SAMPLE_COLUMNS.names}"
        )
    check_samples(str(stored.path / SAMPLES), samples)
    if sample_digest(samples) != stored.sample_digest:
        raise ValueError(f"{stored.path / DOCUMENT}: sample_digest is not that of {SAMPLES}")


def check_array(path: Path, shape: tuple[int, int]) -> None:
    """Refuse an array of another type or shape."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{path}: not an array of numbers ({error})") from error
    if array.dtype != np.dtype("<f4") or array.shape != shape:
        found = f"{array.dtype} of shape {list(array.shape)}"
        raise ValueError(f"{path}: {found}; expected float32 of shape {list(shape)}")


def check_samples(where: str, samples: pa.Table) -> None:
    """Refuse ids that are missing or name two samples."""
    for column in SAMPLE_COLUMNS.names:
        if samples[column].null_count:
            raise ValueError(f"{where}: {column} is missing for {samples[column].null_count} samples")
    counts = samples["sample_id"].value_counts().to_pylist()
    for count in (count for count in counts if count["counts"] > 1):
        raise ValueError(f"{where}: sample id {count['values']!r} occurs {count['counts']} times; expected once")


def sample_digest(samples: pa.Table) -> str:
    """SHA-256 of the ids in alphabetical order, each followed by a newline."""
    ids = sorted(samples["sample_id"].to_pylist())
    return sha256("".join(f"{sample_id}\n" for sample_id in ids).encode())


def find_representations(paths: Iterable[Path]) -> list[Representation]:
    """Every representation that a path is, or that a folder holds, in the order given.

    Raises:
        ValueError: a path without representations, or two of the same name.
    """
    found: list[Representation] = []
    for path in paths:
        inside = (
            [path] if (path / DOCUMENT).is_file() else sorted(file.parent for file in path.glob(f"[!.]*/{DOCUMENT}"))
        )
        if not inside:
            raise ValueError(f"{path}: neither a representation nor a folder of some; make one with {MAKE}")
        found += [open_representation(folder) for folder in inside]
    paths_of: dict[str, Path] = {}
    for stored in found:
        if stored.network in paths_of:
            raise ValueError(
                f"{paths_of[stored.network]} and {stored.path} are both called {stored.network!r}; leave "
                "out one, or make it again into a folder of another name"
            )
        paths_of[stored.network] = stored.path
    return found
