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

import operator
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.utils import _pytree as pytree

from pipeline.batch_check import check_batch
from pipeline.exported_program import export
from pipeline.graph_builder import GraphBuilder
from pipeline.graph_finish import finish
from pipeline.graph_kinds import EdgeKind, NodeKind
from pipeline.parameter_graph import GraphTemplate
from pipeline.trace_operations import RULES
from pipeline.traced_tensor import NUM_EXAMPLES, SECOND, Call, Carried, Constant, UnsupportedError, Weights, per_example
from pipeline.value_layout import lay_out


def trace(module: nn.Module, example_input: Tensor) -> GraphTemplate:
    """The parameter graph of a module's architecture, without values.

    Args:
        module: any module of one tensor to one tensor; it is traced in eval mode and not changed.
        example_input: ``[batch, channels, ...]``, or ``[batch, ..., channels]`` where the module reads tokens so, or
            whole numbers ``[batch, ...]`` that it looks up; only the shape of its first example and its dtype matter.

    Raises:
        ValueError: an operation, a wiring or a tensor has no exact graph; named with its module and shapes.
    """
    if not isinstance(module, nn.Module) or not isinstance(example_input, Tensor):
        raise ValueError(
            f"found {type(module).__name__} and {type(example_input).__name__}; expected a module and a tensor"
        )
    if isinstance(module, torch.jit.ScriptModule):
        raise ValueError(f"{type(module).__name__} is scripted; trace the module that it was made from")
    if example_input.layout != torch.strided:
        raise ValueError(f"example_input is {example_input.layout}; expected a dense tensor")
    if example_input.ndim < 2 or 0 in example_input.shape:
        raise ValueError(f"example_input has shape {tuple(example_input.shape)}; expected [batch, channels, ...]")
    tensors, integers = lay_out(module)
    example = example_input[:1].detach().cpu().repeat(NUM_EXAMPLES, *(1 for _ in example_input.shape[1:]))
    program = export(module, example)
    axes = (1,) if example.is_floating_point() else ()
    builders = [GraphBuilder(tensors, integers) for _ in range(2)]
    errors: list[ValueError] = []
    templates: list[GraphTemplate] = []
    for builder, channels in zip(builders, (axes, (example.ndim - 1,)), strict=True):
        try:
            templates.append(_template(program, builder, example, channels))
        except ValueError as error:
            errors.append(error)
        if example.ndim == 2 or not axes or (templates and not _joins_inputs(templates[0])):
            break  # else the channels of the input may be on its last axis
    if templates:
        check_batch(module, example)
        return min(templates, key=lambda template: template.num_nodes)
    raise max(zip(errors, builders, strict=False), key=lambda attempt: len(attempt[1].blocks))[0]


def _template(program: ExportedProgram, builder: GraphBuilder, example: Tensor, axes: tuple[int, ...]) -> GraphTemplate:
    """The template of a program, the channels of its input on some axes."""
    result = _walk(program, builder, example, axes)
    templates: list[GraphTemplate] = []

    def finished(builder: GraphBuilder, call: Call) -> Carried:
        templates.append(finish(builder, call, call.tensor("result"), axes))
        return call.tensor("result")

    if result.shape[:1] == (1,):
        raise ValueError(f"the module returns {result.shape} for two examples; keep the batch axis first")
    call = Call(operation="output", module="", arguments={"result": result}, shape=result.shape)
    per_example(finished)(builder, call)
    return templates[0]


def _joins_inputs(template: GraphTemplate) -> bool:
    """Whether pieces of the input had to be joined before anything read them: its channels stand on another axis."""
    kinds = np.repeat([nodes.kind for nodes in template.node_sets], [nodes.count for nodes in template.node_sets])
    return any(
        block.target_site.any() and (kinds[block.sources] == NodeKind.INPUT).all() and block.kind == EdgeKind.PASS
        for block in template.blocks
    )


def _walk(program: ExportedProgram, builder: GraphBuilder, example: Tensor, axes: tuple[int, ...]) -> Carried:
    """Run the program on node identities; returns those of its one result."""
    tensors = _inputs(program, builder, example, axes)
    last_use = {user.name: node for node in program.graph.nodes for user in node.all_input_nodes}
    for node in program.graph.nodes:
        if node.op == "call_function" and node.users:
            tensors[node.name] = _run(node, tensors, builder)
            for other in {used.name for used in node.all_input_nodes if last_use[used.name] is node}:
                del tensors[other]  # maps of large networks would fill the memory
    result = tensors.get(_returned(program))
    if not isinstance(result, Carried):
        raise ValueError("the module returns something that is not computed from its input")
    return result


def _returned(program: ExportedProgram) -> str:
    """The name of the one tensor that a program returns.

    Raises:
        ValueError: it returns anything else, or changes a tensor in place.
    """
    outputs = program.graph_signature.output_specs
    changed = [str(spec.target) for spec in outputs if spec.kind != OutputKind.USER_OUTPUT]
    if changed:
        raise ValueError(f"the module changes {', '.join(changed)} in place; compute a new tensor instead")
    spec = program.call_spec.out_spec
    if spec is None or not spec.is_leaf() or isinstance(outputs[0].arg, ConstantArgument):
        found = "no tensor" if spec is None or spec.is_leaf() else f"a {spec.type.__name__} of {spec.num_leaves}"
        raise ValueError(
            f"the module returns {found}; expected one tensor: "
            "wrap it in a module that returns the one whose graph you want"
        )
    return str(outputs[0].arg.name)


def _inputs(program: ExportedProgram, builder: GraphBuilder, example: Tensor, axes: tuple[int, ...]) -> dict[str, Any]:
    """What each placeholder stands for: the network's input, or a tensor of its state dict, or a constant."""
    weights = {name: Weights.of(slot) for slot in builder.tensors for name in slot.names}
    constants = {**program.state_dict, **program.constants}
    tensors: dict[str, Any] = {}
    for spec in program.graph_signature.input_specs:
        name, target = str(spec.arg.name), str(spec.target)
        if spec.kind == InputKind.USER_INPUT:
            tensors[name] = _input(builder, tuple(example.shape), axes)
        elif target in weights:
            tensors[name] = weights[target]
        elif isinstance(constants.get(target), Tensor):
            tensors[name] = Constant(number=constants[target].detach())
    return tensors


def _input(builder: GraphBuilder, shape: tuple[int, ...], channel_axes: tuple[int, ...]) -> Carried:
    """The network's input, both examples: a node per channel, or one node for whole numbers that are looked up."""
    one = (1, *shape[1:])
    count = prod(one[axis] for axis in channel_axes)
    first = builder.fresh(builder.add_nodes(NodeKind.INPUT, count, "input"), one, channel_axes)
    both = torch.arange(NUM_EXAMPLES).reshape(-1, *(1 for _ in shape[1:])) * SECOND
    return Carried(node=first.node + both, site=first.site.expand(shape), chain=first.chain.expand(shape))


def _run(node: fx.Node, tensors: dict[str, Any], builder: GraphBuilder) -> Any:
    """Apply the rule of one operation, or compute it if it depends on constants alone."""
    if node.target is operator.getitem:
        source, index = node.args
        return tensors[str(source)][index]
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    call = Call(
        operation=str(node.target),
        module=stack[-1][0] if stack else "",
        arguments=_arguments(node, tensors),
        shape=_shape(node.meta.get("val")),
    )
    if any(used.name in tensors and tensors[used.name] is None for used in node.all_input_nodes):
        raise UnsupportedError(
            call, "reads where maxima stand, or another result that is not followed", "read the maxima themselves"
        )
    if not any(isinstance(leaf, Carried | Weights) for leaf in pytree.tree_leaves(call.arguments)):
        return _constant(node, call, tensors)
    if _is_tensor(node) and node.meta["val"].dtype not in (torch.float32, torch.int64):
        raise UnsupportedError(call, f"computes in {node.meta['val'].dtype}", _in_float32(node.meta["val"].dtype))
    _check_whole_numbers(node, call)
    rule = RULES.get(node.target)
    if rule is None:
        _refuse_random(node, call)
        raise UnsupportedError(
            call,
            "has no rule",
            "write one (docs/operations.md shows how), or keep the operation out of the traced module",
        )
    return rule(builder, call)


def _check_whole_numbers(node: fx.Node, call: Call) -> None:
    """Refuse whole numbers that are made of others: nothing here rounds."""
    if not _is_tensor(node) or node.meta["val"].dtype != torch.int64:
        return
    fractions = [leaf for leaf in pytree.tree_leaves((node.args, node.kwargs)) if isinstance(leaf, float)]
    tensors = [used.meta["val"] for used in node.all_input_nodes if _is_tensor(used)]
    if not all(map(float.is_integer, fractions)) or any(tensor.is_floating_point() for tensor in tensors):
        raise UnsupportedError(call, "makes whole numbers of others", "round before tracing, or compute in float32")


def _refuse_random(node: fx.Node, call: Call) -> None:
    if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
        raise UnsupportedError(call, "is random", "a parameter graph describes one function; remove the randomness")


def _in_float32(dtype: torch.dtype) -> str:
    """What to do about another precision."""
    if dtype == torch.bool:
        return (
            "a mask may depend on positions, but not on the input or a parameter: write it as products, ReLU or clamp"
        )
    return "keep the whole module in float32"


def _constant(node: fx.Node, call: Call, tensors: dict[str, Any]) -> Any:
    """The result of an operation on constants."""
    _refuse_random(node, call)
    arguments, keywords = (
        fx.map_arg(given, lambda other: tensors[other.name].number) for given in (node.args, node.kwargs)
    )
    result = node.target(*arguments, **keywords)  # type: ignore[operator]  # an OpOverload
    return pytree.tree_map(lambda leaf: Constant(number=leaf) if isinstance(leaf, Tensor) else leaf, result)


def _arguments(node: fx.Node, tensors: dict[str, Any]) -> dict[str, Any]:
    """The arguments by their names in the ATen schema, defaults filled in, tensors replaced by what they stand for."""
    schema = node.target._schema.arguments if isinstance(node.target, torch._ops.OpOverload) else ()
    names = [argument.name for argument in schema] or [f"argument {place}" for place in range(len(node.args))]
    given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    defaults = {argument.name: argument.default_value for argument in schema}
    return defaults | {name: fx.map_arg(value, lambda other: tensors.get(other.name)) for name, value in given.items()}


def _shape(result: Any) -> tuple[int, ...]:
    """Of a tensor, or of the first of several."""
    first = result[0] if isinstance(result, list | tuple) and result else result
    return tuple(first.shape) if isinstance(first, Tensor) else ()


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor)
