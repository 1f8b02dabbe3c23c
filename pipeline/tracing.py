"""From an unmodified network to its parameter graph.

    template = trace(module, example_input)

Reads   an ``nn.Module`` and an example of its input
Writes  nothing; the module is copied and left as it was

The journey: (1) ``torch.export`` turns the module, in eval mode, into a program of ATen operations; (2) the program is walked with a
`Carried` in place of every tensor: three integer tensors of the same shape that say which node each element belongs to, at which
position of a map it sits, and which operations it has passed since it left its node; (3) operations that only move elements are
executed on these tensors as they stand, so any wiring of views and permutations is followed exactly; operations with parameters
make new nodes and edges (`pipeline.graph_builder`); the rules stand in `pipeline.trace_operations`. (4) Whatever has no rule is an
error that names the operation, its module and its shapes: no graph is better than a wrong one.
"""

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from pipeline.graph_builder import Call, Carried, Constant, GraphBuilder, Unsupported, channels_of, parameter_layout
from pipeline.parameter_graph import GraphTemplate, NodeKind
from pipeline.trace_operations import RULES


def trace(module: nn.Module, example_input: Tensor) -> GraphTemplate:
    """The parameter graph of a module's architecture, without values.

    Args:
        module: any module of one tensor to one tensor; it is traced in eval mode and not changed.
        example_input: ``[batch, channels, ...]``; only its first example's shape and dtype matter.

    Raises:
        ValueError: an operation, a wiring or a tensor that cannot be represented exactly, named with its module and shapes.
    """
    if example_input.ndim < 2:
        raise ValueError(f"example_input has shape {tuple(example_input.shape)}; expected [batch, channels, ...]")
    example = example_input[:1].detach().cpu()
    frozen = copy.deepcopy(module).cpu().eval().requires_grad_(False)
    slots, integers = parameter_layout(frozen)
    program = _export(frozen, example)
    builder = GraphBuilder(slots, integers)
    result = _walk(program, builder, example)
    call = Call(operation="output", module="", arguments={"result": result}, shape=tuple(result.node.shape))
    return builder.finish(channels_of(call, builder, result, axis=min(1, result.node.ndim - 1)))


def _export(module: nn.Module, example: Tensor) -> ExportedProgram:
    """The module as a functional program of ATen operations, nothing decomposed."""
    try:
        module(example)
    except Exception as error:
        raise ValueError(
            f"{type(module).__name__} fails on an input of shape {tuple(example.shape)}: {error}"
        ) from error
    try:
        return torch.export.export(module, (example,)).run_decompositions({})
    except Exception as error:  # whatever torch.export cannot follow: its exceptions share no public base class
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{type(module).__name__} cannot be traced: torch.export says {type(error).__name__}: {reason}; "
            "data-dependent control flow has no parameter graph"
        ) from error


def _walk(program: ExportedProgram, builder: GraphBuilder, example: Tensor) -> Carried:
    """Run the program on node identities; returns those of its one result."""
    tensors = _inputs(program, builder, example)
    for node in program.graph.nodes:
        if node.op == "call_function":
            tensors[node.name] = _run(node, tensors, builder)
    outputs = program.graph_signature.output_specs
    if len(outputs) != 1 or not isinstance(result := tensors.get(str(outputs[0].arg.name)), Carried):
        raise ValueError(
            f"the module returns or changes {len(outputs)} tensors; trace understands one returned tensor, computed from the input"
        )
    return result


def _inputs(program: ExportedProgram, builder: GraphBuilder, example: Tensor) -> dict[str, Any]:
    """What each placeholder stands for: the network's input, or a tensor of its state dict."""
    tensors: dict[str, Any] = {}
    for spec in program.graph_signature.input_specs:
        name = str(spec.arg.name)
        if spec.kind == InputKind.USER_INPUT:
            nodes = builder.add_nodes(NodeKind.INPUT, example.shape[1], "input")
            tensors[name] = builder.fresh(nodes, tuple(example.shape), axis=1)
        else:
            tensors[name] = builder.slots.get(target := str(spec.target), Constant(name=target, shape=()))
    return tensors


def _run(node: fx.Node, tensors: dict[str, Any], builder: GraphBuilder) -> Any:
    """Apply the rule of one operation."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    result = node.meta.get("val")
    call = Call(
        operation=str(node.target),
        module=stack[-1][0] if stack else "",
        arguments=_arguments(node, tensors),
        shape=tuple(result.shape) if isinstance(result, Tensor) else (),
    )
    rule = RULES.get(node.target)
    if rule is None:
        raise Unsupported(
            call,
            "has no rule",
            "write one in pipeline/trace_operations.py, or keep the operation out of the traced module",
        )
    return rule(builder, call)


def _arguments(node: fx.Node, tensors: dict[str, Any]) -> dict[str, Any]:
    """The operation's arguments by their names in the ATen schema, defaults filled in, tensors replaced by what they stand for."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]  # every call_function target is an OpOverload here
    given = dict(zip((argument.name for argument in schema), node.args, strict=False)) | dict(node.kwargs)
    return {
        argument.name: fx.map_arg(given[argument.name], lambda other: tensors[other.name])
        if argument.name in given
        else argument.default_value
        for argument in schema
    }
