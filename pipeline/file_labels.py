"""What is known of files beside what is in them: by their paths, and by a table of labels.

Reads   nothing: paths and a table that was read (pipeline.text_tables)
Writes  nothing

A path gives cells by the named groups of a regular expression, a table by its columns. The names ``run_id``, ``unit``,
``epoch``, ``step``, losses and accuracies mean what they mean everywhere; ``arguments.<name>`` is an argument of the
network's factory; all others become columns of their name.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.source_tables import LABELS, LeftOut
from pipeline.text_tables import TextTable, label, whole_number

Cells = Mapping[str, str | None]
"""What is known of one file, as it is written."""

ARGUMENT = "arguments."
CONFIG = "config."
TAKEN = (
    *("graph_id", "checkpoint", "template", "family", "file_offset", "length", "values_sha256", "architecture"),
    *("part", "offset", "file", "width", "depth"),
)
"""Columns that datasets make themselves; and names that begin with split are of splits (docs/stores.md)."""


@dataclass(frozen=True, kw_only=True)
class LabelTable:
    """Labels that somebody wrote, one row for each file or run."""

    name: str
    """Of the file, for errors."""
    columns: TextTable

    def __post_init__(self) -> None:
        key = "file" if "file" in self.columns else "run_id"
        if key not in self.columns:
            raise ValueError(
                f"{self.name}: its columns are {', '.join(self.columns)}; expected one named file (the path of each "
                "file below the folder) or run_id"
            )
        _check_names(self.name, [name for name in self.columns if name != "file"])
        for number, row in enumerate(self.rows, start=1):
            if wrong := _wrong(row) or (_wrong_path(row["file"] or "") if "file" in row else None):
                raise ValueError(f"{self.name}: row {number} after the names: {wrong}")

    @property
    def rows(self) -> list[Cells]:
        return [dict(zip(self.columns, cells, strict=True)) for cells in zip(*self.columns.values(), strict=True)]


@dataclass(frozen=True, kw_only=True)
class LabelledFiles:
    """Files and what is known of each."""

    cells: Mapping[str, Cells]
    """By the path below the folder."""
    left_out: tuple[LeftOut, ...]
    """Files of which too little is known, and labels of files that are not there."""


def label_files(files: Sequence[str], labels: LabelTable | None, path_pattern: re.Pattern[str] | None) -> LabelledFiles:
    """The cells of every file, by its path and the row that belongs to it.

    A row belongs to the file that it names. If the table has no column ``file``, it belongs to the files of its
    ``run_id``, and if both it and the path say an ``epoch``, to those of the same.

    Raises:
        ValueError: two rows belong to the same file, or table and path both give a column.
    """
    left_out: list[LeftOut] = []
    cells: dict[str, Cells] = {}
    for file in files:
        groups, wrong = _groups(file, path_pattern)
        if wrong:
            left_out.append(refused(default_run(file), 0, f"{file}: {wrong}"))
        else:
            cells[file] = groups
    if labels is None:
        return LabelledFiles(cells=cells, left_out=tuple(left_out))
    groups = list(path_pattern.groupindex) if path_pattern else []
    keys = ("file",) if "file" in labels.columns else ("run_id", *(["epoch"] if _both("epoch", labels, groups) else []))
    if twice := [name for name in labels.columns if name in groups and name not in keys]:
        raise ValueError(f"{labels.name}: both it and the pattern for paths give {twice[0]!r}; leave it out of one")
    row_of = _rows_by_key(labels, keys)
    joined: dict[str, Cells] = {}
    used: set[tuple[str, ...]] = set()
    for file, known in cells.items():
        key = _key({"file": file, "run_id": default_run(file), **known}, keys)
        if key in row_of:
            joined[file] = {**row_of[key], **known}
            used.add(key)
        else:
            run_id, _, epoch = identity(file, known)
            left_out.append(refused(run_id, epoch, f"{file}: the labels have no row for it; add one"))
    for key, row in row_of.items():
        if key not in used:
            run_id, _, epoch = identity(row.get("file") or "", row)
            what = " ".join(f"{name} {part}" for name, part in zip(keys, key, strict=True))
            left_out.append(refused(run_id, epoch, f"{what}: the labels have a row for it, and there is no such file"))
    return LabelledFiles(cells=joined, left_out=tuple(left_out))


def identity(file: str, cells: Cells) -> tuple[str, str, int]:
    """The run, the unit and the epoch of a file: as said, else the path without its suffix, the run, and 0."""
    run_id = cells.get("run_id") or default_run(file)
    return run_id, cells.get("unit") or run_id, whole_number(cells.get("epoch") or "0")


def default_run(file: str) -> str:
    """The path without its suffix."""
    return PurePosixPath(file).with_suffix("").as_posix() if file else ""


def refused(run_id: str, epoch: int, detail: str) -> LeftOut:
    """A file that cannot be taken."""
    return LeftOut(graph_id=f"{run_id}@{epoch}", reason="refused", detail=detail)


def read_path_pattern(text: str | None) -> re.Pattern[str] | None:
    """The regular expression for paths.

    Raises:
        ValueError: it is none, it names no group, or one by a name that is taken.
    """
    if text is None:
        return None
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ValueError(f"path_pattern is {text!r}, no regular expression: {error}") from error
    if not pattern.groupindex:
        raise ValueError(f"path_pattern is {text!r}; expected named groups, such as (?P<image_class>[0-9])")
    _check_names("path_pattern", list(pattern.groupindex))
    return pattern


def _groups(file: str, path_pattern: re.Pattern[str] | None) -> tuple[Cells, str | None]:
    """What a path says, and what is wrong with it."""
    if path_pattern is None:
        return {}, None
    found = path_pattern.search(file)
    if found is None:
        return {}, f"path_pattern {path_pattern.pattern!r} does not match its path"
    return found.groupdict(), _wrong(found.groupdict())


def _check_names(origin: str, names: Sequence[str]) -> None:
    """Refuse names of columns that datasets make themselves, and two that would become one column."""
    for name in names:
        if name in (*TAKEN, ARGUMENT, CONFIG) or name.startswith("split"):
            raise ValueError(f"{origin}: the name {name!r} is taken; give the column another one")
        if name == f"{ARGUMENT}input_shape":
            raise ValueError(f"{origin}: {name}: the shape of the input is the same for all; leave the column out")
        if name.startswith(ARGUMENT) and CONFIG + name.removeprefix(ARGUMENT) in names:
            raise ValueError(
                f"{origin}: {name} is kept as {CONFIG}{name.removeprefix(ARGUMENT)}, which is there too; leave one out"
            )


def _wrong(cells: Cells) -> str | None:
    """What is wrong with the cells whose meaning is known."""
    for name in ("run_id", "unit"):
        if name in cells and not (cells[name] or "").strip():
            return f"{name} is empty; expected a name"
    try:
        for name in ("epoch", "step"):
            if name in cells:
                whole_number(cells[name] or "", below=2**31 if name == "epoch" else 2**63)
        for name in LABELS:
            label(cells.get(name))
    except ValueError as error:
        return f"{name} {error}"
    return None


def _wrong_path(file: str) -> str | None:
    path = PurePosixPath(file)
    if not file or path.is_absolute() or ".." in path.parts or file.endswith("/"):
        return f"file is {file!r}; expected a path below the folder, such as runs/7/last.pt"
    return None


def _both(name: str, labels: LabelTable, groups: Sequence[str]) -> bool:
    return name in labels.columns and name in groups


def _key(cells: Cells, keys: Sequence[str]) -> tuple[str, ...]:
    """What a row and its file have in common."""
    written = {"file": lambda text: str(PurePosixPath(text)), "epoch": lambda text: str(whole_number(text))}
    return tuple(written.get(name, str)(cells[name] or "") for name in keys)


def _rows_by_key(labels: LabelTable, keys: Sequence[str]) -> dict[tuple[str, ...], Cells]:
    first: dict[tuple[str, ...], int] = {}
    rows = labels.rows
    for number, row in enumerate(rows, start=1):
        key = _key(row, keys)
        if key in first:
            what = " and ".join(f"{name} {part!r}" for name, part in zip(keys, key, strict=True))
            raise ValueError(
                f"{labels.name}: rows {first[key]} and {number} after the names both have {what}; keep one"
            )
        first[key] = number
    return {key: rows[number - 1] for key, number in first.items()}
