"""Hypothesis strategies for networks of every supported piece: several layers of two to eight features each.

    network, example_input = draw(networks("image"))

A network is a stem (an image of one to three dimensions, tokens, words, a plain vector), some pieces in a row that keep
the layout, perhaps another layout and more pieces, and a head. The pieces are the tables of `random_pieces`,
`random_map_pieces` and `random_token_pieces`; `TRANSITIONS`, here, leads from one layout to another. Modules carry the
names of their pieces, and `--hypothesis-show-statistics` says how often each was drawn.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from math import prod

import torch
from hypothesis import event
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from torch import Tensor, nn

from random_map_pieces import ADAPTIVE, MOST_POSITIONS, ON_MAPS, doubles, halves
from random_pieces import ANYWHERE, CONVOLUTIONS, Features, Piece, activation, as_map, layer, mixing, plain, widths
from random_token_pieces import ON_TOKENS, ON_VECTORS, relative_attention
from tiny_networks import Wired


def piece_of_maps(draw: DrawFn, features: Features) -> nn.Module:
    """A piece of one-dimensional maps, over the tokens."""
    tokens, width = features.shape
    maps = Features(layout="maps", shape=(width, tokens))
    return as_map(ON_MAPS[draw(st.sampled_from(fitting(ON_MAPS, maps)))](draw, maps))


OF_LAYOUT: dict[str, dict[str, Piece]] = {
    "maps": ON_MAPS,
    "tokens": {**ON_TOKENS, "piece of maps": piece_of_maps},
    "vectors": ON_VECTORS,
}
"""The pieces that stand in one layout only."""


NEEDS: dict[str, Callable[[Features], bool]] = {
    "pixel shuffle": doubles,
    "merged patches": halves,
    "attention over positions": lambda features: 2 * prod(features.positions) <= MOST_POSITIONS,
    "joined tokens": lambda features: features.shape[0] <= 8,
    "recurrent layer": lambda features: features.shape[0] <= 8,
}
"""Where a piece can stand; the others can anywhere."""


def flattened(draw: DrawFn, features: Features) -> nn.Module:
    """Every position of every channel is a feature, perhaps normalised, and read by a linear layer."""
    count = prod(features.shape)
    affine = draw(st.booleans())
    norm = draw(
        st.sampled_from(
            [nn.Identity(), nn.BatchNorm1d(count, affine=affine), nn.LayerNorm(count, elementwise_affine=affine)]
        )
    )
    return nn.Sequential(nn.Flatten(), norm, nn.Linear(count, widths(draw)), activation(draw))


def over_positions(reduce: Callable[[Tensor, tuple[int, ...]], Tensor]) -> Piece:
    def piece(draw: DrawFn, features: Features) -> nn.Module:
        axes = (1,) if features.layout == "tokens" else tuple(range(2, 2 + features.rank))
        return Wired(lambda net, x: reduce(net.act(x), axes), act=activation(draw))

    return piece


def pooled(draw: DrawFn, features: Features) -> nn.Module:
    """Global average pooling, as modules say it."""
    return nn.Sequential(activation(draw), ADAPTIVE[features.rank][0](1), nn.Flatten())


def first_token(draw: DrawFn, features: Features) -> nn.Module:
    """One token, which has attended to all."""
    return Wired(lambda net, x: (x + net.over(x))[:, 0], over=relative_attention(draw, features))


def positions_as_tokens(draw: DrawFn, features: Features) -> nn.Module:
    """Each position a token, perhaps of a patch of two a side."""
    kernel = 2 if 2 * prod(features.positions) > MOST_POSITIONS or halves(features) else 1
    made = CONVOLUTIONS[features.rank](features.width, widths(draw), kernel, stride=kernel)
    return Wired(lambda net, x: net.patches(x).flatten(2).transpose(1, 2), patches=made)


def as_sequence(draw: DrawFn, features: Features) -> nn.Module:
    """Tokens as positions of a one-dimensional map."""
    return Wired(lambda net, x: x.transpose(1, 2))


def decoder(draw: DrawFn, features: Features) -> nn.Module:
    """Features as positions of a new map."""
    rank = draw(st.integers(1, 3))
    shape = (draw(st.integers(1, 3)), *(draw(st.integers(3, 5 if rank < 3 else 3)) for _ in range(rank)))
    maps = Features(layout="maps", shape=shape)
    return nn.Sequential(
        nn.Linear(features.width, prod(shape)), activation(draw), nn.Unflatten(1, shape), mixing(maps, maps.width)
    )


def features_as_tokens(draw: DrawFn, features: Features) -> nn.Module:
    """Features as tokens of a few."""
    shape = (draw(st.integers(3, 5)), draw(st.integers(2, 4)))
    tokens = Features(layout="tokens", shape=shape)
    return nn.Sequential(
        nn.Linear(features.width, prod(shape)), activation(draw), nn.Unflatten(1, shape), mixing(tokens, tokens.width)
    )


TRANSITIONS: dict[str, dict[str, tuple[str, Piece]]] = {
    "maps": {
        "flattened": ("vectors", flattened),
        "mean": ("vectors", over_positions(lambda x, axes: x.mean(axes))),
        "maximum of positions": ("vectors", over_positions(lambda x, axes: x.amax(axes))),
        "pooled": ("vectors", pooled),
        "positions as tokens": ("tokens", positions_as_tokens),
    },
    "tokens": {
        "flattened": ("vectors", flattened),
        "mean": ("vectors", over_positions(lambda x, axes: x.mean(axes))),
        "sum": ("vectors", over_positions(lambda x, axes: x.sum(axes))),
        "first token": ("vectors", first_token),
        "as sequence": ("maps", as_sequence),
    },
    "vectors": {"decoder": ("maps", decoder), "features as tokens": ("tokens", features_as_tokens)},
}


def image(draw: DrawFn) -> Tensor:
    sizes = {1: [5, 7, 9, 12], 2: [5, 6, 7], 3: [3, 4]}[rank := draw(st.integers(1, 3))]
    return torch.zeros(1, draw(st.integers(1, 3)), *(draw(st.sampled_from(sizes)) for _ in range(rank)))


def tokens(draw: DrawFn) -> Tensor:
    return torch.zeros(1, draw(st.integers(3, 7)), draw(st.integers(1, 5)))


def words(draw: DrawFn) -> Tensor:
    return torch.zeros(1, draw(st.integers(3, 7)), dtype=torch.int64)


def embedding(draw: DrawFn, features: Features) -> nn.Module:
    return nn.Embedding(draw(st.integers(3, 7)), widths(draw))


def vector(draw: DrawFn) -> Tensor:
    return torch.zeros(1, draw(st.integers(1, 6)))


INPUTS: dict[str, tuple[str, Callable[[DrawFn], Tensor]]] = {
    "image": ("maps", image),
    "tokens": ("tokens", tokens),
    "words": ("tokens", words),
    "vector": ("vectors", vector),
}


def fitting(names: Iterable[str], features: Features) -> list[str]:
    """Those pieces that can stand here."""
    return sorted(name for name in names if name not in NEEDS or NEEDS[name](features))


def head(draw: DrawFn, features: Features) -> nn.Module:
    """A layer, perhaps with a softmax over its outputs."""
    outputs, axis = draw(st.integers(1, 3)), features.axis
    last = [nn.Identity(), nn.Softmax(axis), nn.LogSoftmax(axis)] if outputs > 1 else [nn.Identity()]
    return nn.Sequential(layer(draw, features, outputs), draw(st.sampled_from(last)))


@st.composite
def networks(draw: DrawFn, kind: str) -> tuple[nn.Module, Tensor]:
    """A stem for an input of a kind, pieces in up to three layouts, and a head; and an example input."""
    layout, make = INPUTS[kind]
    example, modules = make(draw), dict[str, nn.Module]()
    features = Features(layout=layout, shape=tuple(example.shape[1:]))

    def add(name: str, piece: Piece, layout: str) -> None:
        nonlocal features
        event(f"{layout}: {name}")
        module = piece(draw, features)
        modules[f"{len(modules)}_{name}".replace(" ", "_")] = module
        features = features.after(module, layout)

    add(kind, embedding if kind == "words" else plain, layout)
    for number in range(draw(st.integers(1, 3))):
        if number:
            name = draw(st.sampled_from(sorted(TRANSITIONS[layout])))
            layout, piece = TRANSITIONS[layout][name]
            add(name, piece, layout)
        for _ in range(draw(st.integers(2, 4))):
            own = OF_LAYOUT[layout]
            name = draw(st.sampled_from(fitting([*ANYWHERE, *own, *own], features)))  # its own twice as often
            add(name, {**ANYWHERE, **own}[name], layout)
    add("head", head, layout)
    return nn.Sequential(OrderedDict(modules)), example
