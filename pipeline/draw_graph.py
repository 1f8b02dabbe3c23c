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
MARGIN, LEAST_WIDTH = 0.2, 4.5
TOP = (0.0, -0.3)
"""Upper left corner of what is drawn."""


def draw(template: GraphTemplate, path: Path, values: Float32[np.ndarray, " num_values"] | None = None) -> None:
    """Draw a template, or a graph if there are values.

    Raises:
        ValueError: the file is no picture by its name, or cannot be written.
    """
    check_suffix(path)
    content = picture(template, path.suffix.lower().removeprefix("."), values)
    try:
        write_file(path, content)
    except OSError as error:  # which names the file that is written aside
        raise ValueError(f"{path}: cannot be written ({error.strerror}); choose another name or folder") from error


def check_suffix(path: Path) -> None:
    """Refuse the name of a file that no picture can have.

    Raises:
        ValueError: it has another suffix, is a folder, or lies in none.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: found the suffix {path.suffix!r}; expected one of {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise ValueError(f"{path}: found a folder; expected the name of a file")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}; make it, or choose another")


def picture(
    template: GraphTemplate, file_format: str, values: Float32[np.ndarray, " num_values"] | None = None
) -> bytes:
    """The bytes of the picture; the same for the same graph and version of matplotlib."""
    from pipeline.draw_layers import draw_layers
    from pipeline.draw_nodes import draw_nodes, draw_scale, value_colours
    from pipeline.drawing_canvas import FAINT, TITLE, as_bytes, draw_legend, new_axes, width_of, write
    from pipeline.drawing_legend import legend

    shown, axes = outline(template), new_axes()
    every_node = template.num_nodes <= MOST_NODES and template.num_edges <= MOST_EDGES
    if not every_node or template.num_values == 0:
        values = None
    sizes = {"node": template.num_nodes, "edge": template.num_edges, "value": template.num_values}
    words = " · ".join(counted(number, one, f"{one}s") for one, number in sizes.items())
    write(axes, (0.0, 0.0), words, TITLE, FAINT, "left")
    width, height = draw_nodes(axes, shown, TOP, values) if every_node else draw_layers(axes, shown, TOP)
    width = max(width, LEAST_WIDTH)
    if values is not None:
        width = max(width, draw_scale(axes, (width_of(words, TITLE) + 0.4, 0.0), values))
    entries = legend(shown, every_node, value_colours(values))
    height += 0.55
    height += draw_legend(axes, (0.0, -height), entries, width)
    return as_bytes(axes, -MARGIN, -height - MARGIN / 2, width + MARGIN, 0.12 + MARGIN / 2, file_format)
