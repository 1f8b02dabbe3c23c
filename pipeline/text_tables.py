"""Tables written as text, as people keep labels in them, and the types of their columns.

Reads   a .csv file, or one that is compressed (.csv.gz), at any place   `read_text_table`
Writes  nothing

Read by the standard library, on one thread (pipeline.parquet_files says why not by Arrow). Equal cells share memory:
the tables of published zoos have millions, and few different ones.
"""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Mapping, Sequence

import pyarrow as pa

from pipeline.places import Place

TextTable = Mapping[str, Sequence[str]]
"""Columns by name, all of the same length: the cells as they are written."""

WHOLE = re.compile(r"[+-]?[0-9]{1,19}")
NUMBER = re.compile(r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|nan|inf|infinity)", re.IGNORECASE)
INT64 = range(-(2**63), 2**63)


def read_text_table(path: Place) -> dict[str, list[str]]:
    """The columns of a csv file whose first line names them; a column without a name, as pandas writes one, is dropped.

    Raises:
        ValueError: it is no such file, a name stands there twice, or a row has more or fewer cells than names.
    """
    try:
        content = path.read_bytes()
        raw = gzip.GzipFile(fileobj=io.BytesIO(content)) if path.name.endswith(".gz") else io.BytesIO(content)
        return _read_columns(io.TextIOWrapper(raw, encoding="utf-8-sig", newline=""))
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        reason = f"cannot be read ({error.strerror or type(error).__name__})"
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        reason = f"is no whole gzip file ({' '.join(str(error).split())})"
    except UnicodeDecodeError:
        reason = "is not text in UTF-8"
    except (csv.Error, ValueError) as error:
        reason = str(error)
    raise ValueError(
        f"{path}: {reason}; expected a csv file in UTF-8, cells separated by commas, the names of its columns in the "
        "first line"
    )


def _read_columns(text: io.TextIOWrapper) -> dict[str, list[str]]:
    rows = csv.reader(text, strict=True)
    names = next((row for row in rows if row), None)
    if names is None:
        raise ValueError("is empty")
    names = [name.strip() for name in names]
    if again := [name for place, name in enumerate(names) if name in names[:place]]:
        raise ValueError(f"column {again[0]!r} is there twice")
    columns: list[list[str]] = [[] for _ in names]
    known: dict[str, str] = {}
    for row in rows:
        if row and len(row) != len(names):
            raise ValueError(f"line {rows.line_num} has {len(row)} cells for {len(names)} columns")
        for column, cell in zip(columns, row, strict=False):
            column.append(known.setdefault(cell, cell))
    return {name: column for name, column in zip(names, columns, strict=True) if name}


def typed(cells: Sequence[str | None]) -> pa.Array:
    """A column as int64 if all its cells are whole numbers, as float64 if all are numbers, else as text; no cell, or an
    empty one, is null."""
    parsed = {cell: cell.strip() for cell in set(cells) if cell and cell.strip()}
    texts = parsed.values()
    if texts and all(WHOLE.fullmatch(text) and int(text) in INT64 for text in texts):
        return pa.array([int(parsed[cell]) if cell in parsed else None for cell in cells], type=pa.int64())
    if texts and all(map(NUMBER.fullmatch, texts)):
        numbers = {cell: float(text) for cell, text in parsed.items()}
        return pa.array([numbers.get(cell) if cell else None for cell in cells], type=pa.float64())
    return pa.array([cell if cell in parsed else None for cell in cells], type=pa.string())


def whole_number(cell: str, least: int = 0, below: int = 2**63) -> int:
    """The number of a cell.

    Raises:
        ValueError: it is no whole number of this range.
    """
    text = cell.strip()
    if not WHOLE.fullmatch(text) or not least <= int(text) < below:
        raise ValueError(f"is {cell!r}; expected a whole number from {least} on")
    return int(text)


def label(cell: str | None) -> float:
    """The number of a cell; NaN, which is "not known", where it is empty.

    Raises:
        ValueError: it is no number.
    """
    text = (cell or "nan").strip() or "nan"
    if not NUMBER.fullmatch(text):
        raise ValueError(f"is {cell!r}; expected a number, or nothing where it is not known")
    return float(text)
