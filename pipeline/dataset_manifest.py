"""The manifest of a parameter-graph dataset: what belongs to it, and how files are held to it.

Reads   manifest.json, and the other files, each compared with it
Writes  nothing: `pipeline.build_graphs` writes `Manifest.text`, last, by one rename

A reader believes only the manifest: what it does not name does not exist, and what it names is compared with its size
and SHA-256 before anything in it is believed. The manifest itself must be, to the byte, the text its own numbers give.
docs/stores.md specifies all of this.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.file_records import FileRecord, sha256

FORMAT = "metazoo-graphs"
VERSION = 1
MANIFEST = "manifest.json"
REBUILD = "python -m pipeline graphs --zoo ZOO --out NEW"
"""The command that makes a dataset."""
RESTORE = f"restore the file from a copy, or build the dataset anew: {REBUILD}"
"""What to do about a damaged file."""

CHUNK_FLOATS = 2**18
"""Floats that are compressed together."""
SHARD_FLOATS = 2**22
"""Floats in one file."""
MAX_PARTS = 100_000
"""The names of parts have five digits."""


@dataclass(frozen=True, kw_only=True)
class PartRecord:
    """Counts of one part; from them follows which files it has."""

    num_graphs: int
    num_values: int
    """Floats in its array; at least one a graph."""
    num_templates: int
    """Templates stored with this part: those no earlier part needed."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that a dataset consists of."""

    parts: tuple[PartRecord, ...]
    """Numbered from 0."""
    num_diverged: int
    """Checkpoints of the zoos that were left out because the run had diverged."""
    files: Mapping[str, FileRecord]
    """Every other file, by its path relative to the dataset, with ``/`` between folders."""

    @property
    def num_graphs(self) -> int:
        return sum(part.num_graphs for part in self.parts)

    @property
    def num_bytes(self) -> int:
        """Size of all files but the manifest."""
        return sum(record.size for record in self.files.values())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of the manifest without its digest: the identity of the dataset."""
        return sha256(canonical_json(self._document()).encode())

    def text(self) -> str:
        """What manifest.json contains."""
        return canonical_json(self._document() | {"digest": self.digest})

    def _document(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "parts": [asdict(part) for part in self.parts],
            "num_diverged": self.num_diverged,
            "files": {name: asdict(record) for name, record in self.files.items()},
        }


class CheckedFiles:
    """The files of a dataset, each compared with the manifest when it is first read in this process."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.root = root
        self.manifest = manifest
        self._checked: set[str] = set()

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            ValueError: it is missing, or not the file the manifest names.
        """
        path, expected = self.root / name, self.manifest.files[name]
        if not path.is_file():
            raise ValueError(f"{path}: missing; {RESTORE}")
        if (size := path.stat().st_size) != expected.size:
            raise ValueError(f"{path}: {size} bytes, {expected.size} were written; {RESTORE}")
        content = path.read_bytes()
        if name not in self._checked and sha256(content) != expected.sha256:
            raise ValueError(f"{path}: altered, its SHA-256 is not the manifest's; {RESTORE}")
        self._checked.add(name)
        return content


def part_name(part: int) -> str:
    """``00042``."""
    return f"{part:05d}"


def part_files(part: int, record: PartRecord) -> Iterator[str]:
    """The files of a part: they follow from its counts."""
    name = part_name(part)
    yield f"tables/{name}.parquet"
    if record.num_templates:
        yield f"templates/{name}.parquet"
    yield f"values/{name}/zarr.json"
    for shard in range(-(-record.num_values // SHARD_FLOATS)):
        yield f"values/{name}/c/{shard}"


def group_bytes(attributes: dict[str, Any]) -> bytes:
    """The zarr.json that makes a folder a zarr group."""
    return canonical_json({"attributes": attributes, "node_type": "group", "zarr_format": 3}).encode()


def read_group(path: Path, content: bytes) -> dict[str, Any]:
    """The attributes of the zarr group whose zarr.json is at ``path``."""
    try:
        document = json.loads(content)
        attributes = document["attributes"]
        if (document["zarr_format"], document["node_type"], type(attributes)) != (3, "group", dict):
            raise ValueError("no group of zarr format 3 with attributes")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not the description of a dataset ({error}); {RESTORE}") from error
    return attributes


def canonical_json(document: dict[str, Any]) -> str:
    """JSON with sorted keys, no spaces, ASCII only: one text for equal documents."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def read_manifest(root: Path) -> Manifest:
    """The manifest of the dataset at ``root``.

    Raises:
        ValueError: there is no dataset, an unfinished one, one of another version, or the manifest was altered.
    """
    path = root / MANIFEST
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: not a file; {RESTORE}")
    if not path.is_file():
        if (root / "zarr.json").is_file():
            raise ValueError(
                f"{root}: this dataset is not finished; run the python -m pipeline graphs that makes it again"
            )
        raise ValueError(f"{root}: no parameter-graph dataset here ({MANIFEST} is missing); make one: {REBUILD}")
    text = path.read_bytes()
    document = _parse(path, text)
    try:
        manifest = _manifest(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: not a manifest of version {VERSION}: {type(error).__name__}: {error}") from error
    if text != manifest.text().encode():
        raise ValueError(f"{path}: its digest does not fit its text; the file was altered; {RESTORE}")
    _check_names(path, manifest)
    return manifest


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    """The JSON, once its format and version are known to be ours."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error}); the file was altered or cut short; {RESTORE}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"{path}: not the manifest of a parameter-graph dataset (format {FORMAT!r})")
    if document.get("version") != VERSION:
        raise ValueError(
            f"{path}: the dataset has version {document.get('version')!r}, this program reads version {VERSION}; "
            f"build it anew: {REBUILD}"
        )
    return document


def _manifest(document: dict[str, Any]) -> Manifest:
    if len(document["parts"]) > MAX_PARTS:
        raise ValueError(f"{len(document['parts'])} parts, at most {MAX_PARTS}")
    return Manifest(
        parts=tuple(
            PartRecord(**{name: _count(number) for name, number in part.items()}) for part in document["parts"]
        ),
        num_diverged=_count(document["num_diverged"]),
        files={
            str(name): FileRecord(size=_count(record["size"]), sha256=str(record["sha256"]))
            for name, record in document["files"].items()
        },
    )


def _count(number: object) -> int:
    if type(number) is not int or number < 0:
        raise ValueError(f"found {number!r} where a count belongs")
    return number


def _check_names(path: Path, manifest: Manifest) -> None:
    """Refuse a manifest whose files are not those its counts give: nothing missing, no ``..``, nothing absurd."""
    num_files = len(manifest.files)
    if sum(part.num_values for part in manifest.parts) > num_files * SHARD_FLOATS:
        raise ValueError(f"{path}: its parts have more values than {num_files} files can hold")
    expected = {"zarr.json", "values/zarr.json"}
    for index, part in enumerate(manifest.parts):
        if not (1 <= part.num_graphs <= part.num_values and part.num_templates <= part.num_graphs):
            raise ValueError(f"{path}: the counts of part {part_name(index)} do not fit together: {part}")
        expected.update(part_files(index, part))
    if wrong := sorted(expected ^ set(manifest.files)):
        verb = "does not name" if wrong[0] in expected else "names"
        raise ValueError(f"{path}: {verb} {wrong[0]!r}; by its counts there are {len(expected)} files")


def refuse_inside_dataset(out: Path) -> None:
    """Keep results out of datasets, whose files are those their manifest names.

    Raises:
        ValueError: the folder is a dataset or lies in one.
    """
    for folder in (out.resolve(), *out.resolve().parents):
        if (folder / MANIFEST).exists() and (folder / "zarr.json").exists():
            raise ValueError(f"{out} is in the dataset {folder}, which holds nothing else; choose a folder outside it")
