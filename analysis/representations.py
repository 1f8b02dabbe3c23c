"""The layers of a metanetwork on the graphs of a dataset, sample by sample.

    python -m analysis represent --checkpoint runs/digits/gmn-0/last.ckpt --graphs runs/digits/graphs.zarr \\
        --out runs/digits/representations/gmn-0

Reads   a checkpoint (training.tasks) and a dataset of graphs (pipeline.graph_store)
Writes  one representation (analysis.representation_store): a sample is a graph, its unit the run it belongs to

A layer is read as the network's own ``representations`` reads it; beside them lies the raw input, ``input``: the values
of the graph, where those of all graphs are laid out alike, so that a place in the vector means the same in each.
"""

from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float32, Int64

from analysis.representation_store import DOCUMENT, open_representation, write_representation
from pipeline.file_records import sha256
from pipeline.graph_store import GraphDataset, open_graphs
from pipeline.progress import progress_bar
from training.epoch_plan import PlanSettings, plan_evaluation
from training.gmn import GraphMetanetwork
from training.graph_batch import batch_graphs

INPUT = "input"
READINGS = {
    "nodes": "mean over nodes",
    "edges": "mean over edges, each block counting alike",
    "graph": "the network's vector of the graph, before the head",
    "output": "what the head makes of it",
    INPUT: "all values of the graph, as they are",
}
"""In words, by the last part of a layer's name."""


def represent(
    checkpoint: Path,
    graphs: Path,
    out: Path,
    split: str = "test",
    epochs: list[int] | None = None,
    untrained_seed: int | None = None,
    values_per_batch: int = 500_000,
    device: str = "cpu",
) -> None:
    """Store every layer of a metanetwork for the graphs of a split.

    Args:
        checkpoint: of the metanetwork, written by ``python -m training fit``.
        graphs: a dataset made by ``python -m pipeline graphs``.
        out: folder of the representation; its name is the network's in tables and pictures. An older one is replaced.
        split: graphs to use.
        epochs: checkpoints to use, by their epoch; all if left out. With a single one, samples are independent runs.
        untrained_seed: use fresh weights drawn from this seed, on the checkpoint's scales: the untrained twin.
        values_per_batch: graphs run together while their values add up to at most this; bounds memory.
        device: where the network runs.
    """
    from training.tasks import load_task  # imports Lightning

    network = load_task(checkpoint).network
    dataset = open_graphs(graphs)
    chosen = dataset.split(split)
    rows = rows_of_epochs(chosen, epochs)
    made_of = {
        "checkpoint": sha256(checkpoint.read_bytes()),
        "weights": "trained" if untrained_seed is None else f"untrained, seed {untrained_seed}",
        "settings": asdict(network.settings),
        "graphs": dataset.files.manifest.digest,
        "split": split,
        "epochs": "all" if epochs is None else epochs,
    }
    if is_made_of(out, made_of):
        print(f"Nothing to do: {out} is this representation already.")
        return
    if untrained_seed is not None:
        network = untrained(network, untrained_seed)
    batches = layer_batches(network, chosen, rows, values_per_batch, device)
    first = next(batches)
    table = chosen.table.take(rows)
    stored = write_representation(
        out,
        made_of,
        readings={name: READINGS[name.rpartition(".")[2]] for name in first},
        samples=pa.table({"sample_id": table["graph_id"], "unit": table["unit"]}),
        batches=chain([first], batches),
    )
    num_units = len(table["unit"].unique())
    print(f"wrote {out}: {len(stored.layers)} layers of {stored.network} for {len(rows)} graphs of {num_units} runs")
    if INPUT not in first:
        print("The raw input is left out: the graphs have different tensors, and no common order of values.")


def rows_of_epochs(dataset: GraphDataset, epochs: list[int] | None) -> Int64[np.ndarray, " n"]:
    """The rows of these checkpoints.

    Raises:
        ValueError: there are none of some epoch.
    """
    epoch = dataset.table["epoch"].to_numpy()
    for missing in (wanted for wanted in epochs or [] if wanted not in epoch):
        found = ", ".join(map(str, sorted(set(epoch.tolist()))))
        raise ValueError(f"{dataset.files.root}: no checkpoint of epoch {missing} in this split; found {found}")
    return np.flatnonzero(np.isin(epoch, epoch if epochs is None else epochs))


def is_made_of(path: Path, made_of: dict[str, Any]) -> bool:
    """Whether this very representation is there, whole.

    Raises:
        ValueError: something is there that is not a representation, and so is not ours to replace.
    """
    if not path.exists():
        return False
    if not (path / DOCUMENT).is_file():
        raise ValueError(f"{path} exists and is not a representation; choose another folder")
    try:
        return open_representation(path).made_of == made_of
    except ValueError:  # damaged, or of another version: to be made again
        return False


def untrained(network: GraphMetanetwork, seed: int) -> GraphMetanetwork:
    """A network of the same shape with fresh weights, and the same scales of its inputs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        twin = GraphMetanetwork(network.settings, network.head.out_features)
    buffers = dict(network.named_buffers())
    for name, buffer in twin.named_buffers():
        buffer.copy_(buffers[name])
    return twin.eval()


def layer_batches(
    network: GraphMetanetwork,
    dataset: GraphDataset,
    rows: Int64[np.ndarray, " n"],
    values_per_batch: int,
    device: str,
) -> Iterator[dict[str, Float32[np.ndarray, "b _"]]]:
    """Every layer for one batch of graphs after the other, in the order of ``rows``, with a progress bar."""
    size = dataset.table["length"].to_numpy().astype(np.int64)
    templates = dataset.table["template"].take(rows).unique().to_pylist()
    tensors = dataset.templates[templates[0]].tensors
    laid_out_alike = all(dataset.templates[digest].tensors == tensors for digest in templates)
    settings = PlanSettings(values_per_micro_batch=values_per_batch, micro_batches_per_step=1)
    network = network.to(device)
    with progress_bar("representing", "graphs", len(rows)) as bar:
        for micro_batch in plan_evaluation(size, rows, settings).micro_batches:
            graphs = [dataset[row] for row in micro_batch.rows.tolist()]
            with torch.inference_mode():
                layers = network.representations(batch_graphs(graphs).to(device))
            batch = {INPUT: np.stack([graph.values for graph in graphs])} if laid_out_alike else {}
            batch |= {name: features.float().cpu().numpy() for name, features in layers.items()}
            bar.update(len(graphs))
            yield batch
