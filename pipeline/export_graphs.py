"""Give a parameter-graph dataset away: in formats that are read without Metazoo.

    python -m pipeline export runs/digits/graphs.zarr --out runs/digits/pyg --format pyg --split train

Reads   a dataset, or one side of a split, part by part
Writes  a folder, whole or not at all:
        pyg            files of PyTorch Geometric graphs, and a dataset.py that reads them   (pipeline.export_pyg)
        safetensors    a state dict for every graph, and their labels      (pipeline.export_safetensors)
        small-cnn-zoo  the three files of the Small CNN Zoo               (pipeline.export_small_cnn_zoo)

The same dataset gives the same bytes, with the same versions of the pinned packages.
"""

from pathlib import Path
from typing import Literal

from pipeline.checked_files import refuse_inside_dataset
from pipeline.export_folder import check_free, whole_folder
from pipeline.graph_store import GraphDataset, open_graphs

Format = Literal["pyg", "safetensors", "small-cnn-zoo"]


def export(
    path: str,
    out: Path,
    format: Format,  # noqa: A002 (the name of the flag)
    split: str | None = None,
    column: str = "split",
    graphs_per_file: int = 1000,
) -> None:
    """Write a dataset in a format that is read without this program.

    Args:
        path: the dataset's folder.
        out: the folder to be made; it may be there if it is empty.
        format: pyg: files of graphs for PyTorch Geometric, and a dataset.py that reads them. safetensors: a state dict
            for every graph, and a table of labels. small-cnn-zoo: weights.npy, metrics.csv.gz and layout.csv, of small
            CNNs only.
        split: a side of a split, such as train; all graphs where it is left out.
        column: the split that ``split`` is a side of.
        graphs_per_file: of pyg: graphs in one file, at most.
    """
    if graphs_per_file < 1:
        raise ValueError(f"graphs_per_file is {graphs_per_file}; expected a number from 1 on")
    folder = out.resolve()
    refuse_inside_dataset(folder)
    check_free(folder)
    dataset = open_graphs(path)
    chosen = dataset if split is None else dataset.split(split, column)
    with whole_folder(folder) as aside:
        reading = write(chosen, aside, format, graphs_per_file)
    files = list(folder.iterdir())
    size = sum(file.stat().st_size for file in files)
    print(f"Wrote {len(chosen):,} graphs into {len(files):,} files, {size / 1e6:,.1f} MB: {out}")
    print(f"  {reading.format(out=out)}")


def write(dataset: GraphDataset, folder: Path, kind: Format, graphs_per_file: int) -> str:
    """Write the files of a format; returns how they are read, with ``{out}`` for the folder."""
    match kind:
        case "pyg":
            from pipeline.export_pyg import READING, write_pyg  # here: importing torch_geometric takes seconds

            write_pyg(dataset, folder, graphs_per_file)
        case "safetensors":
            from pipeline.export_safetensors import READING, write_safetensors

            write_safetensors(dataset, folder)
        case "small-cnn-zoo":
            from pipeline.export_small_cnn_zoo import READING, write_small_cnn_zoo

            write_small_cnn_zoo(dataset, folder)
    return READING
