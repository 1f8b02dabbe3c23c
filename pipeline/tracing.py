"""From an unmodified network to its parameter graph.

    template = trace(module, example_input)

Reads   an ``nn.Module`` and an example of its input
Writes  nothing; the module is copied and left as it was

The journey: (1) ``torch.export`` turns the module, in eval mode, into a program of ATen operations; (2) the program is
walked with a `Carried` in place of every tensor: three integer tensors of the same shape that say which node each
element belongs to, at which position of a map it sits, and which operations it has passed since it left its node; (3)
operations that only move elements are executed on these tensors as they stand, so any wiring of views and permutations
is followed exactly; operations with parameters make new nodes and edges (`pipeline.graph_builder`); the rules stand in
`pipeline.trace_operations`. (4) Whatever has no rule is an error that names the operation, its module and its shapes:
no graph is better than a wrong one.
"""

import copy
import io
import logging
import operator
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from pipeline.graph_builder import GraphBuilder
from pipeline.parameter_graph import GraphTemplate, NodeKind
from pipeline.trace_operations import RULES
from pipeline.traced_tensor import NUM_EXAMPLES, Call, Carried, Constant, UnsupportedError
from pipeline.value_layout import lay_out


def trace(module: nn.Module, example_input: Tensor) -> GraphTemplate:
    """The parameter graph of a module's architecture, without values.

    Args:
        module: any module of one tensor to one tensor; it is traced in eval mode and not changed.
        example_input: ``[batch, channels, ...]``; only the shape of its first example and its dtype matter.

    Raises:
        ValueError: an operation, a wiring or a tensor has no exact graph; named with its module and shapes.
    """
    if example_input.ndim < 2 or not example_input.shape[0]:
        raise ValueError(f"example_input has shape {tuple(example_input.shape)}; expected [batch, channels, ...]")
    tensors, integers = lay_out(module)
    example = example_input[:1].detach().cpu().repeat(NUM_EXAMPLES, *(1 for _ in example_input.shape[1:]))
    program = _export(module, example)
    builder = GraphBuilder(tensors, integers)
    result = _walk(program, builder, example)
    call = Call(operation="output", module="", arguments={"result": result}, shape=tuple(result.node.shape))
    return builder.finish(builder.read(call, result, axis=1))


def _export(module: nn.Module, example: Tensor) -> ExportedProgram:
    """A copy of the module, in eval mode, as a functional program of ATen operations, nothing decomposed."""
    name = type(module).__name__
    try:
        frozen = copy.deepcopy(module).cpu().eval().requires_grad_(False)
        frozen(example)
    except Exception as error:
        raise ValueError(f"{name} fails on an input of shape {tuple(example.shape)}: {error}") from error
    try:
        with _quietly():
            return torch.export.export(frozen, (example,)).run_decompositions({})
    except Exception as error:  # whatever torch.export cannot follow: its exceptions share no public base class
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{name} cannot be traced: torch.export says {type(error).__name__}: {reason}; "
            "data-dependent control flow has no parameter graph"
        ) from error


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the programs that torch.export prints beside its exceptions, and a warning of torch 2.13 about itself."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated", FutureWarning)
            yield
    finally:
        logging.disable(disabled)


def _walk(program: ExportedProgram, builder: GraphBuilder, example: Tensor) -> Carried:
    """Run the program on node identities; returns those of its one result."""
    tensors = _inputs(program, builder, example)
    for node in program.graph.nodes:
        if node.op == "call_function":
            tensors[node.name] = _run(node, tensors, builder)
    outputs = program.graph_signature.output_specs
    result = tensors.get(str(outputs[0].arg.name)) if outputs else None
    spec = program.call_spec.out_spec
    if len(outputs) != 1 or spec is None or not spec.is_leaf() or not isinstance(result, Carried):
        raise ValueError(
            f"the module returns or changes {[str(spec.arg.name) for spec in outputs]}; "
            "trace understands one returned tensor, computed from the input, and no tensor changed in place"
        )
    return result


def _inputs(program: ExportedProgram, builder: GraphBuilder, example: Tensor) -> dict[str, Any]:
    """What each placeholder stands for: the network's input, or a tensor of its state dict."""
    slots = {name: slot for slot in builder.tensors for name in slot.names}
    shapes = {node.name: tuple(node.meta["val"].shape) for node in program.graph.nodes if _is_tensor(node)}
    tensors: dict[str, Any] = {}
    for spec in program.graph_signature.input_specs:
        name, target = str(spec.arg.name), str(spec.target)
        if spec.kind == InputKind.USER_INPUT:
            nodes = builder.add_nodes(NodeKind.INPUT, example.shape[1], "input")
            tensors[name] = builder.fresh(nodes, tuple(example.shape), axis=1)
        else:
            tensors[name] = slots.get(target, Constant(name=target, shape=shapes.get(name, ())))
    return tensors


def _run(node: fx.Node, tensors: dict[str, Any], builder: GraphBuilder) -> Any:
    """Apply the rule of one operation."""
    if node.target is operator.getitem:
        source, index = node.args
        return tensors[str(source)][index]
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    call = Call(
        operation=str(node.target),
        module=stack[-1][0] if stack else "",
        arguments=_arguments(node, tensors),
        shape=tuple(node.meta["val"].shape) if _is_tensor(node) else (),
    )
    rule = RULES.get(node.target)
    if rule is None:
        raise UnsupportedError(
            call,
            "has no rule",
            "write one in pipeline/trace_operations.py, or keep the operation out of the traced module",
        )
    if _is_tensor(node) and node.meta["val"].dtype != torch.float32:
        raise UnsupportedError(call, f"computes in {node.meta['val'].dtype}", "keep the whole module in float32")
    return rule(builder, call)


def _arguments(node: fx.Node, tensors: dict[str, Any]) -> dict[str, Any]:
    """The arguments by their names in the ATen schema, defaults filled in, tensors replaced by what they stand for."""
    schema = node.target._schema.arguments if isinstance(node.target, torch._ops.OpOverload) else ()
    names = [argument.name for argument in schema] or [f"argument {place}" for place in range(len(node.args))]
    given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    defaults = {argument.name: argument.default_value for argument in schema}
    return defaults | {name: fx.map_arg(value, lambda other: tensors.get(other.name)) for name, value in given.items()}


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor)
