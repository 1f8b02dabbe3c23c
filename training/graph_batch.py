"""Many parameter graphs as one: the graphs of one template share its topology and differ in values alone.

Reads   parameter graphs            `batch_graphs`
Writes  a `GraphBatch`, which `unbatch_graphs` undoes
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from pipeline.parameter_graph import GraphTemplate, ParameterGraph


@dataclass(frozen=True, kw_only=True, eq=False)
class TemplateGroup:
    """The graphs of a batch that share one template."""

    template: GraphTemplate
    values: Float[Tensor, "graphs num_values"]
    place: Int64[Tensor, " graphs"]
    """Position of each graph in the batch."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GraphBatch:
    """Graphs of any templates, in an order of their own."""

    groups: tuple[TemplateGroup, ...]
    num_graphs: int

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "GraphBatch":
        """The same batch with its tensors on a device; this method is what Lightning looks for."""
        groups = tuple(
            replace(
                group,
                values=group.values.to(device, non_blocking=non_blocking),
                place=group.place.to(device, non_blocking=non_blocking),
            )
            for group in self.groups
        )
        return replace(self, groups=groups)


def batch_graphs(graphs: Sequence[ParameterGraph]) -> GraphBatch:
    """One batch of these graphs; an empty sequence gives an empty batch."""
    places: dict[str, list[int]] = {}
    for place, graph in enumerate(graphs):
        places.setdefault(graph.template.digest, []).append(place)
    groups = tuple(
        TemplateGroup(
            template=graphs[mine[0]].template,
            values=torch.from_numpy(np.stack([graphs[place].values for place in mine])),
            place=torch.from_numpy(np.array(mine, dtype=np.int64)),
        )
        for mine in places.values()
    )
    return GraphBatch(groups=groups, num_graphs=len(graphs))


def unbatch_graphs(batch: GraphBatch) -> list[ParameterGraph]:
    """The graphs of a batch in its order; the inverse of `batch_graphs`."""
    graphs = {
        place: group.template.graph(values)
        for group in batch.groups
        for place, values in zip(group.place.tolist(), group.values.cpu().numpy(), strict=True)
    }
    return [graphs[place] for place in range(batch.num_graphs)]
