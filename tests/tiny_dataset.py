"""A zoo of networks that were never trained, and the dataset made of it, in a second and without a cluster."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import build_graphs, dataset_writer, graph_plan, graph_sources
from pipeline.cluster import Machine
from pipeline.graph_plan import DatasetSpec
from pipeline.graph_store import open_graphs
from pipeline.loop_trainer import Checkpoint, diverged
from pipeline.parameter_graph import GraphTemplate
from pipeline.places import Place
from pipeline.zoo import ModelSpec, ZooSpec, expand
from pipeline.zoo_store import Zoo, create_zoo, write_chunk
from tiny_zoo import tiny_spec

NUM_VALUES = 4970
"""Of the small CNN on grey images of ten classes."""
SMALL_PARTS = DatasetSpec(floats_per_part=3 * NUM_VALUES)
"""Three graphs a part."""


def write_zoo(path: Place, spec: ZooSpec, diverged_runs: Sequence[int] = (), first_diverged: int = 1) -> Zoo:
    """A finished zoo whose values and scores are random numbers; some runs diverged before a checkpoint."""
    zoo, runs = create_zoo(path, spec), expand(spec)
    for index in range(spec.num_chunks):
        checkpoints = [
            diverged(run, checkpoint, spec.images.num_test_images)
            if run.run_index in diverged_runs and checkpoint >= first_diverged
            else untrained(run, checkpoint, spec.images.num_test_images)
            for run in (runs[run_index] for run_index in spec.chunk(index))
            for checkpoint in range(len(spec.checkpoint_epochs))
        ]
        write_chunk(zoo, index, checkpoints)
    return zoo


def write_dataset(folder: Path, num_runs: int) -> Path:
    """A dataset of runs with two checkpoints each, in parts of eleven graphs, and the zoo it was made of."""
    write_zoo(folder / "zoo", tiny_spec(num_runs=num_runs))
    with pytest.MonkeyPatch.context() as monkeypatch:
        in_this_process(monkeypatch)
        build_graphs.graphs(folder / "zoo", folder / "graphs.zarr", DatasetSpec(floats_per_part=11 * NUM_VALUES))
    return folder / "graphs.zarr"


def untrained(run: ModelSpec, checkpoint: int, num_test: int) -> Checkpoint:
    """Random values and scores of one checkpoint."""
    rng = np.random.default_rng([run.run_index, checkpoint, run.config.zoo_seed])
    correct = rng.random(num_test) < 0.3
    return Checkpoint(
        run=run,
        checkpoint=checkpoint,
        step=checkpoint,
        status="ok",
        values=rng.standard_normal(NUM_VALUES).astype(np.float32),
        train_loss=float(rng.random()),
        train_accuracy=float(rng.random()),
        test_loss=float(rng.random()),
        test_accuracy=float(correct.mean()),
        correct=correct,
    )


def in_this_process(monkeypatch: pytest.MonkeyPatch, order: Callable[[list[Any]], list[Any]] = list) -> None:
    """Have the job run its tasks here, one after another in some order, instead of on a cluster; and have a table for
    each part of three graphs, so that small datasets have several of everything."""

    def run_tasks(
        function: Callable[..., Any], items: Sequence[Any], shared: Sequence[Any], machine: Machine, noun: str
    ) -> Iterator[tuple[Any, Any]]:
        for item in order(list(items)):
            yield item, function(item, *shared)

    monkeypatch.setattr(graph_plan, "ROWS_PER_TABLE", 3)
    monkeypatch.setattr(dataset_writer, "cluster", nullcontext)
    monkeypatch.setattr(dataset_writer, "run_tasks", run_tasks)


def known_templates(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing traced, which takes seconds: the architectures of tiny zoos are those of the tiny dataset."""
    graphs = open_graphs(dataset)
    digests = dict(zip(*(graphs.table[name].to_pylist() for name in ("architecture", "template")), strict=True))

    def look_up(rows: pa.Table, files: object) -> dict[str, GraphTemplate]:
        return {text: graphs.templates[digests[text]] for text in rows["architecture"].unique().to_pylist()}

    monkeypatch.setattr(graph_sources, "trace_architectures", look_up)


def content(folder: Place) -> dict[str, bytes]:
    """Every file below a folder, by its path in it."""
    folder = Path(str(folder))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@cache
def make_tiny_dataset(folder: Path) -> Path:
    """Five runs of three checkpoints, the last two of run 3 diverged: 13 graphs in 5 parts; its zoo lies beside it.

    It is made once in a folder for all tests, which copy it to change it.
    """
    folder = folder / "tiny"
    write_zoo(folder / "zoo", tiny_spec(checkpoint_epochs=(0, 1, 2)), diverged_runs=[3])
    with pytest.MonkeyPatch.context() as monkeypatch:
        in_this_process(monkeypatch)
        build_graphs.graphs(folder / "zoo", folder / "graphs.zarr", SMALL_PARTS)
    return folder / "graphs.zarr"
