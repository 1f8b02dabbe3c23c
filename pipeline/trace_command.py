"""Trace a network of anybody's: say what its parameter graph is, check it, draw it.

    python -m pipeline trace package.module:factory --input 1,3,32,32 --check --draw graph.svg

Reads   a Python function that makes the network, from the current folder or an installed package
Writes  what it found, in 80 columns, and the picture asked for
"""

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import log10, prod
from pathlib import Path
from textwrap import wrap
from typing import Any, Literal

import torch
from torch import nn

from pipeline import symmetry
from pipeline.draw_graph import check_suffix
from pipeline.graph_kinds import EdgeKind
from pipeline.parameter_graph import GraphTemplate
from pipeline.symmetry import CheckReport
from pipeline.symmetry_group import symmetry_group

DTYPES = {"float32": torch.float32, "int64": torch.int64}
LABEL = 10
MOST_ELEMENTS = 2**26


def trace(
    network: str,
    input: str,  # noqa: A002  # the name of the flag
    dtype: Literal["float32", "int64"] = "float32",
    check: bool = False,
    draw: Path | None = None,
) -> None:
    """Say what the parameter graph of a network is.

    Args:
        network: module and name of a function without arguments that returns the network: package.module:factory.
        input: shape of an input, its batch first: 1,3,32,32.
        dtype: of the input; int64 for numbers of tokens.
        check: test the graph against the network, with random values and permutations.
        draw: file for a picture: .svg, .png or .pdf.
    """
    if draw is not None:
        check_suffix(draw)
    shape = read_shape(input)
    module = make_network(network)
    example = torch.zeros(shape, dtype=DTYPES[dtype])
    with _in_one_line(network):
        from pipeline import tracing

        template = tracing.trace(module, example)
    print("\n".join(template_lines(network, template)))
    if check:
        with _in_one_line(network):
            report = symmetry.check(module, template, example)
        print("\n".join([*group_lines(report.group, report.group_order), *check_lines(report)]))
    else:
        with _in_one_line(network):
            group = symmetry_group(template)
        print("\n".join(group_lines(group.describe(), group.order)))
    if draw is not None:
        template.graph(module).draw(draw)
        print(f"  {'picture':<{LABEL}} {draw}")


@contextmanager
def _in_one_line(network: str) -> Iterator[None]:
    """Errors say which network they are about, in one line."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{network}: {' '.join(str(error).split())}") from error


def read_shape(text: str) -> tuple[int, ...]:
    """The numbers of a shape.

    Raises:
        ValueError: they are no whole numbers from 1 on, two at least, or too large.
    """
    parts = text.split(",")
    if len(parts) < 2 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"--input is {text!r}; expected whole numbers from 1 on, the batch first, such as 1,3,32,32")
    shape = tuple(int(part) for part in parts)
    if prod(shape) > MOST_ELEMENTS:
        raise ValueError(f"--input is {text!r}, {prod(shape):,} numbers; at most {MOST_ELEMENTS:,} are tried")
    return shape


def make_network(name: str, arguments: Mapping[str, Any] | None = None) -> nn.Module:
    """What a function returns, by the function's module and name, for these keyword arguments.

    Raises:
        ValueError: there is no such module or function, it fails, or it returns something else.
    """
    factory, arguments = find_factory(name), arguments or {}
    call = f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"
    try:
        network = factory(**arguments)
    except (Exception, SystemExit) as error:  # the function is anybody's
        raise ValueError(f"{call} fails: {described(error)}") from error
    if not isinstance(network, nn.Module):
        raise ValueError(f"{call} returns something of type {type(network).__name__}; expected a torch.nn.Module")
    return network


def find_factory(name: str) -> Callable[..., object]:
    """The function of this module and name: ``package.module:function``.

    Raises:
        ValueError: there is no such module or function, or the module cannot be imported.
    """
    module_name, _, path = name.partition(":")
    if not path or not all(part.isidentifier() for part in (*module_name.split("."), *path.split("."))):
        raise ValueError(f"{name!r} names no function; expected module and name, such as package.module:factory")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ValueError(f"{module_name} cannot be imported: {described(error)}") from error
        raise ValueError(f"there is no module {error.name!r}, in the current folder or installed") from error
    except Exception as error:  # the module is anybody's
        raise ValueError(f"{module_name} cannot be imported: {described(error)}") from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{module_name} has no {path!r}; expected a function that returns the network")
        found = getattr(found, part)
    if not callable(found):
        raise ValueError(f"{name} is of type {type(found).__name__}; expected a function that returns the network")
    return found


def described(error: BaseException) -> str:
    """An error in a line."""
    reason = " ".join(str(error).split())
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__


def template_lines(name: str, template: GraphTemplate) -> Iterator[str]:
    """What a template is, in 80 columns."""
    kinds: dict[EdgeKind, int] = {}
    for block in template.blocks:
        kinds[block.kind] = kinds.get(block.kind, 0) + block.num_edges
    yield f"Parameter graph of {name}"
    yield row("nodes", f"{template.num_nodes:,} in {len(template.node_sets):,} sets")
    yield row("edges", f"{template.num_edges:,} in {len(template.blocks):,} blocks")
    width = len(f"{max(kinds.values(), default=0):,}")
    for kind in sorted(kinds):
        yield row("", f"{kinds[kind]:>{width},} {kind.name.lower().replace('_', ' ')}")
    yield row("values", f"{template.num_values:,}")
    yield row("digest", template.digest)


def group_lines(group: str, order: int) -> Iterator[str]:
    """The relabellings of neurons that preserve the function."""
    yield from rows("group", group)
    yield row("order", order_words(order))


def check_lines(report: CheckReport) -> Iterator[str]:
    """What a check found, in 80 columns."""
    yield row("checked", f"{report.num_values:,} values go to the graph and back, bit for bit")
    yield row("function", f"differs from that of the graph by {report.graph_difference:.1e} of its size")
    yield row(
        "symmetries", f"{report.num_automorphisms} tried; outputs change by {report.largest_difference:.1e} at most"
    )
    yield row("others", f"{report.num_forbidden} other permutations tried; each changes the outputs")
    yield from rows("inert", ", ".join(report.inert) or "none: every tensor acts on the outputs")


def row(label: str, text: str) -> str:
    """A line of the report."""
    return f"  {label:<{LABEL}} {text}".rstrip()


def rows(label: str, text: str) -> Iterator[str]:
    """Lines of the report for a text of any length."""
    for place, part in enumerate(wrap(text, 80 - LABEL - 3, break_on_hyphens=False) or [""]):
        yield row("" if place else label, part)


def order_words(order: int) -> str:
    """A number in full while it is short, then its size."""
    if order < 10**15:
        return f"{order:,}"
    return f"about 10^{log10(order):,.0f}"
