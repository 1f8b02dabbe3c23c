"""How wide and how deep the network of a template is: what out-of-distribution splits and simple baselines ask.

Reads   a `GraphTemplate`
Writes  nothing
"""

import numpy as np

from pipeline.graph_kinds import EdgeKind, NodeKind
from pipeline.parameter_graph import GraphTemplate

LAYERS = (EdgeKind.LINEAR_WEIGHT, EdgeKind.CONV_WEIGHT, EdgeKind.TRANSPOSED_CONV_WEIGHT)


def width(template: GraphTemplate) -> int:
    """Neurons or channels of its widest hidden layer: the largest set of neurons that are no outputs; 0 if none is."""
    kinds = template.node_kind
    counts, first = [0], 0
    for nodes in template.node_sets:
        if nodes.kind == NodeKind.NEURON:
            counts.append(int((kinds[first : first + nodes.count] == NodeKind.NEURON).sum()))
        first += nodes.count
    return max(counts)


def depth(template: GraphTemplate) -> int:
    """Linear and convolutional layers on the longest way from the inputs to an output."""
    layers = np.zeros(template.num_nodes, dtype=np.int64)
    for block in template.blocks:
        before = layers[block.sources].reshape(block.num_groups, -1).max(axis=1) + (block.kind in LAYERS)
        np.maximum.at(layers, block.targets, np.repeat(before, block.num_targets))
    return int(layers[template.outputs].max())
