"""The table of rules: what each ATen operation does to a parameter graph.

A rule takes the graph under construction and the call, and returns what its result is; `docs/operations.md` shows how
to write one. A rule that meets a case it cannot represent exactly raises `UnsupportedError`.
"""

from typing import Any

from pipeline.trace_layers import LAYERS
from pipeline.trace_maps import MAPS
from pipeline.trace_moves import MOVES
from pipeline.trace_norms import NORMS
from pipeline.trace_pointwise import POINTWISE
from pipeline.trace_products import PRODUCTS
from pipeline.trace_reductions import REDUCTIONS
from pipeline.traced_tensor import Rule

RULES: dict[Any, Rule] = {**MOVES, **POINTWISE, **LAYERS, **MAPS, **REDUCTIONS, **NORMS, **PRODUCTS}
