"""The table of CKA values on disk: one Parquet file, format "metazoo-cka" version 1 (docs/representations.md).

    table = read_cka_table(Path("runs/digits/cka.parquet"))
    table.pair("gmn-0", "gmn-1", "debiased")      values, intervals and reasons as matrices: rows gmn-0, columns gmn-1

Reads   the file; what the networks were and how they were compared lies in its metadata
Writes  one row per pair of networks, pair of layers and estimator
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float64, Shaped

from analysis.estimates import Estimator
from pipeline.parquet_files import read_table
from pipeline.whole_files import write_file

FORMAT = "metazoo-cka"
VERSION = 1
METADATA = b"metazoo"
"""Key of our document in the metadata of the Parquet schema."""
MAKE = "python -m analysis cka"

CELL_COLUMNS = pa.schema(
    [
        ("model_a", pa.string()),
        ("layer_a", pa.string()),
        ("model_b", pa.string()),
        ("layer_b", pa.string()),
        ("estimator", pa.string()),  # biased, debiased
        ("value", pa.float64()),  # NaN where reason says why
        ("se", pa.float64()),  # jackknife over blocks of units; NaN with too few units
        ("low", pa.float64()),  # 95 % interval, not clamped
        ("high", pa.float64()),
        ("n", pa.int64()),  # samples used
        ("n_units", pa.int64()),  # independent units they belong to, before any were dropped
        ("d_a", pa.int32()),  # features of the layer
        ("d_b", pa.int32()),
        ("n_blocks", pa.int32()),  # of the jackknife; 1: no interval
        ("null_sd", pa.float64()),  # of debiased values of unrelated layers; NaN if unknown
        ("z", pa.float64()),  # value / null_sd
        ("reason", pa.string()),  # empty where there is a value
        ("n_dropped", pa.int64()),  # samples left out, because a feature was not finite
        ("sample_digest", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class ComparedNetwork:
    """One network of a table."""

    name: str
    digest: str
    """Of its representation."""
    made_of: Mapping[str, Any]
    """As in `Representation.made_of`."""
    layers: tuple[str, ...]
    readings: tuple[str, ...]
    """How each layer became one vector per sample."""
    widths: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class PairCells:
    """The cells of two networks by one estimator: rows the layers of A, columns those of B."""

    a: ComparedNetwork
    b: ComparedNetwork
    value: Float64[np.ndarray, "La Lb"]
    low: Float64[np.ndarray, "La Lb"]
    high: Float64[np.ndarray, "La Lb"]
    z: Float64[np.ndarray, "La Lb"]
    reason: Shaped[np.ndarray, "La Lb"]


@dataclass(frozen=True, kw_only=True, eq=False)
class CkaTable:
    """All cells, and what they were made of."""

    path: Path
    cells: pa.Table
    description: Mapping[str, Any]
    """Format, networks, settings, versions: the document in the file's metadata."""

    @property
    def networks(self) -> list[ComparedNetwork]:
        """In the order in which they were given."""
        return [
            ComparedNetwork(
                name=network["name"],
                digest=network["digest"],
                made_of=network["made_of"],
                layers=tuple(layer["name"] for layer in network["layers"]),
                readings=tuple(layer["reading"] for layer in network["layers"]),
                widths=tuple(layer["width"] for layer in network["layers"]),
            )
            for network in self.description["networks"]
        ]

    def pair(self, a: str, b: str, estimator: Estimator) -> PairCells:
        """The cells of two networks, ``a`` not after ``b`` in the order of the table."""
        networks = {network.name: network for network in self.networks}
        shape = len(networks[a].layers), len(networks[b].layers)
        names = ("model_a", "model_b", "estimator")
        chosen = np.logical_and.reduce(
            [self.cells[name].to_numpy() == value for name, value in zip(names, (a, b, estimator), strict=True)]
        )
        cells = self.cells.filter(pa.array(chosen))
        value, low, high, z, reason = (
            cells[name].to_numpy().reshape(shape) for name in ("value", "low", "high", "z", "reason")
        )
        return PairCells(a=networks[a], b=networks[b], value=value, low=low, high=high, z=z, reason=reason)

    def both(self, a: str, b: str) -> tuple[PairCells, PairCells]:
        """The cells of two networks by the debiased and by the biased estimator."""
        return self.pair(a, b, "debiased"), self.pair(a, b, "biased")


def write_cka_table(path: Path, pairs: Sequence[pa.Table], description: Mapping[str, Any]) -> None:
    """One file of all pairs; it appears whole or not at all."""
    document = json.dumps(dict(description), sort_keys=True, allow_nan=False)
    cells = pa.concat_tables(pairs).combine_chunks().replace_schema_metadata({METADATA: document.encode()})
    write_file(path, parquet_of(cells))


def parquet_of(table: pa.Table) -> bytes:
    """The table as one Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def read_cka_table(path: Path) -> CkaTable:
    """The table in a file.

    Raises:
        ValueError: no file, something else, or another version.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no table of CKA values here; make it with {MAKE}")
    try:
        cells = read_table(path)
        document = json.loads((cells.schema.metadata or {}).get(METADATA, b"{}"))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{path}: not a readable table of CKA values ({error}); make it again with {MAKE}") from error
    if document.get("format") != FORMAT:
        raise ValueError(f"{path}: holds something else than CKA values (format {FORMAT!r}); make them with {MAKE}")
    if document.get("version") != VERSION:
        raise ValueError(
            f"{path}: version {document.get('version')!r}; this program reads version {VERSION}: make the table again "
            f"with {MAKE}"
        )
    if cells.schema.remove_metadata() != CELL_COLUMNS:
        raise ValueError(
            f"{path}: columns are {', '.join(cells.column_names)}; expected {', '.join(CELL_COLUMNS.names)}"
        )
    return CkaTable(path=path, cells=cells, description=document)
