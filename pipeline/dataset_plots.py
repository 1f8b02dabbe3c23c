"""To come."""

from pathlib import Path

from pipeline.graph_store import GraphDataset


def plot_dataset(dataset: GraphDataset, file: Path) -> None:
    """To come."""
