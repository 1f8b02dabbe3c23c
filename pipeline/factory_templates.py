"""The templates of networks that somebody's function makes, one for every set of arguments it is called with.

Reads   a Python function that makes a network, from the current folder or an installed package
Writes  nothing
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from torch import Tensor

from pipeline import symmetry
from pipeline.file_labels import ARGUMENT, Cells
from pipeline.parameter_graph import GraphTemplate
from pipeline.progress import progress_bar
from pipeline.text_tables import typed
from pipeline.trace_command import make_network
from pipeline.tracing import trace

BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why there is no template."""

    reason: str


def read_arguments(cells: Sequence[Cells]) -> list[dict[str, Any]]:
    """The keyword arguments for the factory of every file: whole numbers, numbers, truth values or texts, the same kind
    down a column; an empty cell is an argument that is not given.

    Raises:
        ValueError: a number is not finite.
    """
    names = [name for name in (cells[0] if cells else {}) if name.startswith(ARGUMENT)]
    columns = {name.removeprefix(ARGUMENT): _argument_column(name, [row[name] for row in cells]) for name in names}
    return [
        {name: column[row] for name, column in columns.items() if column[row] is not None} for row in range(len(cells))
    ]


def architecture_document(factory: str, arguments: Mapping[str, Any], input_shape: Sequence[int]) -> str:
    """The canonical text of what decides a template: JSON, keys sorted, no spaces."""
    document = {"arguments": {**arguments, "input_shape": list(input_shape)}, "family": factory}
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def factory_templates(
    factory: str, arguments: Mapping[str, Mapping[str, Any]], example_input: Tensor
) -> dict[str, GraphTemplate | Refusal]:
    """The template of every set of arguments, checked once against the network that the factory makes with them.

    Args:
        arguments: by any name of the set; the result has the same.

    Raises:
        ValueError: there is no template for any of them.
    """
    templates: dict[str, GraphTemplate | Refusal] = {}
    with progress_bar("tracing", "architectures", len(arguments)) as bar:
        for name, given in arguments.items():
            templates[name] = _factory_template(factory, given, example_input)
            bar.update()
    refusals = [template.reason for template in templates.values() if isinstance(template, Refusal)]
    if len(refusals) == len(templates):
        raise ValueError(refusals[0])
    return templates


def _factory_template(factory: str, arguments: Mapping[str, Any], example_input: Tensor) -> GraphTemplate | Refusal:
    call = f"{factory}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"
    try:
        network = make_network(factory, arguments)
    except ValueError as error:
        return Refusal(reason=_line(error))
    try:
        template = trace(network, example_input)
        if not template.num_values:
            raise ValueError("the network has no weights")
        symmetry.check(network, template, example_input)
    except ValueError as error:
        return Refusal(reason=f"{call}: {_line(error)}")
    return template


def _line(error: ValueError) -> str:
    return " ".join(str(error).split())


def _argument_column(name: str, cells: Sequence[str | None]) -> list[Any]:
    texts = {cell.strip().lower() for cell in cells if cell and cell.strip()}
    if texts and texts <= BOOLEANS.keys():
        return [BOOLEANS.get((cell or "").strip().lower()) for cell in cells]
    column = typed(cells).to_pylist()
    if wrong := [value for value in column if isinstance(value, float) and not isfinite(value)]:
        raise ValueError(f"{name}: found {wrong[0]}; expected finite numbers, since they are arguments of the factory")
    return column
