"""What a dataset is made from: the rows of finished zoos, and the template of each architecture in them.

Reads   the chunks of zoos, each compared with its digests (pipeline.zoo_store)
Writes  nothing
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float32
from torch import nn

from pipeline.architectures import Architecture
from pipeline.file_records import sha256
from pipeline.parameter_graph import GraphTemplate
from pipeline.parquet_files import equal
from pipeline.progress import progress_bar
from pipeline.symmetry import check
from pipeline.tracing import trace
from pipeline.zoo_store import Zoo, damaged, finished_chunks, half_accuracies, open_zoo, read_chunk


@dataclass(frozen=True, kw_only=True, eq=False)
class ZooRows:
    """The checkpoints of some zoos that have values."""

    table: pa.Table
    """The zoos' rows with status ``ok`` (pipeline.zoo_store), and ``test_accuracy_half_a``, ``test_accuracy_half_b``
    and ``chunk``, an index into ``chunks``."""
    chunks: tuple[Path, ...]
    """The values.npy of every chunk of every zoo."""
    num_diverged: int
    """Rows that were left out."""

    def values(self, row: int) -> Float32[np.ndarray, " num_values"]:
        """The values of one row."""
        chunk, offset, length = (self.table[name][row].as_py() for name in ("chunk", "offset", "length"))
        return np.array(np.load(self.chunks[chunk], mmap_mode="r")[offset : offset + length])


def finished_zoos(paths: Sequence[Path]) -> list[Zoo]:
    """The zoos at the paths, in an order that does not depend on that of the paths.

    Raises:
        ValueError: no zoo is given, one is given twice, or one is not finished.
    """
    zoos = sorted(map(open_zoo, paths), key=lambda zoo: zoo.spec.digest)
    if not zoos:
        raise ValueError("no zoo is given; expected at least one folder that python -m pipeline zoo made")
    for zoo in zoos:
        if missing := zoo.spec.num_chunks - len(finished_chunks(zoo)):
            raise ValueError(
                f"{zoo.path}: {missing} of {zoo.spec.num_chunks} chunks are not trained yet; finish the zoo first: "
                f"python -m pipeline zoo --config ... --out {zoo.path}"
            )
    for first, second in pairwise(zoos):
        if first.spec.digest == second.spec.digest:
            raise ValueError(f"{first.path} and {second.path} are the same zoo; give it once")
    return zoos


def zoo_digest(zoo: Zoo) -> str:
    """Of all that was trained, without reading it: SHA-256 of the joined SHA-256s of all done.json."""
    paths = [zoo.chunk_path(index) / "done.json" for index in finished_chunks(zoo)]
    for path in paths:
        if not path.is_file():
            raise damaged(path, "is missing")
    return sha256("".join(sha256(path.read_bytes()) for path in paths).encode())


def read_zoos(zoos: Sequence[Zoo]) -> ZooRows:
    """The rows of all chunks of finished zoos.

    Raises:
        ValueError: a chunk is damaged, zoos have different columns, or no checkpoint has values.
    """
    tables: list[pa.Table] = []
    chunks: list[Path] = []
    with progress_bar("checking the zoo", "chunks", sum(zoo.spec.num_chunks for zoo in zoos)) as bar:
        for zoo in zoos:
            for index in range(zoo.spec.num_chunks):
                data = read_chunk(zoo, index)
                half_a, half_b = half_accuracies(data.correct, zoo.spec.num_tested)
                columns = {name: data.rows[name] for name in data.rows.column_names}
                columns |= {"test_accuracy_half_a": half_a, "test_accuracy_half_b": half_b}
                tables.append(pa.table(columns | {"chunk": np.full(data.rows.num_rows, len(chunks))}))
                chunks.append(zoo.chunk_path(index).resolve() / "values.npy")
                bar.update()
    everything = pa.concat_tables(tables, promote_options="default")
    table = everything.filter(equal(everything["status"], "ok"))
    if table.num_rows == 0:
        names = ", ".join(str(zoo.path) for zoo in zoos)
        raise ValueError(
            f"{names}: every network diverged ({everything.num_rows} checkpoints), so there is nothing to make graphs "
            "of; lower the learning rates of the specification and train another zoo"
        )
    return ZooRows(table=table, chunks=tuple(chunks), num_diverged=everything.num_rows - table.num_rows)


def trace_architectures(rows: ZooRows) -> dict[str, GraphTemplate]:
    """The template of every architecture by its document, checked on its network and on the values of one run.

    Raises:
        ValueError: an architecture cannot be traced, or its template or the number of values of a run is not right.
    """
    column = rows.table["architecture"].combine_chunks().dictionary_encode()
    architectures, code = column.dictionary.to_pylist(), column.indices.to_numpy()
    first = np.unique(code, return_index=True)[1]
    templates: dict[str, GraphTemplate] = {}
    with progress_bar("tracing", "architectures", len(architectures)) as bar:
        for text, row in zip(architectures, first.tolist(), strict=True):
            templates[text] = trace_architecture(text, rows.values(row))
            bar.update()
    num_values = np.array([templates[text].num_values for text in architectures])[code]
    for row in np.flatnonzero(rows.table["length"].to_numpy() != num_values)[:1].tolist():
        run, length = rows.table["run_id"][row], rows.table["length"][row]
        raise ValueError(
            f"run {run}: {length} values; its architecture {architectures[code[row]]} has {num_values[row]}"
        )
    return templates


def trace_architecture(text: str, values: Float32[np.ndarray, " num_values"]) -> GraphTemplate:
    """The template of one architecture, and the laws it must obey; ``values`` are those of any of its networks."""
    architecture = Architecture.parse(text)
    module, example_input = architecture.build(), architecture.example_input()
    try:
        template = trace(module, example_input)
        check(module, template, example_input)
        check_round_trip(module, template, values)
    except ValueError as error:
        raise ValueError(f"architecture {text}: {error}") from error
    return template


def check_round_trip(module: nn.Module, template: GraphTemplate, values: Float32[np.ndarray, " num_values"]) -> None:
    """Values -> graph -> state dict -> network -> values must be the identity, bit for bit; the network is changed."""
    module.load_state_dict(template.graph(values).state_dict())
    tensors = {tensor.data_ptr(): tensor for tensor in module.state_dict().values() if tensor.is_floating_point()}
    found = torch.cat([tensor.reshape(-1) for tensor in tensors.values()]).numpy()
    if found.tobytes() != values.tobytes():
        raise ValueError("the values of a run come back changed from its parameter graph; please report the network")
