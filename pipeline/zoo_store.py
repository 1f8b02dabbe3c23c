"""A zoo on disk: format "metazoo-zoo", version 1 (docs/stores.md).

    zoo.json                the specification, its digest, and the trainer, which decides the bytes too
    chunks/<index>/         five digits or more, from 00000
        values.npy          float32: the values of every checkpoint, one after another
        rows.parquet        one row per run and checkpoint, in that order (`ROW_SCHEMA`)
        correct.npy         uint8: for each row, which test images are classified correctly (numpy.packbits)
        done.json           size and SHA-256 of the other three
    log/<index>.jsonl       when, where and how fast a chunk was trained; outside the format

A chunk is written aside and renamed, so a listing of ``chunks`` is the state of the zoo, and a killed writer leaves
nothing that counts. What a chunk holds depends on the specification, not on when, where or beside what it was trained.
"""

import io
import json
import os
from argparse import ArgumentError
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Float64, UInt8

from pipeline.file_records import FileRecord
from pipeline.inr_zoo import InrSpec
from pipeline.loop_trainer import Checkpoint
from pipeline.parquet_files import read_table
from pipeline.places import Place, files_below, is_local, make_folder
from pipeline.siren_trainer import FittedNetwork
from pipeline.specifications import digest_of, parse_as
from pipeline.trainers import SirenTrainer, Trainer
from pipeline.whole_files import leftovers, sweep, write_file, write_folder
from pipeline.zoo import ZooSpec
from pipeline.zoo_rows import INR_SCHEMA, ROW_SCHEMA, answers, row

FORMAT = "metazoo-zoo"
VERSION = 1
CHUNK_FILES = ("values.npy", "rows.parquet", "correct.npy")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What the specification, the trainer and the rows of a zoo are."""

    name: str
    """As zoo.json has it."""
    spec: type[ZooSpec] | type[InrSpec]
    trainer: type[Trainer] | type[SirenTrainer]
    schema: pa.Schema


CLASSIFIERS = Kind(name="classifiers", spec=ZooSpec, trainer=Trainer, schema=ROW_SCHEMA)
IMPLICIT = Kind(name="implicit", spec=InrSpec, trainer=SirenTrainer, schema=INR_SCHEMA)
KINDS = {kind.name: kind for kind in (CLASSIFIERS, IMPLICIT)}


@dataclass(frozen=True, kw_only=True)
class Zoo:
    """An open zoo: where it is, its specification and its trainer. Holds no file open."""

    path: Place
    spec: ZooSpec | InrSpec
    trainer: Trainer | SirenTrainer

    @property
    def kind(self) -> Kind:
        """Networks that classify images, or implicit ones."""
        return kind_of(self.spec)

    def chunk_path(self, index: int) -> Place:
        """The folder of a finished chunk."""
        return self.path / "chunks" / f"{index:05d}"

    def log_path(self, index: int) -> Place:
        """The log of a chunk; a chunk trained twice has two lines."""
        return self.path / "log" / f"{index:05d}.jsonl"


@dataclass(frozen=True, kw_only=True)
class ChunkData:
    """The content of a chunk."""

    values: Float32[np.ndarray, " num_floats"]
    """Memory-mapped where it can be; a row's values are ``values[offset : offset + length]``."""
    rows: pa.Table
    """As its `Kind` has it: one row per run and checkpoint, ordered by run index, then checkpoint."""
    correct: UInt8[np.ndarray, "num_rows num_bytes"]
    """Bits of `numpy.packbits` along the second axis, one per test image; all 0 where there are no values."""


def kind_of(spec: ZooSpec | InrSpec) -> Kind:
    """The kind of a specification's zoo."""
    return CLASSIFIERS if isinstance(spec, ZooSpec) else IMPLICIT


def create_zoo(path: Place, spec: ZooSpec | InrSpec, trainer: Trainer | SirenTrainer = Trainer()) -> Zoo:
    """Make the zoo of a specification and a trainer, or open it if it was made already.

    Raises:
        ValueError: there is a zoo of another specification, or something that is not a zoo.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file; a zoo is a folder, so choose another path")
    if not (path / "zoo.json").exists():
        ours = {leftover.path for leftover in leftovers(path)}
        strangers = sorted(entry.name for entry in path.iterdir() if entry not in ours) if path.exists() else []
        if strangers:
            raise ValueError(f"{path} is not empty and not a zoo (it holds {strangers[0]}); choose another folder")
        make_folder(path)
        document = {
            "format": FORMAT,
            "version": VERSION,
            "kind": kind_of(spec).name,
            "spec": spec.document(),
            "digest": spec.digest,
            "num_chunks": spec.num_chunks,
            "trainer": trainer.document,
        }
        write_file(path / "zoo.json", json_bytes(document))
    zoo = open_zoo(path)
    differences = different_fields(
        zoo.spec.document() | {"trainer": zoo.trainer.document},
        spec.document() | {"trainer": trainer.document},
    )
    if differences:
        raise ValueError(
            f"{path} holds the zoo of another specification or trainer; it differs in {'; '.join(differences[:5])}"
            f"{' and more' if len(differences) > 5 else ''}. Choose another folder, or go back to that specification"
        )
    return zoo


def open_zoo(path: Place) -> Zoo:
    """The zoo at a path.

    Raises:
        ValueError: there is none, or it is of another version, or its description was altered.
    """
    file = path / "zoo.json"
    if not file.is_file():
        raise ValueError(f"{path}: there is no zoo here (no zoo.json); train one with python -m pipeline zoo")
    document = read_json(file)
    if not document:
        raise ValueError(f"{file} is no JSON object; restore the file")
    if document.get("format") != FORMAT:
        raise ValueError(f"{file}: format is {document.get('format')!r}, expected {FORMAT!r}; restore the file")
    if document.get("version") != VERSION:
        raise ValueError(
            f"{file}: version is {document.get('version')!r}, this program reads version {VERSION}; "
            "train the zoo again into a new folder with python -m pipeline zoo"
        )
    spec = document.get("spec")
    if not isinstance(spec, dict) or digest_of(spec) != document.get("digest"):
        raise ValueError(f"{file}: the specification was altered, its digest no longer matches; restore the file")
    kind = KINDS.get(str(document.get("kind", CLASSIFIERS.name)))
    if kind is None:
        raise ValueError(f"{file}: kind is {document['kind']!r}, expected {' or '.join(KINDS)}; restore the file")
    record = document.get("trainer")
    try:
        trainer = kind.trainer.of(record if isinstance(record, dict) else {"name": record})
        zoo = Zoo(path=path, spec=parse_as(kind.spec, spec), trainer=trainer)
    except (ValueError, ArgumentError) as error:
        raise ValueError(f"{file}: {error}; restore the file, or train the zoo again into a new folder") from error
    if document.get("num_chunks") != zoo.spec.num_chunks:
        raise ValueError(
            f"{file}: num_chunks is {document.get('num_chunks')!r}, and the specification makes {zoo.spec.num_chunks}; "
            "restore the file"
        )
    return zoo


def different_fields(found: Any, wanted: Any, name: str = "") -> list[str]:
    """Where two documents differ: ``epochs (3 there, 5 asked for)``."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = list(dict.fromkeys([*found, *wanted]))
        inner = (different_fields(found.get(key), wanted.get(key), f"{name}.{key}" if name else key) for key in keys)
        return [difference for differences in inner for difference in differences]
    return [] if found == wanted else [f"{name} ({json.dumps(found)} there, {json.dumps(wanted)} asked for)"]


def finished_chunks(zoo: Zoo) -> list[int]:
    """The indices of the chunks that are written, ascending."""
    folder = zoo.path / "chunks"
    if not is_local(folder):
        names = [name.removesuffix("/done.json") for name in files_below(folder) if name.endswith("/done.json")]
        return sorted(int(name) for name in names if name.isdigit() and int(name) < zoo.spec.num_chunks)
    if not folder.exists():
        return []
    with os.scandir(folder) as entries:
        found = [int(entry.name) for entry in entries if entry.name.isdigit() and entry.is_dir()]
    return sorted(index for index in found if index < zoo.spec.num_chunks)


def write_chunk(zoo: Zoo, index: int, checkpoints: Sequence[Checkpoint] | Sequence[FittedNetwork]) -> None:
    """Write a chunk, whole or not at all. If another writer was first, its chunk stays: both are the same bytes."""
    offsets = accumulate((len(checkpoint.values) for checkpoint in checkpoints[:-1]), initial=0)
    rows = [row(checkpoint, offset) for checkpoint, offset in zip(checkpoints, offsets, strict=True)]
    table = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=zoo.kind.schema), table)
    contents = {
        "values.npy": npy_bytes(np.concatenate([checkpoint.values for checkpoint in checkpoints])),
        "rows.parquet": table.getvalue(),
        "correct.npy": npy_bytes(np.packbits([answers(checkpoint) for checkpoint in checkpoints], axis=1)),
    }
    files = {name: asdict(FileRecord.of(content)) for name, content in contents.items()}
    done = {"chunk": index, "spec": zoo.spec.digest, "files": files}
    write_folder(zoo.chunk_path(index), {**contents, "done.json": json_bytes(done)})


def read_chunk(zoo: Zoo, index: int) -> ChunkData:
    """The content of a finished chunk, its digests checked (once in a process, while the files stay as they are).

    Raises:
        ValueError: the chunk is not finished, or a file of it is missing, truncated or altered.
    """
    folder = zoo.chunk_path(index)
    if not folder.exists():
        raise ValueError(f"{folder}: this chunk is not trained yet; train what is missing with python -m pipeline zoo")
    done_path = folder / "done.json"
    if not done_path.is_file():
        raise damaged(done_path, "is missing")
    done = read_json(done_path)
    files = done.get("files", {})
    if (done.get("chunk"), done.get("spec"), set(files)) != (index, zoo.spec.digest, set(CHUNK_FILES)):
        raise damaged(done_path, f"is not that of chunk {index} of this zoo")
    for name in CHUNK_FILES:
        check_file(folder / name, files[name])
    return ChunkData(
        values=load_array(folder / "values.npy"),
        rows=read_table(folder / "rows.parquet"),
        correct=load_array(folder / "correct.npy"),
    )


def read_rows(zoo: Zoo, index: int, columns: Sequence[str]) -> pa.Table:
    """Some columns of a finished chunk's rows, in no time: digests are not checked."""
    file = zoo.chunk_path(index) / "rows.parquet"
    try:
        return read_table(file, columns=columns)
    except (OSError, pa.ArrowInvalid) as error:
        raise damaged(file, f"cannot be read ({error})") from error


def half_accuracies(
    correct: UInt8[np.ndarray, "num_rows num_bytes"], num_tested: int
) -> tuple[Float64[np.ndarray, " num_rows"], Float64[np.ndarray, " num_rows"]]:
    """The accuracies on the even and on the odd test images, counted from 0, which differ by chance only; NaN where
    there are not two."""
    if num_tested < 2:
        return np.full(len(correct), np.nan), np.full(len(correct), np.nan)
    bits = np.unpackbits(correct, axis=1, count=num_tested)
    return bits[:, 0::2].mean(axis=1), bits[:, 1::2].mean(axis=1)


def load_array(path: Place) -> np.ndarray:
    """A .npy file: memory-mapped, or all of it where that cannot be."""
    if is_local(path):
        return np.load(path, mmap_mode="r", allow_pickle=False)
    return np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)


def check_file(path: Place, expected: dict[str, Any]) -> None:
    """Refuse a file that is not the one that was written."""
    if not path.is_file():
        raise damaged(path, "is missing")
    found = path.stat()
    if found.st_size != expected.get("size"):
        raise damaged(path, f"has {found.st_size} bytes, {expected.get('size')} were written")
    if file_sha256(path, found.st_size, found.st_mtime_ns) != expected.get("sha256"):
        raise damaged(path, "was altered: its SHA-256 is not the one in done.json")


@cache
def file_sha256(path: Place, size: int, mtime_ns: int) -> str:
    """SHA-256 of a file; its size and time are arguments so that a file that changes is read again."""
    return FileRecord.of_file(path).sha256


def damaged(path: Place, what: str) -> ValueError:
    """The error of a file that is not as it was written."""
    return ValueError(f"{path} {what}; delete {path.parent} and train that chunk again with python -m pipeline zoo")


def sweep_zoo(zoo: Zoo) -> None:
    """Remove what killed writers left."""
    for folder in (zoo.path, zoo.path / "chunks"):
        sweep(folder)


def json_bytes(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=1) + "\n").encode()


def read_json(path: Place) -> dict[str, Any]:
    """A JSON file that holds an object; an empty one if it holds something else."""
    try:
        document = json.loads(path.read_bytes())
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def npy_bytes(array: np.ndarray) -> bytes:
    """The array as a .npy file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()
