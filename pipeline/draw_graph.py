"""A parameter graph as a picture: layers as columns, or every node and edge where there are few.

    template.draw("graph.svg")    # graph.draw colours edges by their values where every edge is drawn

Reads   a `GraphTemplate` or a `ParameterGraph`
Writes  an SVG, PNG or PDF file, by its suffix
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float32

from pipeline.drawing_words import counted
from pipeline.graph_outline import outline
from pipeline.parameter_graph import GraphTemplate
from pipeline.whole_files import write_file

SUFFIXES = (".svg", ".png", ".pdf")
MOST_NODES, MOST_EDGES = 60, 300
"""Of a graph whose every node and edge is drawn."""
MARGIN = 0.2


def draw(template: GraphTemplate, path: Path, values: Float32[np.ndarray, " num_values"] | None = None) -> None:
    """Draw a template, or a graph if there are values.

    Raises:
        ValueError: the name of the file has no suffix of a picture.
    """
    check_suffix(path)
    write_file(path, picture(template, path.suffix.lower().removeprefix("."), values))


def check_suffix(path: Path) -> None:
    """Refuse the name of a file that is no picture.

    Raises:
        ValueError: it has another suffix.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: found the suffix {path.suffix!r}; expected one of {', '.join(SUFFIXES)}")


def picture(
    template: GraphTemplate, file_format: str, values: Float32[np.ndarray, " num_values"] | None = None
) -> bytes:
    """The bytes of the picture; the same for the same graph and version of matplotlib."""
    from pipeline.draw_layers import draw_layers, layers_legend
    from pipeline.draw_nodes import draw_nodes, nodes_legend
    from pipeline.drawing_canvas import FAINT, as_bytes, new_axes, write

    shown = outline(template)
    axes = new_axes()
    counts = (
        counted(template.num_nodes, "node", "nodes"),
        counted(template.num_edges, "edge", "edges"),
        counted(template.num_values, "value", "values"),
    )
    write(axes, (0.0, 0.0), " · ".join(counts), 8.5, FAINT, "left")
    if template.num_nodes <= MOST_NODES and template.num_edges <= MOST_EDGES:
        (width, height), legend = draw_nodes(axes, shown, (0.0, -0.3), values), nodes_legend(shown, values)
    else:
        (width, height), legend = draw_layers(axes, shown, (0.0, -0.3)), layers_legend(shown)
    width = max(width, 4.5)
    height += 0.55 + legend.draw(axes, (0.0, -height - 0.55), width)
    return as_bytes(axes, -MARGIN, -height - MARGIN / 2, width + MARGIN, 0.12 + MARGIN / 2, file_format)
