"""Texts of templates from anywhere are refused before they can do harm."""

import json
import tracemalloc
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hand_built import masked_attention
from pipeline.template_document import (
    read_document,
    write_document,
)
from template_texts import Document, base, plain, text_of

ENOUGH_MEMORY = 2**24
"""Bytes that a text of a few kilobytes may make a reader allocate before it is refused."""


def change(*path: str | int, to: Any) -> Callable[[Document], None]:
    """Replace what stands at a path; a function of what stood there may say by what."""

    def apply(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = to(document[path[-1]]) if callable(to) else to

    return apply


def drop(*path: str | int) -> Callable[[Document], None]:
    def apply(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        del document[path[-1]]

    return apply


def both(*changes: Callable[[Document], None]) -> Callable[[Document], None]:
    def apply(document: Document) -> None:
        for each in changes:
            each(document)

    return apply


HUGE = 10**12


MANY = [[0, 2**30, 0, 2**30]]


INTEGERS = ["steps", "int64", [], [7]]


DAMAGED: dict[str, tuple[Callable[[Document], None], str]] = {
    "a key is missing": (drop("blocks"), "KeyError: 'blocks'"),
    "a key of a block is missing": (drop("blocks", 0, "stride"), "KeyError: 'stride'"),
    "a key too many": (change("more", to=1), r"found 'more.* at character \d+; the canonical form has"),
    "blocks are a number": (change("blocks", to=3), "TypeError: 'int' object is not iterable"),
    "blocks are a text": (change("blocks", to="abc"), "TypeError"),
    "a block is a list": (change("blocks", 0, to=[1]), "TypeError: list indices must be integers"),
    "outputs are an object": (change("outputs", to={"0": 1}), "a run is '0'; expected"),
    "an unknown kind of edge": (change("blocks", 0, "kind", to="GLUE"), "KeyError: 'GLUE'"),
    "an unknown operation": (change("chains", 1, 0, 0, to="EXPLODE"), "KeyError: 'EXPLODE'"),
    "an unknown kind of node": (change("node_sets", 0, 0, to="ALIEN"), "KeyError: 'ALIEN'"),
    "huge counts of nodes": (
        change("node_sets", 1, 1, to=HUGE),
        "found 1000000000000 where a count from 0 to 2147483648",
    ),
    "too many nodes": (change("node_sets", 1, 1, to=2**31 - 1), r"it has \d+ nodes; at most 4194304 are read"),
    "a negative count": (change("node_sets", 1, 1, to=-1), "found -1 where a count"),
    "a fraction of a node": (change("node_sets", 1, 1, to=2.0), "found 2.0 where a count"),
    "a set of nodes without nodes": (
        change("node_sets", 1, 1, to=0),
        "a set of nodes is empty, or holds several biases",
    ),
    "a set of biases": (change("node_sets", 2, 1, to=2), "a set of nodes is empty, or holds several biases"),
    "outputs as a set": (change("node_sets", 1, 0, to="OUTPUT"), "the first set of nodes must be the inputs"),
    "inputs twice": (change("node_sets", 1, 0, to="INPUT"), "the first set of nodes must be the inputs"),
    "no nodes": (change("node_sets", to=[]), "the first set of nodes must be the inputs"),
    "a name that is none": (change("node_sets", 0, 2, to=7), "found 7 where a name belongs"),
    "huge rows": (change("blocks", 0, "sources", to=MANY), r"its runs describe \d+ numbers; at most 4194304 are read"),
    "many long rows": (change("outputs", to=[[0, 2**21, 0, 1]] * 3), r"its runs describe \d+ numbers; at most"),
    "huge tensors": (
        change("tensors", 0, 1, to=[2**30, 2**30, 2**30]),
        r"it has \d+ values; at most 134217728 are read",
    ),
    "tensors of a thousand axes": (
        change("tensors", 0, 1, to=[2**30] * 1000),
        "found 1000 sizes of one thing; at most 8",
    ),
    "more values than edges": (
        change("tensors", 0, 1, to=[2**26]),
        r"\d+ of them for values; expected as many as its 67\d+ values at least",
    ),
    "huge kernels": (
        change("blocks", 0, "kernel_size", to=[2**30, 2**30]),
        r"it has \d+ edges, \d+ of them for values; expected as many as its",
    ),
    "huge dilation": (change("blocks", 0, "dilation", to=[1, HUGE]), "found 1000000000000 where a count"),
    "huge grids": (change("grids", 1, to=[2**30, 2**30]), r"it has \d+ positions; at most 4194304 are read"),
    "no groups": (change("blocks", 0, "num_groups", to=0), "block 0: 2 targets and 1 sources do not make 0 groups"),
    "more groups than nodes": (
        change("blocks", 0, "num_groups", to=2**30),
        "2 targets and 1 sources do not make 1073741824",
    ),
    "groups that do not divide": (
        both(
            *(change("blocks", 0, row, to=[[1, 3, 1, 1]]) for row in ("targets", "target_offset")),
            *(change("blocks", 0, row, to=[[0, 1, 1, 2]]) for row in ("sources", "source_offset")),
            *(change("blocks", 0, row, to=[[0, 1, 1, 2]]) for row in ("source_site", "source_chain")),
            change("blocks", 0, "num_groups", to=2),
        ),
        "block 0: 3 targets and 2 sources do not make 2 groups",
    ),
    "no targets": (change("blocks", 0, "targets", to=[]), r"a block has columns of \[0, 2, 1, 1, 1, 1, 1, 1\] numbers"),
    "target offsets missing": (
        change("blocks", 0, "target_offset", to=[[0, 1, 1, 1]]),
        r"a block has columns of \[2, 1, 1, 1, 1, 1, 1, 1\] numbers; expected two for the targets and six for the",
    ),
    "a column too long": (
        change("blocks", 0, "source_chain", to=[[0, 1, 1, 5]]),
        r"a block has columns of \[2, 2, 1, 1, 1, 5, 1, 1\] numbers; expected two",
    ),
    "targets out of range": (
        change("blocks", 0, "targets", 0, 0, to=500),
        "block 0: targets reach from 500 to 501; expected 0",
    ),
    "targets below zero": (
        change("blocks", 0, "targets", 0, 0, to=-1),
        "block 0: targets reach from -1 to 0; expected 0 to",
    ),
    "sources out of range": (change("blocks", 0, "sources", 0, 0, to=500), "block 0: sources reach from 500 to 500"),
    "sites out of range": (
        change("blocks", 4, "source_site", to=[[9, 2, 1, 2]]),
        "source_site reach from 9 to 10; expected 0 to 2",
    ),
    "chains out of range": (
        change("blocks", 4, "source_chain", 0, 0, to=9),
        "source_chain reach from 9 to 9; expected 0 to 2",
    ),
    "output chains out of range": (
        change("output_chain", 0, 0, to=9),
        "output_chain reach from 9 to 9; expected 0 to 2",
    ),
    "outputs out of range": (change("outputs", 0, 0, to=500), "outputs reach from 500 to 500"),
    "outputs twice": (
        both(change("outputs", to=[[8, 1, 1, 2]]), change("output_chain", to=[[0, 1, 1, 2]])),
        "2 outputs with 2 chains; expected one chain each, and no node twice",
    ),
    "no outputs": (both(change("outputs", to=[]), change("output_chain", to=[])), "0 outputs with 0 chains"),
    "an input as output": (change("outputs", 0, 0, to=0), "an output is of kind INPUT; expected one of NEURON, SUM"),
    "offsets out of range": (
        change("blocks", 0, "target_offset", 0, 0, to=99),
        "block 0: target_offset reach from 99 to",
    ),
    "offsets below zero": (
        change("blocks", 0, "source_offset", 0, 0, to=-1),
        "block 0: source_offset reach from -1 to -1",
    ),
    "offsets whose sum is out of range": (
        change("blocks", 0, "target_offset", 0, 0, to=lambda start: start + 18),
        "block 0 carries value 21; expected 0 to 20",
    ),
    "taps out of range": (
        change("blocks", 0, "tap_stride", to=2**31 - 1),
        "block 0 carries value 2147483649; expected 0 to",
    ),
    "a value that no edge carries": (
        change("blocks", 1, "target_offset", to=[[4, 1, 1, 2]]),
        "value 5 is carried by no edge",
    ),
    "a bias as target": (
        change("blocks", 1, "targets", 0, 0, to=2),
        "CONV_BIAS with a target of kind BIAS; its ends are not of the kind that its edges join",
    ),
    "an input as target": (
        change("blocks", 1, "targets", 0, 0, to=0),
        "its ends are not of the kind that its edges join",
    ),
    "a neuron as bias": (
        change("blocks", 1, "sources", 0, 0, to=1),
        "its ends are not of the kind that its edges join",
    ),
    "targets out of order": (
        change("blocks", 0, "targets", to=[[2, 2, -1, 1]]),
        "block 0: its targets or sources are not in order, or one stands",
    ),
    "sources twice": (
        both(change("blocks", 4, "sources", to=[[4, 1, 1, 4]]), change("blocks", 4, "source_site", to=[[1, 1, 1, 4]])),
        "block 4: its targets or sources are not in order, or one stands twice",
    ),
    "a kernel without strides": (change("blocks", 0, "stride", to=[]), "block 0: CONV_WEIGHT with the geometry"),
    "a kernel on a line": (change("blocks", 0, "map_size", to=[3]), "block 0: CONV_WEIGHT with the geometry"),
    "a stride of nothing": (change("blocks", 0, "stride", to=[0, 1]), "block 0: CONV_WEIGHT with the geometry"),
    "a linear layer with a kernel": (
        both(change("blocks", 4, "kernel_size", to=[1]), change("blocks", 4, "tap_stride", to=1)),
        "block 4: LINEAR_WEIGHT with",
    ),
    "a bias with a map": (change("blocks", 1, "map_size", to=[2, 2]), "block 1: CONV_BIAS with the geometry"),
    "a bias read at a position": (
        change("blocks", 1, "source_site", 0, 0, to=1),
        "block 1: it reads a bias or a position node at a site",
    ),
    "a map of four axes": (
        change("blocks", 4, "map_size", to=[1, 1, 1, 1]),
        "block 4: LINEAR_WEIGHT with the geometry",
    ),
    "read before it is computed": (
        change("blocks", to=lambda blocks: blocks[2:] + blocks[:2]),
        "node 1 is read before it is",
    ),
    "never computed": (
        both(change("node_sets", -1, 1, to=1), change("node_sets", to=lambda sets: [*sets, ["NEURON", 1, "more"]])),
        r"node \d+, NEURON, is never computed or never used",
    ),
    "no first chain": (
        change("chains", to=lambda chains: chains[1:]),
        "the first chain must be empty, and no chain stand twice",
    ),
    "a chain twice": (change("chains", to=lambda chains: [*chains, chains[1]]), "no chain stand twice"),
    "a chain that is not used": (
        change("chains", to=lambda chains: [*chains, [["TANH", {}]]]),
        "a chain is never used, or used",
    ),
    "chains in another order": (
        both(
            change("chains", to=lambda chains: [chains[0], chains[2], chains[1]]),
            change("blocks", 2, "source_chain", 0, 0, to=2),
            change("blocks", 4, "source_chain", 0, 0, to=1),
        ),
        "a chain is never used, or used before one that stands before it",
    ),
    "a grid twice": (change("grids", to=lambda grids: [*grids, grids[1]]), "no grid stand twice"),
    "a grid that is not used": (
        change("grids", to=lambda grids: [*grids, [5, 7]]),
        "a grid is never used, or used before",
    ),
    "a grid of four axes": (change("grids", 1, to=[1, 2, 1, 1]), "a grid has one position, or not 1 to 3 axes"),
    "a grid of one position": (change("grids", to=lambda grids: [*grids, [1]]), "a grid has one position"),
    "a grid without positions": (change("grids", 1, to=[0]), "a grid has one position"),
    "a setting is missing": (drop("chains", 2, 0, 1, "stride"), "MAX_POOL has the settings .*; expected .*'stride'"),
    "a setting of another operation": (
        change("chains", 1, 0, 1, "alpha", to=[1.0]),
        r"RELU has the settings \('alpha',\)",
    ),
    "half a pool": (change("chains", 2, 0, 1, "stride", to=[1.0]), r"MAX_POOL has stride \(1.0,\)"),
    "a pool of half a position": (
        change("chains", 2, 0, 1, "stride", to=[1.5, 1.0]),
        r"MAX_POOL has stride \(1.5, 1.0\)",
    ),
    "an integer setting": (
        change("chains", 2, 0, 1, "stride", to=[1, 4]),
        "found 1 where a number with a decimal point",
    ),
    "settings of text": (change("chains", 2, 0, 1, "stride", to="ab"), "found 'a' where a number with a decimal point"),
    "tensors of one name": (change("tensors", 1, 0, to=["0.weight"]), "a tensor has no name, or a name is given twice"),
    "a tensor without a name": (change("tensors", 1, 0, to=[]), "a tensor has no name, or a name is given twice"),
    "a name spelled out": (
        change("tensors", 1, 0, to="bias"),
        r"found '.bias.,\[2\].* at character \d+; the canonical form has",
    ),
    "an integer of another module": (
        change("integers", to=[["x", "nn", [], [1]]]),
        "x: found dtype 'nn'; expected one of bool",
    ),
    "an integer that is none": (
        change("integers", to=[["x", "float32", [], [1]]]),
        "x: found dtype 'float32'; expected one of",
    ),
    "integers missing": (
        change("integers", to=[["x", "int64", [3], [1]]]),
        r"x: its 1 numbers make no tensor \(3,\) of int64",
    ),
    "huge integers": (change("integers", to=[["x", "int8", [HUGE], [1]]]), "found 1000000000000 where a count"),
    "many integers": (change("integers", to=[["x", "int8", [2**30, 2**30], [1]]]), "x: its 1 numbers make no tensor"),
    "an integer out of range": (
        change("integers", to=[["x", "int8", [], [128]]]),
        r"x: its 1 numbers make no tensor \(\) of int8",
    ),
    "a Boolean of 2": (
        change("integers", to=[["x", "bool", [], [2]]]),
        r"x: its 1 numbers make no tensor \(\) of bool",
    ),
    "half an integer": (change("integers", to=[["x", "int8", [], [1.5]]]), "found 1.5 where a whole number belongs"),
    "an integer by a tensor's name": (change("integers", to=[["0.weight", "int8", [], [1]]]), "a name is given twice"),
    "runs in pieces": (
        change("blocks", 0, "targets", to=[[1, 1, 1, 1], [2, 1, 1, 1]]),
        r"found .* at character \d+; the canonical form has",
    ),
}


def to_block(number: int, **keys: Any) -> Callable[[Document], None]:
    return both(*(change("blocks", number, name, to=value) for name, value in keys.items()))


def to_set(number: int, *, to: Any) -> Callable[[Document], None]:
    return change("node_sets", number, to=to)


ADDED, TABLE, QUERY, KEY, HEAD, SCORES, MASK, WEIGHTS, STATISTIC, UP, VARIANCE, READ = (
    *(0, 1, 5, 6, 7, 8, 9, 11, 12, 15, 19, 20),
)
"""Blocks of the masked attention."""


DAMAGED_RICH: dict[str, tuple[Callable[[Document], None], str]] = {
    "a chain of a set out of range": (to_set(0, to=["INPUT", 2, "layer0", 9]), "a node set's chain reach from 0 to 9"),
    "a chain of a set that is spelled out": (to_set(0, to=["INPUT", 2, "layer0", 0]), "the canonical form has"),
    "a set of five things": (to_set(0, to=["INPUT", 2, "layer0", 0, 0]), "TypeError"),
    "regions as an object": (change("regions", to={"a": 1}), "not enough values to unpack"),
    "no regions, spelled out": (change("regions", to=[]), "target_site reach from 4 to 4; expected 0 to 3"),
    "huge regions": (change("regions", 0, 1, to=MANY), r"its runs describe \d+ numbers; at most 4194304 are read"),
    "a region of a huge map": (
        change("regions", 0, 0, to=[2**30, 2**30]),
        r"it has \d+ positions in the map of a region; at most 4194304 are read",
    ),
    "regions of many large maps": (
        change("regions", to=lambda regions: regions + [[[2**22], [[n, 2, 1, 1]]] for n in range(33)]),
        r"it has \d+ positions in the maps of regions; at most 134217728 are read",
    ),
    "a region outside its map": (
        change("regions", 0, 0, to=[5]),
        "region 0: positions reach from 1 to 5; expected 0 to 4",
    ),
    "a region of a map of four axes": (change("regions", 0, 0, to=[3, 3, 1, 1]), "region 0 has not 1 to 3 axes"),
    "a region of one position": (change("regions", 0, 1, to=[[1, 1, 1, 1]]), "region 0 .* or fewer than two positions"),
    "a region without positions": (change("regions", 0, 1, to=[]), "region 0 .* or fewer than two positions"),
    "a region twice": (
        change("regions", 1, to=lambda _: [[3, 3], [[1, 2, 1, 1], [5, 1, 1, 1]]]),
        "a region stands twice",
    ),
    "a region that is not used": (
        change("regions", to=lambda regions: [*regions, [[5], [[0, 2, 1, 1]]]]),
        "a region is never used, or used before one that stands before it",
    ),
    "regions in another order": (
        both(
            change("regions", to=lambda regions: regions[::-1]),
            to_block(MASK, target_site=[[5, 1, 1, 1]]),
            to_block(READ, source_site=[[4, 1, 1, 1]]),
        ),
        "a region is never used, or used before",
    ),
    "a region written twice": (
        change("regions", 0, 1, to=[[1, 1, 1, 2], [5, 1, 1, 1]]),
        f"block {MASK}: it writes a position twice",
    ),
    "a target site out of range": (
        to_block(MASK, target_site=[[6, 1, 1, 1]]),
        "target_site reach from 6 to 6; expected 0 to 5",
    ),
    "target sites spelled out": (to_block(ADDED, target_site=[[0, 1, 1, 2]]), "the canonical form has"),
    "too few target sites": (
        to_block(TABLE, target_site=[[1, 2, 1, 1]]),
        r"columns of \[2, 2, 3, 3, 3, 3, 2, 3\] numbers",
    ),
    "positions of two maps of one node": (
        to_block(SCORES, target_site=[[3, 1, 1, 1]]),
        f"block {MASK} writes to positions of two different maps of one node",
    ),
    "a site of one position for a region": (
        to_block(WEIGHTS, source_site=[[1, 1, 1, 1]], target_site=[[4, 1, 1, 1]]),
        f"block {WEIGHTS}: it reads 1 positions and writes 3; expected as many",
    ),
    "a linear layer on a part of its map": (
        to_block(READ, map_size=[5]),
        f"block {READ}: it reads 3 positions; its map has 5",
    ),
    "a position node read at a site": (
        to_block(TABLE, source_site=[[1, 1, 1, 3]]),
        f"block {TABLE}: it reads a bias or a position node at a site; they have no map",
    ),
    "constants beside values": (
        to_block(TABLE, constant=[[0.5, 3]]),
        f"block {TABLE}: OFFSET carries values and has constants",
    ),
    "constants spelled out": (to_block(ADDED, constant=[[1.0, 2]]), "the canonical form has"),
    "constants in pieces": (to_block(HEAD, constant=[[0.5, 1], [0.5, 1]]), "the canonical form has"),
    "constants that are texts": (to_block(HEAD, constant=[["half", 2]]), "found 'half' where a number"),
    "huge constants": (to_block(HEAD, constant=[[0.5, 2**30]]), r"its runs describe \d+ numbers; at most 4194304"),
    "a mask of a neuron": (
        to_block(HEAD, constant=[["-inf", 2]]),
        f"block {HEAD}: a constant is not finite; only a mask",
    ),
    "an infinite summand": (to_block(MASK, constant=[["inf", 1]]), f"block {MASK}: a constant is not finite"),
    "offsets without values": (
        to_block(ADDED, target_offset=[[0, 2, 1, 1]]),
        f"block {ADDED}: PASS carries no values and has offsets",
    ),
    "taps without values": (to_block(ADDED, tap_stride=1), f"block {ADDED}: PASS with the geometry"),
    "output padding of a sum": (to_block(ADDED, output_padding=[1]), f"block {ADDED}: PASS with the geometry"),
    "output padding of a whole stride": (
        to_block(UP, output_padding=[2]),
        f"block {UP}: TRANSPOSED_CONV_WEIGHT with the geometry",
    ),
    "no output padding": (
        drop("blocks", UP, "output_padding"),
        f"block {UP}: TRANSPOSED_CONV_WEIGHT with the geometry",
    ),
    "a query to a sum": (
        to_block(ADDED, kind="QUERY"),
        "QUERY with a target of kind SUM; its ends are not of the kind that its edges join .PRODUCT",
    ),
    "an embedding of a channel": (to_block(TABLE, kind="EMBEDDING"), "EMBEDDING with a source of kind POSITION"),
    "a statistic of a channel": (to_block(STATISTIC, sources=[[17, 1, 1, 1]]), "STATISTIC with a source of kind SUM"),
    "a query without a key": (
        to_block(QUERY, kind="KEY"),
        r"PRODUCT nodes from 13 on take KEY edges and have the chain \[\]; together they say nothing",
    ),
    "a query and a value": (to_block(KEY, kind="VALUE"), "PRODUCT nodes from 13 on take QUERY, VALUE edges"),
    "a query and a summand": (
        to_block(QUERY, kind="PASS"),
        "PRODUCT nodes from 13 on take KEY, PASS edges",
    ),
    "a softmax without statistics": (
        to_block(STATISTIC, kind="PASS", sources=[[15, 1, 1, 1]]),
        r"node 18, STATISTICS, is never computed or never used",
    ),
    "statistics of nothing": (
        both(
            to_set(10, to=["STATISTICS", 1, "layer10"]),
            change("chains", to=lambda chains: [chains[0], *chains[2:]]),
            to_set(15, to=["NORMALISED", 1, "layer15", 1]),
            to_block(READ, source_chain=[[2, 1, 1, 1]]),
            change("output_chain", 0, 0, to=3),
        ),
        r"STATISTICS nodes from 18 on take NORM_INPUT edges and have the chain \[\]",
    ),
    "a chain of a sum": (
        to_set(9, to=["SUM", 1, "layer9", 1]),
        r"SUM nodes from 17 on take PASS edges and have the chain \['SOFTMAX'\]",
    ),
    "a running mean without a variance": (
        to_block(VARIANCE, kind="NORM_BIAS"),
        r"NORMALISED nodes from 24 on take NORM_BIAS, NORM_MEAN, NORM_WEIGHT edges",
    ),
    "a softmax without axes": (drop("chains", 1, 0, 1, "axes"), "SOFTMAX has the settings .*; expected .*'axes'"),
    "axes out of order": (change("chains", 1, 0, 1, "axes", to=[1.0, 0.0]), r"SOFTMAX has axes \(1.0, 0.0\)"),
    "axes that the map has not": (change("chains", 1, 0, 1, "axes", to=[2.0]), r"SOFTMAX has axes \(2.0,\)"),
    "half an axis": (change("chains", 1, 0, 1, "axes", to=[0.5]), r"SOFTMAX has axes \(0.5,\)"),
    "a mean over no axis": (change("chains", 4, 0, 1, "axes", to=[]), r"MEAN has axes \(\)"),
    "a clamp between the wrong infinities": (
        change("chains", 3, 0, 1, "low", to=["inf"]),
        r"CLAMP has low \(inf,\)",
    ),
    "an infinite eps": (change("chains", 2, 0, 1, "eps", to=["inf"]), r"STANDARDISE has eps \(inf,\)"),
    "an output that is a bias": (change("outputs", 0, 0, to=23), "an output is of kind BIAS; expected one of NEURON"),
    "an output that is statistics": (
        change("outputs", 0, 0, to=18),
        "an output is of kind STATISTICS; expected one of",
    ),
}


def read_damaged(document: Document, damage: Callable[[Document], None], text: str) -> None:
    damage(document)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="not the text of a template: .*" + text):
            read_document(text_of(document))
        assert tracemalloc.get_traced_memory()[1] < ENOUGH_MEMORY
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_text_is_refused_before_anything_large_is_made(name: str) -> None:
    read_damaged(base(), *DAMAGED[name])


@pytest.mark.parametrize("name", DAMAGED_RICH)
def test_a_damaged_text_of_a_rich_template_is_refused_before_anything_large_is_made(name: str) -> None:
    read_damaged(json.loads(write_document(masked_attention())), *DAMAGED_RICH[name])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "JSONDecodeError"),
        ("{", "JSONDecodeError"),
        ("null", "TypeError"),
        ("[]", "TypeError"),
        ("{}", "KeyError: 'blocks'"),
        ("[" * 100_000, "RecursionError"),
        ("9" * 5000, "Exceeds the limit"),
        (text_of(base()).replace("[4.0]", "[NaN]").replace("4.0", "NaN"), "found NaN where a finite number belongs"),
        (text_of(base()).replace("4.0", "1e999"), "OverflowError|MAX_POOL has"),
        (json.dumps(base(), sort_keys=True), r"found ' .* at character \d+; the canonical form has"),
        (text_of(base()) + " ", r"found ' ' at character \d+; the canonical form has ''"),
        (text_of(base()).replace('"blocks"', '"blocks":[],"blocks"'), "the canonical form has"),
    ],
    ids=[
        "nothing",
        "half",
        "null",
        "a list",
        "empty",
        "deep",
        "long",
        "NaN",
        "infinite",
        "spaced",
        "trailing",
        "doubled",
    ],
)
def test_a_text_that_is_not_the_canonical_text_of_a_template_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match="not the text of a template: .*(" + reason + ")"):
        read_document(text)


def leaves(document: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The path of everything in a document."""
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [path, *(leaf for key, value in items for leaf in leaves(value, (*path, key)))]


ANYTHING = st.sampled_from(
    [
        None,
        True,
        -1,
        0,
        1,
        2,
        7,
        2**24,
        2**31 - 1,
        HUGE,
        0.5,
        1e300,
        "",
        "int64",
        [],
        {},
        [[]],
        [0, 1, 1, 1],
        MANY,
        MANY[0],
    ]
)


@given(st.data())
def test_any_damage_is_refused_or_leaves_a_template_of_bounded_size(data: st.DataObject) -> None:
    """One to three things replaced by anything, or dropped: an error, or a text that reads and writes the same."""
    document = json.loads(write_document(data.draw(st.sampled_from([masked_attention, plain]))()))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(leaves(document)[1:]))
        try:
            drop(*path)(document) if data.draw(st.booleans()) else change(*path, to=deepcopy(data.draw(ANYTHING)))(
                document
            )
        except (KeyError, IndexError, TypeError):
            continue
        if not leaves(document)[1:]:
            break
    text = text_of(document)
    tracemalloc.start()
    try:
        try:
            again, error = write_document(read_document(text)), ""
        except ValueError as refusal:
            again, error = text, str(refusal)
        assert tracemalloc.get_traced_memory()[1] < ENOUGH_MEMORY
    finally:
        tracemalloc.stop()
    assert again == text
    assert not error or error.startswith("not the text of a template: ")
