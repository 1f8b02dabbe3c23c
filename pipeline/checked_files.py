"""What a reader believes of a parameter-graph dataset: the manifest, and what is as the manifest says.

Reads   manifest.json, and the other files, each compared with it
Writes  nothing

A reader believes only the manifest: what it does not name does not exist, and what it names is compared with its size
and SHA-256 before anything in it is believed. The manifest itself must be, to the byte, the text its own numbers give.
"""

import errno
import json
from pathlib import Path
from typing import Any

from pipeline.dataset_manifest import (
    DTYPES,
    FORMAT,
    MANIFEST,
    MAX_PARTS,
    SHARD_FLOATS,
    VERSION,
    Addition,
    Manifest,
    PartRecord,
    TableRecord,
    files_of,
    five_digits,
)
from pipeline.file_records import FileRecord, sha256
from pipeline.places import Place, place

REBUILD = "python -m pipeline graphs --zoo ZOO --out NEW"
"""The command that makes a dataset."""
RESTORE = f"restore the file from a copy, or build the dataset anew: {REBUILD}"
"""What to do about a damaged file."""
MISSING = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


class CheckedFiles:
    """The files of a dataset, each compared with the manifest when it is first read in this process."""

    def __init__(self, root: Place, manifest: Manifest) -> None:
        self._name = str(root)
        self.manifest = manifest
        self._checked: set[str] = set()

    @property
    def root(self) -> Place:
        """Where the dataset lies: made anew each time, since the connection of an object store does not survive a
        fork."""
        return place(self._name)

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            ValueError: it is missing, or not the file the manifest names.
        """
        path, expected = self.root / name, self.manifest.files[name]
        try:
            size = path.stat().st_size
            if size == expected.size:  # else it may be larger than the memory
                content = path.read_bytes()
                size = len(content)
        except OSError as error:
            if not isinstance(error, MISSING) and error.errno != errno.ELOOP:
                raise  # the disk or the network failed, which says nothing of the file
            raise ValueError(f"{path}: missing; {RESTORE}") from error
        if size != expected.size:
            raise ValueError(f"{path}: {size} bytes, {expected.size} were written; {RESTORE}")
        if name not in self._checked and sha256(content) != expected.sha256:
            raise ValueError(f"{path}: altered, its SHA-256 is not the manifest's; {RESTORE}")
        self._checked.add(name)
        return content


def read_manifest(root: Place) -> Manifest:
    """The manifest of the dataset at ``root``.

    Raises:
        ValueError: there is no dataset, an unfinished one, one of another version, or the manifest was altered.
    """
    path = root / MANIFEST
    if not path.is_file():
        if path.exists():
            raise ValueError(f"{path}: not a file; {RESTORE}")
        if (root / "zarr.json").is_file():
            raise ValueError(
                f"{root}: this dataset is not finished; run the python -m pipeline graphs that makes it again"
            )
        raise ValueError(f"{root}: no parameter-graph dataset here ({MANIFEST} is missing); make one: {REBUILD}")
    text = path.read_bytes()
    document = _parse(path, text)
    try:
        manifest = _manifest(document)
        expected = manifest.text().encode()
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: not a manifest of version {VERSION}: {type(error).__name__}: {error}") from error
    if text != expected:
        raise ValueError(f"{path}: its digest does not fit its text; the file was altered; {RESTORE}")
    _check_counts(path, manifest)
    return manifest


def _parse(path: Place, text: bytes) -> dict[str, Any]:
    """The JSON, once its format and version are known to be ours."""
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error}); the file was altered or cut short; {RESTORE}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"{path}: not the manifest of a parameter-graph dataset (format {FORMAT!r})")
    if document.get("version") != VERSION:
        raise ValueError(
            f"{path}: the dataset has version {document.get('version')!r:.80}, this program reads version {VERSION}; "
            f"build it anew: {REBUILD}"
        )
    return document


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no number of JSON")


def _manifest(document: dict[str, Any]) -> Manifest:
    if document["dtype"] not in DTYPES:
        raise ValueError(f"dtype is {document['dtype']!r:.80}, expected one of {', '.join(DTYPES)}")
    if len(document["parts"]) > MAX_PARTS:
        raise ValueError(f"{len(document['parts'])} parts, at most {MAX_PARTS}")
    return Manifest(
        dtype=document["dtype"],
        options=_object(document["options"]),
        additions=tuple(
            Addition(
                num_tables=_count(addition["num_tables"]),
                num_left_out=_count(addition["num_left_out"]),
                made_of=_made_of(addition["made_of"]),
            )
            for addition in document["additions"]
        ),
        tables=tuple(
            TableRecord(**{name: _count(number) for name, number in table.items()}) for table in document["tables"]
        ),
        parts=tuple(
            PartRecord(**{name: _count(number) for name, number in part.items()}) for part in document["parts"]
        ),
        files={
            str(name): FileRecord(size=_count(record["size"]), sha256=str(record["sha256"]))
            for name, record in document["files"].items()
        },
    )


def _count(number: object) -> int:
    if type(number) is not int or number < 0:
        raise ValueError(f"found {number!r:.80} where a count belongs")
    return number


def _object(document: object) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise ValueError(f"found {document!r:.80} where an object belongs")
    return document


def _made_of(document: object) -> dict[str, Any]:
    made_of = _object(document)
    _object(made_of.get("sources", {}))
    return made_of


def _check_counts(path: Place, manifest: Manifest) -> None:
    """Refuse a manifest whose files are not those its counts give: nothing missing, no ``..``, nothing absurd."""
    num_files = len(manifest.files)
    if sum(part.num_values for part in manifest.parts) > num_files * SHARD_FLOATS:
        raise ValueError(f"{path}: its parts have more values than {num_files} files can hold")
    for number, part in enumerate(manifest.parts):
        if not 1 <= part.num_graphs <= part.num_values:
            raise ValueError(f"{path}: the counts of part {five_digits(number)} do not fit together: {part}")
    for inner, outer, noun in (
        (len(manifest.tables), [addition.num_tables for addition in manifest.additions], "tables"),
        (len(manifest.parts), [table.num_parts for table in manifest.tables], "parts"),
    ):
        if min(outer, default=0) < 1 or sum(outer) != inner:
            raise ValueError(f"{path}: it counts {inner} {noun} as {outer[:5]}, which do not fit together")
    for number, table in enumerate(manifest.tables):
        if table.num_templates > sum(manifest.parts[part].num_graphs for part in manifest.parts_of(number)):
            raise ValueError(f"{path}: the counts of table {five_digits(number)} do not fit together: {table}")
    expected = set(files_of(manifest))
    if wrong := sorted(expected ^ set(manifest.files)):
        verb = "does not name" if wrong[0] in expected else "names"
        raise ValueError(f"{path}: {verb} {wrong[0]!r:.200}; by its counts there are {len(expected)} files")


def refuse_inside_dataset(out: Path) -> None:
    """Keep results out of datasets, whose files are those their manifest names.

    Raises:
        ValueError: the folder is a dataset or lies in one.
    """
    for folder in (out.resolve(), *out.resolve().parents):
        if (folder / MANIFEST).exists() and (folder / "zarr.json").exists():
            raise ValueError(f"{out} is in the dataset {folder}, which holds nothing else; choose a folder outside it")
