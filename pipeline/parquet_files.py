"""Reading Parquet, and choosing rows, on one thread.

Reads   a file, or bytes in memory
Writes  nothing

Arrow reads on a pool of threads by default, and a process that ends while they are alive aborts now and then, saying
"terminate called without an active exception": seen with pyarrow 26.0.1 beside torch 2.13.0 in many runs of a
command that does little else. For the same reason tables are filtered by masks and sorted by indices, never by
expressions, which run on that pool. Our tables are small: one thread costs nothing.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int64
from pyarrow import acero

from pipeline.places import Place, is_local

ROW = " row"
"""A name that no column has, for the number of a row while a table is filtered."""


def read_table(source: Place | pa.BufferReader, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of a Parquet file, or some of its columns.

    Raises:
        pyarrow.ArrowException: it is no Parquet file, or has no such column.
        OSError: it cannot be read.
    """
    if not isinstance(source, pa.BufferReader) and not is_local(source):
        source = pa.BufferReader(source.read_bytes())
    with pq.ParquetFile(source) as file:
        return file.read(columns=None if columns is None else list(columns), use_threads=False)


def equal(column: pa.ChunkedArray, value: str) -> pa.Array:
    """Where a column holds a value: a mask for ``Table.filter``."""
    return pa.array(column.to_numpy() == value)


def where(table: pa.Table, expression: pc.Expression) -> Int64[np.ndarray, " num_found"]:
    """The rows of a table that an expression holds for, on this thread.

    Raises:
        pyarrow.ArrowException: it cannot be asked of this table.
    """
    numbered = table.append_column(ROW, pa.array(np.arange(table.num_rows)))
    plan = acero.Declaration.from_sequence(
        [
            acero.Declaration("table_source", acero.TableSourceNodeOptions(numbered)),
            acero.Declaration("filter", acero.FilterNodeOptions(expression)),
            acero.Declaration("project", acero.ProjectNodeOptions([pc.field(ROW)])),
        ]
    )
    return plan.to_table(use_threads=False)[0].to_numpy().astype(np.int64)
