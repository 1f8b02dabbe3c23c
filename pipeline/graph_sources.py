"""Zoos as a source of graphs: the rows of finished zoos, and the template of each architecture in them.

Reads   the chunks of zoos, each compared with its digests (pipeline.zoo_store)
Writes  nothing
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float32, Shaped
from torch import nn

from pipeline.architectures import Architecture
from pipeline.dataset_tables import LEFT_OUT_COLUMNS
from pipeline.file_records import sha256
from pipeline.graph_source import SOURCE_COLUMNS, GraphSource, NpyFile, values_sha256
from pipeline.parameter_graph import GraphTemplate
from pipeline.places import Place
from pipeline.progress import progress_bar
from pipeline.symmetry import check
from pipeline.template_document import write_document
from pipeline.tracing import trace
from pipeline.zoo_rows import INR_COLUMNS
from pipeline.zoo_store import Zoo, damaged, finished_chunks, half_accuracies, open_zoo, read_chunk


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which checkpoints of zoos become graphs."""

    epochs: list[int] | None = None
    """Only checkpoints of these epochs (of implicit networks: steps)."""
    last: bool = False
    """Only the last checkpoint of every run."""
    diverged: Literal["keep earlier", "leave out run"] = "keep earlier"
    """Checkpoints after a run diverged have no values. Those before are kept, or the whole run is left out."""
    duplicates: Literal["leave out", "keep"] = "leave out"
    """Of graphs with the same template and the same values to the last bit, the first by graph id is kept, or all
    are; several units with the same values would stand on both sides of a split."""

    def __post_init__(self) -> None:
        if self.last and self.epochs is not None:
            raise ValueError("selection: expected epochs or last, not both")

    def document(self) -> dict[str, Any]:
        """As the manifest has it."""
        return asdict(self)

    def reason(self, rows: pa.Table) -> Shaped[np.ndarray, " rows"]:
        """Why a row of a zoo is left out; an empty string where it is not.

        Raises:
            ValueError: no row is of an epoch that is asked for.
        """
        reason = np.full(rows.num_rows, "", dtype=object)
        epoch, checkpoint = rows["epoch"].to_numpy(), rows["checkpoint"].to_numpy()
        run = rows["run_id"].combine_chunks().dictionary_encode().indices.to_numpy()
        diverged = rows["status"].to_numpy() == "diverged"
        if self.epochs is not None:
            for wanted in self.epochs:
                if wanted not in epoch:
                    raise ValueError(f"selection: no checkpoint of epoch {wanted}; found {np.unique(epoch).tolist()}")
            reason[~np.isin(epoch, self.epochs)] = "not chosen"
        if self.last:
            latest = np.zeros(run.max() + 1, dtype=checkpoint.dtype)
            np.maximum.at(latest, run, checkpoint)
            reason[checkpoint != latest[run]] = "not chosen"
        if self.diverged == "leave out run":
            diverged = np.isin(run, run[diverged])
        reason[diverged & (reason == "")] = "diverged"
        return reason


def finished_zoos(paths: Sequence[Place]) -> list[Zoo]:
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


def zoo_names(zoos: Sequence[Zoo]) -> dict[str, str]:
    """What a dataset remembers of its zoos, told without reading their chunks: a name and `zoo_digest` of each."""
    return {f"{zoo.spec.name}-{zoo.spec.digest[:8]}": zoo_digest(zoo) for zoo in zoos}


def zoo_source(zoos: Sequence[Zoo], selection: Selection = Selection()) -> GraphSource:
    """The chosen checkpoints of finished zoos.

    Raises:
        ValueError: a chunk is damaged, zoos have different columns, an architecture cannot be traced, or no checkpoint
            has values.
    """
    sources = zoo_names(zoos)
    rows, files = read_zoos(zoos)
    reason = selection.reason(rows)
    chosen = rows.filter(pa.array(reason == ""))
    if chosen.num_rows == 0:
        num_diverged = int((reason == "diverged").sum())
        advice = "; lower the learning rates of the specification and train another zoo" if num_diverged else ""
        raise ValueError(
            f"{', '.join(str(zoo.path) for zoo in zoos)}: nothing to make graphs of: of {rows.num_rows:,} checkpoints "
            f"{num_diverged:,} have no values because the run diverged, and the others are not chosen{advice}"
        )
    templates = trace_architectures(chosen, files)
    left_out = np.flatnonzero(reason != "")
    return GraphSource(
        sources=sources,
        rows=source_rows(chosen, templates, values_digests(chosen, files)),
        left_out=pa.table(
            [graph_ids(rows.take(left_out)), reason[left_out].tolist(), [""] * len(left_out)], schema=LEFT_OUT_COLUMNS
        ),
        documents={template.digest: write_document(template) for template in templates.values()},
        files=files,
    )


def graph_ids(rows: pa.Table) -> list[str]:
    """``<run id>@<epoch>``: one checkpoint of one run."""
    return [f"{run}@{epoch}" for run, epoch in zip(rows["run_id"].to_pylist(), rows["epoch"].to_pylist(), strict=True)]


def source_rows(rows: pa.Table, templates: Mapping[str, GraphTemplate], digests: Sequence[str]) -> pa.Table:
    """`SOURCE_COLUMNS` and the configuration, of the rows of zoos."""
    architectures = rows["architecture"].to_pylist()
    family = {text: Architecture.parse(text).family for text in templates}
    made = {
        "graph_id": graph_ids(rows),
        "template": [templates[text].digest for text in architectures],
        "family": [family[text] for text in architectures],
        "file": rows["chunk"],
        "file_offset": rows["offset"],
        "values_sha256": list(digests),
    }
    further = [field for field in rows.schema if field.name.startswith("config.") or field.name in INR_COLUMNS]
    schema = pa.schema([*SOURCE_COLUMNS, *further])
    return pa.table({name: made[name] if name in made else rows[name] for name in schema.names}, schema=schema)


def read_zoos(zoos: Sequence[Zoo]) -> tuple[pa.Table, tuple[NpyFile, ...]]:
    """The rows of all chunks of finished zoos, and the values.npy of each chunk.

    Beside the columns of zoos (pipeline.zoo_store) they have ``test_accuracy_half_a``, ``test_accuracy_half_b`` and
    ``chunk``, an index into the files.

    Raises:
        ValueError: a chunk is damaged.
    """
    tables: list[pa.Table] = []
    chunks: list[NpyFile] = []
    with progress_bar("checking the zoo", "chunks", sum(zoo.spec.num_chunks for zoo in zoos)) as bar:
        for zoo in zoos:
            for index in range(zoo.spec.num_chunks):
                data = read_chunk(zoo, index)
                half_a, half_b = half_accuracies(data.correct, zoo.spec.num_tested)
                columns = {name: data.rows[name] for name in data.rows.column_names}
                columns |= {"test_accuracy_half_a": half_a, "test_accuracy_half_b": half_b}
                tables.append(pa.table(columns | {"chunk": np.full(data.rows.num_rows, len(chunks))}))
                chunks.append(NpyFile.at(zoo.chunk_path(index) / "values.npy", len(data.values)))
                bar.update()
    return pa.concat_tables(tables, promote_options="default"), tuple(chunks)


def values_digests(rows: pa.Table, files: Sequence[NpyFile]) -> list[str]:
    """`values_sha256` of every row."""
    places = [rows[name].to_numpy() for name in ("chunk", "offset", "length")]
    digests = [""] * rows.num_rows
    with progress_bar("digesting", "graphs", rows.num_rows) as bar:
        for chunk in np.unique(places[0]).tolist():
            values = files[chunk].read()
            for row in np.flatnonzero(places[0] == chunk).tolist():
                offset, length = places[1][row], places[2][row]
                digests[row] = values_sha256(values[offset : offset + length])
                bar.update()
    return digests


def trace_architectures(rows: pa.Table, files: Sequence[NpyFile]) -> dict[str, GraphTemplate]:
    """The template of every architecture by its document, checked on its network and on the values of one run.

    Raises:
        ValueError: an architecture cannot be traced, or its template or the number of values of a run is not right.
    """
    column = rows["architecture"].combine_chunks().dictionary_encode()
    architectures, code = column.dictionary.to_pylist(), column.indices.to_numpy()
    first = np.unique(code, return_index=True)[1]
    templates: dict[str, GraphTemplate] = {}
    with progress_bar("tracing", "architectures", len(architectures)) as bar:
        for text, row in zip(architectures, first.tolist(), strict=True):
            chunk, offset, length = (rows[name][row].as_py() for name in ("chunk", "offset", "length"))
            templates[text] = trace_architecture(text, np.array(files[chunk].read()[offset : offset + length]))
            bar.update()
    num_values = np.array([templates[text].num_values for text in architectures])[code]
    for row in np.flatnonzero(rows["length"].to_numpy() != num_values)[:1].tolist():
        run, length = rows["run_id"][row], rows["length"][row]
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
