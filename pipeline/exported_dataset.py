"""Networks as graphs, for PyTorch Geometric: this file needs torch and torch_geometric, and nothing else.

    import sys; sys.path.append("FOLDER")              # the folder this file lies in
    from dataset import Graphs

    graphs = Graphs()                                  # or Graphs(y="train_loss", columns=["epoch", "config.l2"])
    graphs[0].x, graphs[0].edge_index, graphs[0].edge_attr, graphs[0].y, graphs[0].graph_id

Reads   contents.json and graphs-*.pt beside it: plain tensors, loaded with weights_only=True and memory-mapped
Writes  nothing

``x``              float32 ``[num_nodes, 15]``: node kind (one-hot, 12); depth from the input and to the output, 0 to 1;
                   rank among inputs, outputs, positions or tokens, 0 to 1, and -1 for hidden nodes
``edge_index``     int64 ``[2, num_edges]``: source above target
``edge_attr``      float32 ``[num_edges, 38]``: the edge's weight, or the constant of an edge without one; 1 where that
                   is minus infinity; tap (3); site read (7) and written (7); edge kind (one-hot, 19)
``edge_geometry``  float32 ``[num_edges, 18]``: kernel size, stride, padding, dilation, output padding, map size
``edge_chain``, ``node_chain``  int64 ``[.., 8]``: operations before an edge, and at a node; 0 after the last
``edge_kind``, ``node_kind``    int64
``value_index``    int64 ``[num_edges]``: place of the weight in the joined state dict, below 0 where an edge has none
``y``              float32 ``[1]``: the label; NaN where it is not known, missing where no graph has one
"""

import copy
import json
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch_geometric.data import Data, Dataset

NO_VALUE = -(2**62)
TABLES = ("x", "edge_attr", "edge_geometry", "edge_chain", "node_chain")
INTEGERS = ("edge_index", "edge_kind", "node_kind")


class GraphData(Data):
    """A ``Data`` that joins rightly in a batch: ``value_index`` then points into the joined weights of all graphs."""

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        if key == "value_index":
            return max(int(value.max()) + 1, 0)
        return super().__inc__(key, value, *args, **kwargs) if key == "edge_index" else 0

    def __cat_dim__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        return 1 if key == "edge_index" else 0


class Graphs(Dataset):
    """The graphs of the folder; ``y`` is a column of numbers, and ``columns`` are attached under their own names."""

    def __init__(
        self,
        folder: str | Path = Path(__file__).parent,
        y: str | None = None,
        columns: Sequence[str] = (),
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(transform=transform)
        self.folder, self.attached = Path(folder).absolute(), tuple(columns)
        self.contents = json.loads((self.folder / "contents.json").read_text(encoding="utf-8"))
        self.label = y or self.contents["label"]
        for name in (*self.attached, *([self.label] if self.label else [])):
            if name not in self.contents["columns"]:
                raise ValueError(f"{self.folder}: no column {name!r}; there are {', '.join(self.contents['columns'])}")
        self.firsts = [0, *accumulate(self.contents["num_graphs"])]

    def len(self) -> int:
        return self.firsts[-1]

    def get(self, idx: int) -> GraphData:
        number = bisect_right(self.firsts, idx) - 1
        path, place = str(self.folder / f"graphs-{number:05d}.pt"), idx - self.firsts[number]
        file = read_file(path)
        data = copy.copy(read_template(path, int(file["template"][place])))
        values = file["values"][file["offset"][place] : file["offset"][place + 1]]
        edge_attr, carrying = data["edge_attr"].clone(), data.value_index >= 0
        edge_attr[carrying, 0] = values[data.value_index[carrying]]
        data.edge_attr = edge_attr
        for name in ("graph_id", *self.attached):
            entry = file["columns"][name][place]
            data[name] = entry[None].clone() if isinstance(entry, torch.Tensor) else entry
        if self.label:
            data.y = file["columns"][self.label][place, None].float()
        return data


@lru_cache(maxsize=64)
def read_file(path: str) -> dict[str, Any]:
    """One file, its tensors left on disk until they are asked for."""
    return torch.load(path, weights_only=True, mmap=True)


@lru_cache(maxsize=64)
def read_template(path: str, number: int) -> GraphData:
    """What graphs of one architecture have in common: everything but the weights."""
    stored = read_file(path)["templates"][number]
    data = GraphData()
    for name in TABLES:
        data[name] = stored[name]["rows"][stored[name]["index"].long()]
    for name in INTEGERS:
        data[name] = stored[name].long()
    places = stored["value_index"].long()
    data.value_index = torch.where(places < 0, NO_VALUE, places)
    return data
