"""From a module to a program of ATen operations: what ``torch.export`` makes of it, as far as tracing has rules for it.

Reads   an ``nn.Module`` and an example of its input
Writes  an ``ExportedProgram``; the module is copied and left as it was
"""

import io
import logging
import operator
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from pipeline.module_copies import copied
from pipeline.trace_operations import RULES


def export(module: nn.Module, example: Tensor) -> ExportedProgram:
    """A copy of the module, in eval mode, as a functional program of ATen operations; those with a rule stay whole.

    Raises:
        ValueError: the module fails on the example, cannot be followed, or reaches its parameters by other ways.
    """
    name = type(module).__name__
    frozen = copied(module).cpu().eval().requires_grad_(False)
    try:
        with plain_attention():
            copied(frozen)(example)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{name} fails on an input of shape {tuple(example.shape)}: {error}") from error
    try:
        with _quietly(), plain_attention():
            program = _lowered(torch.export.export(frozen, (example,)))
    except Exception as error:  # whatever torch.export cannot follow: its exceptions share no public base class
        reason = next(iter(str(error).strip().splitlines()), "no reason")
        depends = "DataDependent" in type(error).__name__ or "data-dependent" in reason.lower()
        why = "; data-dependent control flow has no parameter graph" if depends else ""
        raise ValueError(f"{name} cannot be traced: torch.export says {type(error).__name__}: {reason}{why}") from error
    _check_nothing_hidden(module, program)
    return program


def _check_nothing_hidden(module: nn.Module, program: ExportedProgram) -> None:
    """Refuse a module that reaches its own parameters by other ways than its attributes (a closure, a list):
    torch.export takes what it finds there for constants."""
    memory = {
        tensor.untyped_storage().data_ptr(): name
        for state in (program.state_dict, module.state_dict(keep_vars=True))
        for name, tensor in state.items()
        if isinstance(tensor, Tensor) and tensor.numel()
    }
    for constant in program.constants.values():
        if isinstance(constant, Tensor) and constant.numel():
            name = memory.get(constant.untyped_storage().data_ptr())
            if name is not None:
                raise ValueError(
                    f"{type(module).__name__} reaches {name} by another way than as its attribute (in a list, a "
                    "closure, a hook or a buffer that shares its memory), where it is taken for a constant; use the "
                    "attribute"
                )


def _lowered(program: ExportedProgram) -> ExportedProgram:
    """The program in operations that have a rule, as far as torch can express others in them.

    Rewriting takes longer than all else, and changes nothing where every operation has a rule already, since none with
    a rule changes a tensor in place.
    """
    called = {node.target for node in program.graph.nodes if node.op == "call_function" and node.all_input_nodes}
    if called <= {operator.getitem, *RULES}:
        program.graph.eliminate_dead_code()
        return program
    return program.run_decompositions(dict(_decompositions()))  # a copy: torch takes entries out


@cache
def _decompositions() -> dict[Any, Any]:
    """How torch expresses the operations without a rule in others; constants (``linspace``) are made as they are, since
    the others round otherwise."""
    known = torch.export.default_decompositions().items()
    return {op: rule for op, rule in known if op not in RULES and _reads_tensors(op)}


def _reads_tensors(operation: Any) -> bool:
    return any("Tensor" in str(argument.type) for argument in operation._schema.arguments)


@contextmanager
def plain_attention() -> Iterator[None]:
    """Without the fused kernels that attention layers take in eval mode, which no rule can look into."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the programs that torch.export prints beside its exceptions, its warnings about tensors that a module
    keeps for itself, as recurrent layers do, and one of torch 2.13 about torch."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated", FutureWarning)
            warnings.filterwarnings("ignore", "The tensor attributes? .* assigned during export", UserWarning)
            yield
    finally:
        logging.disable(disabled)
