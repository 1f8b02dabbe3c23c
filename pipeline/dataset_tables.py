"""The tables of a parameter-graph dataset: one row per graph, the texts of the templates, and what was left out.

Reads   Parquet files, as bytes that were compared with the manifest (`read_parquet`)
Writes  nothing: `parquet_bytes` gives the content of a file
"""

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.places import Place

GRAPH_COLUMNS = pa.schema(
    [
        ("graph_id", pa.string()),
        ("run_id", pa.string()),
        ("unit", pa.string()),
        ("epoch", pa.int32()),
        ("checkpoint", pa.int32()),
        ("step", pa.int64()),
        ("template", pa.string()),
        ("family", pa.string()),
        ("width", pa.int64()),
        ("depth", pa.int64()),
        ("part", pa.int32()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("values_sha256", pa.string()),
        ("split", pa.string()),
        ("train_loss", pa.float64()),
        ("train_accuracy", pa.float64()),
        ("test_loss", pa.float64()),
        ("test_accuracy", pa.float64()),
        ("test_accuracy_half_a", pa.float64()),
        ("test_accuracy_half_b", pa.float64()),
        ("architecture", pa.string()),
    ]
)
"""What every table has, without nulls; columns ``config.<name>`` and others may follow (docs/stores.md)."""

REPEATED_COLUMNS = ("template", "architecture")
"""Long texts that many graphs share: held once each in an open dataset (dictionary-encoded)."""

TEMPLATE_COLUMNS = pa.schema([("template", pa.string()), ("document", pa.string())])
"""The digest of a template and its text (`pipeline.template_document`)."""


LEFT_OUT_COLUMNS = pa.schema([("graph_id", pa.string()), ("reason", pa.string()), ("detail", pa.string())])
"""What is not in a dataset though it was there to be taken, and why (`pipeline.graph_source.Reason`)."""


def parquet_bytes(table: pa.Table) -> bytes:
    """The table as one Parquet file: the same bytes for the same table, with the same version of pyarrow."""
    sink = pa.BufferOutputStream()
    pq.write_table(table.combine_chunks(), sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def read_parquet(path: Place, content: bytes, columns: pa.Schema, num_rows: int) -> pa.Table:
    """The table in the content of the file ``path``, its length known beforehand; it may have more than these columns.

    Raises:
        ValueError: it is not Parquet or has another length, or a column is missing, of another type or has nulls.
    """
    try:
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            if file.metadata.num_rows != num_rows:
                raise ValueError(f"{path}: {file.metadata.num_rows} rows; the manifest says {num_rows}")
            names = file.schema_arrow.names
            if twice := [name for place_in_names, name in enumerate(names) if name in names[:place_in_names]]:
                raise ValueError(f"{path}: column {twice[0]!r} is there twice")
            found = {field.name: field.type for field in file.schema_arrow}
            for column in columns:
                if found.get(column.name) != column.type:
                    raise ValueError(
                        f"{path}: column {column.name} is {found.get(column.name)}; expected {column.type}"
                    )
            table = file.read(use_threads=False)  # why: pipeline.parquet_files
            table.validate(full=True)  # that text is UTF-8
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a readable Parquet file: {' '.join(str(error).split())}") from error
    for column in columns:
        if table[column.name].null_count:
            raise ValueError(f"{path}: column {column.name} has {table[column.name].null_count} nulls; expected none")
    return table


def without_repetition(table: pa.Table) -> pa.Table:
    """The same table, long texts that many graphs share held once each."""
    for name in REPEATED_COLUMNS:
        place = table.column_names.index(name)
        table = table.set_column(place, name, table[name].dictionary_encode())
    return table
