"""Datasets of any size for the programs beside this one: real templates, made-up values, written in this process.

Reads   runs/benchmarks/templates.json, the texts of templates that were traced before
Writes  datasets (docs/stores.md), by the plan and the writer of the real ones but without Ray; and that file
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float32
from torch import nn
from tqdm import tqdm

from benchmarks.traced_networks import WIDTHS, numbered_cnn, small_cnn
from pipeline.dataset_tables import LEFT_OUT_COLUMNS
from pipeline.dataset_writer import Task, begin, finish, tidy, write_part
from pipeline.file_records import sha256
from pipeline.graph_plan import DatasetSpec, plan_dataset
from pipeline.graph_source import SOURCE_COLUMNS, GraphSource, values_sha256
from pipeline.stored_templates import size_of
from pipeline.template_document import read_document, write_document
from pipeline.tracing import trace
from pipeline.whole_files import write_file

KEPT = Path(__file__).parents[1] / "runs" / "benchmarks" / "templates.json"
"""Tracing ten thousand networks takes ten minutes; git ignores runs/."""
KEEP_EVERY = 500
SPREAD = 0.1
"""Standard deviation of the values: that of trained weights, more or less; their mantissas are noise, as theirs are."""
NETWORKS_OF_A_RUN = 3


@dataclass(frozen=True, kw_only=True)
class DrawnValues:
    """The values of one graph, drawn anew whenever they are read: a `ValueFile` without a file."""

    seed: int
    number: int
    length: int

    def read(self) -> Float32[np.ndarray, " length"]:
        """The same each time."""
        rng = np.random.default_rng([self.seed, self.number])
        return np.float32(SPREAD) * rng.standard_normal(self.length, dtype=np.float32)


def small_document() -> str:
    """The template of the small CNN, 4,970 values."""
    return document_of(small_cnn())


def numbered_documents(count: int) -> list[str]:
    """The templates of this many distinct networks; those that were traced before are read."""
    known: dict[str, str] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    order = np.random.default_rng(0).permutation(WIDTHS**3)[:count].tolist()
    missing = [number for number in order if str(number) not in known]
    for done, number in enumerate(tqdm(missing, "tracing", disable=not missing, mininterval=2), start=1):
        known[str(number)] = document_of(numbered_cnn(number))
        if done % KEEP_EVERY == 0 or done == len(missing):
            KEPT.parent.mkdir(parents=True, exist_ok=True)
            write_file(KEPT, json.dumps(known).encode())
    return [known[str(number)] for number in order]


def document_of(module: nn.Module) -> str:
    """The text of its template."""
    return write_document(trace(module, torch.zeros(1, 1, 28, 28)))


@lru_cache(maxsize=2)
def sizes_of(documents: tuple[str, ...]) -> tuple[list[int], int]:
    """The number of values of each template, and the bytes that all take in memory, as `size_of` estimates them."""
    lengths: list[int] = []
    held = 0
    for document in documents:
        template = read_document(document)
        lengths.append(template.num_values)
        held += size_of(template)
    return lengths, held


def typical(documents: Sequence[str]) -> str:
    """The template whose number of values is nearest to the mean of all."""
    lengths = np.array(sizes_of(tuple(documents))[0])
    return documents[int(np.abs(lengths - lengths.mean()).argmin())]


def synthetic_source(documents: Sequence[str], num_graphs: int, seed: int = 0) -> GraphSource:
    """Graphs with these templates in turn, three checkpoints a run."""
    digests = [sha256(document.encode()) for document in documents]
    lengths, _ = sizes_of(tuple(documents))
    place = [number % len(documents) for number in range(num_graphs)]
    files = tuple(DrawnValues(seed=seed, number=number, length=lengths[which]) for number, which in enumerate(place))
    run, checkpoint = np.divmod(np.arange(num_graphs), NETWORKS_OF_A_RUN)
    runs = [f"{hashlib.sha256(b'synthetic').hexdigest()[:8]}-{number:06d}" for number in run.tolist()]
    labels = np.random.default_rng(seed).random((6, num_graphs))
    columns: dict[str, object] = {
        "graph_id": [f"{name}@{number}" for name, number in zip(runs, checkpoint.tolist(), strict=True)],
        "run_id": runs,
        "unit": runs,
        "epoch": checkpoint,
        "checkpoint": checkpoint,
        "step": checkpoint,
        "template": [digests[which] for which in place],
        "family": ["synthetic"] * num_graphs,
        "file": np.arange(num_graphs),
        "file_offset": np.zeros(num_graphs, dtype=np.int64),
        "length": [file.length for file in files],
        "values_sha256": [values_sha256(file.read()) for file in files],
        "architecture": [f'{{"family":"synthetic","arguments":{{"number":{which}}}}}' for which in place],
    }
    columns |= dict(zip((name for name in SOURCE_COLUMNS.names if name not in columns), labels, strict=True))
    return GraphSource(
        sources={"synthetic": sha256(f"{seed}/{num_graphs}".encode())},
        rows=pa.table({name: columns[name] for name in SOURCE_COLUMNS.names}, schema=SOURCE_COLUMNS),
        left_out=LEFT_OUT_COLUMNS.empty_table(),
        documents=dict(zip(digests, documents, strict=True)),
        files=files,
    )


def write_dataset(out: Path, documents: Sequence[str], num_graphs: int, spec: DatasetSpec = DatasetSpec()) -> Path:
    """A finished dataset of so many graphs, and its folder again."""
    source = synthetic_source(documents, num_graphs)
    task = Task(base=None, spec=spec, made_of={"sources": dict(source.sources), "selection": {}})
    plan = plan_dataset(source, spec, duplicates="keep")
    begin(out, task)
    for part in tqdm(plan.parts, f"writing {out.name}", disable=len(plan.parts) < KEEP_EVERY, leave=False):
        write_part(part, out, plan.files)
    finish(plan, out, task)
    tidy(out)
    return out
