"""Pieces of random networks on tokens, and on vectors: the tables `ON_TOKENS` and `ON_VECTORS`."""

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from torch import Tensor, nn
from torch.nn import functional

from random_pieces import Features, Piece, activation, fixed_places, mixing, widths
from tiny_networks import Wired
from tiny_operations import Learned


def attended(
    draw: DrawFn,
    features: Features,
    attend: Callable[[Any, Tensor, Tensor, Tensor], Tensor],
    heads: int,
    shared: int,
    size: int,
) -> nn.Module:
    """Projections to heads of a size, ``shared`` heads to each key and value, what attends, and a layer back."""

    def wiring(net: Any, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(2, (-1, size)).transpose(1, 2) for part in (net.query(x), net.key(x), net.value(x)))
        return net.out(attend(net, q, k, v).transpose(1, 2).flatten(2))

    width, kept = heads * size, heads // shared * size
    return Learned(
        wiring,
        {"table": (heads, 2 * features.shape[0] - 1)} if attend is relative else {},
        query=nn.Linear(features.width, width, bias=draw(st.booleans())),
        key=nn.Linear(features.width, kept, bias=draw(st.booleans())),
        value=nn.Linear(features.width, kept, bias=draw(st.booleans())),
        out=nn.Linear(width, features.width, bias=draw(st.booleans())),
    )


def heads_and_shared(draw: DrawFn) -> tuple[int, int]:
    """How many heads, and how many of them share a key and value."""
    return draw(st.sampled_from([(1, 1), (2, 1), (2, 2), (3, 1), (4, 2)]))


def attention_by_hand(draw: DrawFn, features: Features) -> nn.Module:
    (heads, shared), causal = heads_and_shared(draw), draw(st.booleans())

    def attend(net: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
        scores = q @ k.transpose(-1, -2) / 3
        if causal:
            scores = scores.masked_fill(torch.ones(scores.shape[-2:]).tril() == 0, -torch.inf)
        return scores.softmax(-1) @ v

    return attended(draw, features, attend, heads, shared, draw(st.integers(2, 3)))


def functional_attention(draw: DrawFn, features: Features) -> nn.Module:
    (heads, shared), mask = heads_and_shared(draw), draw(st.sampled_from(["none", "causal", "chosen", "summand"]))

    def attend(net: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        places = torch.arange(q.shape[2])
        far = (places[:, None] - places).abs()
        masks = {"chosen": far < 3, "summand": -0.5 * far.to(q.dtype)}
        return functional.scaled_dot_product_attention(
            q, k, v, attn_mask=masks.get(mask), is_causal=mask == "causal", enable_gqa=shared > 1
        )

    return attended(draw, features, attend, heads, shared, draw(st.integers(2, 3)))


def relative(net: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A learned summand for each head and distance between two positions."""
    places = torch.arange(q.shape[2])
    bias = net.table[:, places[:, None] - places + len(places) - 1]
    return (q @ k.transpose(-1, -2) + bias).softmax(-1) @ v


def rotated(net: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Queries and keys turned by the angle of their position."""
    angle = torch.arange(float(q.shape[2]))[:, None]

    def turned(x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], dim=-1)

    return (turned(q) @ turned(k).transpose(-1, -2)).softmax(-1) @ v


def with_residual(piece: Piece) -> Piece:
    def around(draw: DrawFn, features: Features) -> nn.Module:
        return Wired(lambda net, x: x + net.over(x), over=piece(draw, features))

    return around


def relative_attention(draw: DrawFn, features: Features) -> nn.Module:
    return attended(draw, features, relative, draw(st.integers(1, 2)), 1, draw(st.integers(2, 3)))


def rotary_attention(draw: DrawFn, features: Features) -> nn.Module:
    return attended(draw, features, rotated, draw(st.integers(1, 2)), 1, draw(st.sampled_from([2, 4])))


def multihead_attention(draw: DrawFn, features: Features) -> nn.Module:
    heads, size, bias = draw(st.integers(1, 3)), draw(st.integers(2, 3)), draw(st.booleans())
    tokens = features.shape[0]
    # Boolean: PyTorch 2.13 misreads a float32 mask beside float64 queries, from 16 tokens on.
    mask = torch.ones(tokens, tokens).triu(1) == 1 if draw(st.booleans()) else None
    return Wired(
        lambda net, x: (lambda h: h + net.over(h, h, h, need_weights=False, attn_mask=mask)[0])(net.embed(x)),
        embed=nn.Linear(features.width, heads * size),
        over=nn.MultiheadAttention(heads * size, heads, bias=bias, batch_first=True),
    )


def encoder_layer(draw: DrawFn, features: Features) -> nn.Module:
    width, heads = draw(st.sampled_from([(4, 2), (6, 2), (6, 3), (3, 1)]))
    return nn.Sequential(
        nn.Linear(features.width, width),
        nn.TransformerEncoderLayer(
            *(width, heads, widths(draw)),
            activation=draw(st.sampled_from(["relu", "gelu"])),
            norm_first=draw(st.booleans()),
            bias=draw(st.booleans()),
            batch_first=True,
        ),
    )


def learned_places(draw: DrawFn, features: Features) -> nn.Module:
    return Learned(
        lambda net, x: net.mix(net.act(x + net.places)),
        {"places": features.shape},
        act=activation(draw),
        mix=mixing(features, features.width),
    )


def class_token(draw: DrawFn, features: Features) -> nn.Module:
    """A learned token before the others, places, and a layer in which all attend to all."""
    tokens, width = features.shape
    return Learned(
        lambda net, x: (lambda h: h + net.over(h))(
            (torch.cat([net.token.expand(x.shape[0], -1, -1), x], dim=1) + net.places).tanh()
        ),
        {"token": (1, 1, width), "places": (1, tokens + 1, width)},
        over=relative_attention(draw, Features(layout="tokens", shape=(tokens + 1, width))),
    )


def joined_tokens(draw: DrawFn, features: Features) -> nn.Module:
    """Tokens after what a layer makes of them."""
    return Wired(
        lambda net, x: torch.cat([net.act(net.layer(x)), x], dim=1),
        layer=nn.Linear(features.width, features.width),
        act=activation(draw),
    )


def deep_sets(draw: DrawFn, features: Features) -> nn.Module:
    width = widths(draw)
    return Wired(
        lambda net, x: net.act(net.own(x) + net.mean(x.mean(1, keepdim=True))),
        own=nn.Linear(features.width, width, bias=draw(st.booleans())),
        mean=nn.Linear(features.width, width, bias=False),
        act=activation(draw),
    )


def recurrent_layer(draw: DrawFn, features: Features) -> nn.Module:
    """Gated or plain, from a state of zeros."""
    build = draw(st.sampled_from([nn.RNN, nn.GRU, nn.LSTM]))
    return Wired(
        lambda net, x: net.layer(x)[0],
        layer=build(features.width, draw(st.integers(2, 4)), bias=draw(st.booleans()), batch_first=True),
    )


def feed_forward(draw: DrawFn, features: Features) -> nn.Module:
    """A gated feed-forward layer, as language models have it."""
    width = widths(draw)
    return Wired(
        lambda net, x: x + net.down(functional.silu(net.gate(x)) * net.up(x)),
        gate=nn.Linear(features.width, width, bias=False),
        up=nn.Linear(features.width, width, bias=False),
        down=nn.Linear(width, features.width, bias=False),
    )


def tied(draw: DrawFn, features: Features) -> nn.Module:
    """A layer, and its transpose back."""
    return Wired(
        lambda net, x: functional.linear(net.act(net.layer(x)), net.layer.weight.t()).tanh(),
        layer=nn.Linear(features.width, widths(draw), bias=draw(st.booleans())),
        act=activation(draw),
    )


def matrices(draw: DrawFn, features: Features) -> nn.Module:
    """Parameters instead of layers."""
    width = widths(draw)
    return Learned(lambda net, x: (x @ net.a + net.b).tanh(), {"a": (features.width, width), "b": (width,)})


ON_TOKENS: dict[str, Piece] = {
    "attention by hand": with_residual(attention_by_hand),
    "functional attention": with_residual(functional_attention),
    "relative attention": with_residual(relative_attention),
    "rotary attention": with_residual(rotary_attention),
    "multihead attention": multihead_attention,
    "encoder layer": encoder_layer,
    "fixed places": fixed_places,
    "learned places": learned_places,
    "class token": class_token,
    "joined tokens": joined_tokens,
    "deep sets": deep_sets,
    "recurrent layer": recurrent_layer,
    "feed forward": feed_forward,
    "tied": tied,
    "matrices": matrices,
}

ON_VECTORS: dict[str, Piece] = {"feed forward": feed_forward, "tied": tied, "matrices": matrices}
