"""Pictures of graphs: what they say, where things stand, and that the same graph gives the same bytes."""

import re
from html import unescape
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.draw_graph import picture
from pipeline.drawing_canvas import TITLE, width_of
from pipeline.drawing_layout import Band, bands, lane_heights
from pipeline.drawing_words import name_lines, operation_words, packed
from pipeline.graph_kinds import EdgeKind, NodeKind, Operation, Step
from pipeline.graph_outline import Outline, outline
from pipeline.layer_cells import heights, measured
from pipeline.parameter_graph import GraphTemplate
from pipeline.tracing import trace


class BasicBlock(nn.Module):
    """With a projection around it."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Conv2d(channels, width, 1, stride=2)

    def forward(self, image: Tensor) -> Tensor:
        inside = torch.relu(self.norm1(self.conv1(image)))
        return torch.relu(self.norm2(self.conv2(inside)) + self.shortcut(image))


class Encoder(nn.Module):
    """A transformer layer with learned positions, normed before."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(11, 24)
        self.position = nn.Parameter(torch.zeros(1, 5, 24))
        self.layer = nn.TransformerEncoderLayer(24, 3, 34, batch_first=True, norm_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.layer(self.embed(tokens) + self.position)


def wide_block() -> GraphTemplate:
    return trace(BasicBlock(13, 17), torch.zeros(1, 13, 8, 8))


def tiny_mlp() -> GraphTemplate:
    network = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, 2))
    return trace(network, torch.zeros(1, 3))


def words_of(svg: bytes) -> list[str]:
    """All words of an SVG picture."""
    return [unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg.decode())]


def test_a_wide_network_says_its_layers_their_sizes_and_what_its_edges_are() -> None:
    """conv1 has 17 * 13 * 9 edges, conv2 17 * 17 * 9, the projection 17 * 13; a stride of 2 halves the map of 8."""
    words = words_of(picture(wide_block(), "svg"))
    for expected in (
        "conv1",
        "conv2",
        "norm1",
        "norm2",
        "shortcut",
        "13 channels of 8×8",
        "17 channels of 4×4",
        "batch norm",
        "(running statistics)",
        "conv 3×3, stride 2",
        "conv 3×3, stride 1",
        "padding 1",
        "padding 0",
        "1,989 edges",
        "2,601 edges",
        "conv 1×1, stride 2",
        "221 edges",
        "bias, mean, variance",
        "3 × 17 edges",
        "output",
    ):
        assert expected in words
    assert words.count("ReLU") == 2
    assert words.count("17 channels of 4×4") == 6


def test_attention_says_its_heads_what_they_sum_and_over_which_positions() -> None:
    words = words_of(picture(trace(Encoder(), torch.zeros(1, 5, 11)), "svg"))
    for expected in ("3 heads of width 8", "each sums 8 products", "72 features", "34 features", "mean, deviation"):
        assert expected in words
    for expected in ("query", "key", "value", "queries, keys, values", "queries × keys", "attention × values"):
        assert expected in words
    assert words.count("pairs of positions 5×5") == 3
    assert "at 5 positions" in words
    assert " ".join(words).count("positions attended to") == 2
    assert "summed over the 5" in words
    assert "offset, to 5 positions" in words
    assert "120 edges" in words


def test_a_tiny_network_shows_every_node_and_every_edge() -> None:
    """19 nodes: 3 + 5 + 1 + 1 + 5 + 1 + 2 + 1; the legend has a dot for each of 5 kinds. Curves: 52 edges."""
    template = tiny_mlp()
    svg = picture(template, "svg", np.linspace(-1, 1, template.num_values, dtype=np.float32)).decode()
    assert (template.num_nodes, template.num_edges) == (19, 52)
    assert len(re.findall(r'<path d="[^"]*[QC][^"]*" clip-path="[^"]*" style="fill: none', svg)) == 52
    words = words_of(svg.encode())
    assert "linear, 15 edges" in words
    assert "layer norm" in words
    place = words.index("GELU then")
    assert words[place : place + 2] == ["GELU then", "linear, 10 edges"]


def test_operations_of_a_tiny_network_stand_between_the_columns_they_act_between() -> None:
    svg = picture(tiny_mlp(), "svg").decode()
    across = {
        unescape(words): float(x)
        for x, words in re.findall(r'<text[^>]*?(?:translate\(| x=")([-\d.]+)[^>]*>([^<]*)</text>', svg)
    }
    assert across["layer norm"] < across["GELU then"] < across["2 features"]
    assert across["GELU then"] == pytest.approx((across["layer norm"] + across["2 features"]) / 2)


@pytest.mark.parametrize(
    ("norm", "shape", "words"),
    [
        (nn.BatchNorm2d(6), (6, 3, 2), ("batch norm", "(running statistics)")),
        (nn.GroupNorm(2, 6), (6, 3, 2), ("group norm (2 groups)", "over positions")),
        (nn.GroupNorm(1, 6), (6, 3, 2), ("group norm (1 group)", "over positions")),
        (nn.InstanceNorm2d(6), (6, 3, 2), ("instance norm", "over positions")),
        (nn.LayerNorm([6, 3, 2]), (6, 3, 2), ("layer norm", "over positions")),
        (nn.LayerNorm(6), (3, 6), ("layer norm", "per position")),
        (nn.LayerNorm(6), (6,), ("layer norm",)),
        (nn.RMSNorm(6), (3, 6), ("RMS norm", "per position")),
        (nn.Softmax(-1), (3, 6), ("softmax", "per position")),
        (nn.LogSoftmax(-1), (6,), ("log softmax",)),
    ],
)
def test_a_norm_says_which_it_is_and_what_it_runs_over(norm: nn.Module, shape: tuple[int, ...], words: tuple) -> None:
    """A layer before it makes the channels."""
    first = nn.Conv2d(6, 6, 1) if len(shape) == 3 else nn.Linear(6, 6)
    if isinstance(norm, nn.LayerNorm) and norm.weight.dim() > 1:
        norm.weight.data = torch.arange(1.0, 37.0).reshape(norm.weight.shape)
    shown = outline(trace(nn.Sequential(first, norm).eval(), torch.zeros(1, *shape)))
    [number] = [n for n, nodes in enumerate(shown.template.node_sets) if nodes.kind == NodeKind.NORMALISED]
    assert shown.words[number].role == words


def test_no_two_boxes_read_the_same() -> None:
    class Twice(nn.Module):
        """One layer used twice, and two sums without a name."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, rows: Tensor) -> Tensor:
            once = self.layer(rows) + rows
            return self.layer(once) + once

    for template in (trace(Twice(), torch.zeros(1, 3)), trace(Encoder(), torch.zeros(1, 5, 11)), wide_block()):
        shown = outline(template)
        boxes = [(shown.words[number].title, *shown.words[number].lines) for number in shown.column]
        assert len(boxes) == len(set(boxes)), boxes
    twice = outline(trace(Twice(), torch.zeros(1, 3)))
    named = {(twice.words[number].name, *twice.words[number].lines) for number in twice.column}
    assert ("layer 2 of 2", "linear, 2 of 2", "3 features") in named
    assert ("sum 1 of 2", "1 of 2", "3 features") in named


def test_pieces_of_an_image_in_a_row_are_features_at_positions() -> None:
    """Patches of 4 by 4 positions, joined with a learned token: a sequence of 17."""

    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Conv2d(3, 7, 2, stride=2)
            self.token = nn.Parameter(torch.zeros(1, 1, 7))

        def forward(self, images: Tensor) -> Tensor:
            return torch.cat([self.token.expand(len(images), -1, -1), self.patch(images).flatten(2).transpose(1, 2)], 1)

    shown = outline(trace(Patches(), torch.zeros(1, 3, 8, 8)))
    lines = [shown.words[number].lines for number in shown.column]
    for expected in (["3 channels of 8×8"], ["7 channels of 4×4"], ["7 features", "at 17 positions"]):
        assert expected in lines
    assert ["learned constants", "7 features"] in lines


@given(
    st.tuples(st.integers(5, 9), st.integers(1, 3), st.integers(1, 3), st.integers(0, 1), st.integers(1, 2)),
    st.booleans(),
)
def test_the_map_of_a_convolution_is_the_one_torch_computes(
    sizes: tuple[int, int, int, int, int], transposed: bool
) -> None:
    extent, kernel, stride, padding, dilation = sizes
    layer = nn.ConvTranspose1d if transposed else nn.Conv1d
    network = layer(2, 3, kernel, stride=stride, padding=padding, dilation=dilation)
    images = torch.zeros(1, 2, extent)
    shown = outline(trace(network, images))
    [number] = [n for n, nodes in enumerate(shown.template.node_sets) if nodes.kind == NodeKind.NEURON]
    assert shown.words[number].lines == [f"3 channels of length {network(images).shape[-1]}"]
    assert shown.words[0].lines == [f"2 channels of length {extent}"]


def test_values_colour_the_edges_of_a_tiny_network() -> None:
    template = tiny_mlp()
    zeros = np.zeros(template.num_values, dtype=np.float32)
    assert "#b3bac2" in picture(template, "svg", zeros).decode()
    one = zeros.copy()
    one[0] = -3.0
    assert "#8a3b04" in picture(template, "svg", one).decode()
    assert "#08306b" in picture(template, "svg", -one).decode().split("values of edges")[0]
    one[1] = np.nan
    svg = picture(template, "svg", one)
    assert "#d0021b" in svg.decode()
    assert "values that are no numbers" in words_of(svg)


@pytest.mark.parametrize("file_format", ["svg", "png", "pdf"])
@pytest.mark.parametrize("make", [wide_block, tiny_mlp])
def test_the_same_graph_gives_the_same_bytes(make, file_format: str) -> None:
    first, second = picture(make(), file_format), picture(make(), file_format)
    assert first == second
    assert first.startswith({"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[file_format])


def test_a_graph_and_a_template_draw_themselves_into_a_file(tmp_path: Path) -> None:
    template = tiny_mlp()
    template.draw(tmp_path / "template.svg")
    template.graph(np.ones(template.num_values, dtype=np.float32)).draw(str(tmp_path / "graph.SVG"))
    assert (tmp_path / "template.svg").read_bytes() == picture(template, "svg")
    assert (tmp_path / "graph.SVG").read_bytes() != picture(template, "svg")


def test_another_suffix_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"graph\.gif: found the suffix '\.gif'; expected one of \.svg, \.png, \.pdf"):
        tiny_mlp().draw(tmp_path / "graph.gif")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing/graph.svg", r"missing/graph\.svg: there is no folder .*missing; make it, or choose another"),
        ("folder.svg", r"folder\.svg: found a folder; expected the name of a file"),
        (f"{'x' * 250}.svg", r"xx\.svg: cannot be written \(File name too long\); choose another name or folder"),
    ],
)
def test_a_file_that_cannot_be_written_is_called_as_its_user_called_it(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(ValueError, match=message) as caught:
        tiny_mlp().draw(tmp_path / name)
    assert "aside" not in str(caught.value)


@pytest.mark.parametrize("width", [2, 31])
def test_any_name_of_a_module_can_be_drawn(width: int) -> None:
    """Letters the font lacks, mathematics, markup, and what XML cannot hold."""
    network = nn.Sequential()
    for name in ("層の名前", "$x_1$", "<b>&amp;", "bell\a", "half\ud800", "x" * 100):
        network.add_module(name, nn.Linear(width, width))
    template = trace(network, torch.zeros(1, width))
    svg = picture(template, "svg")
    ElementTree.fromstring(svg)
    for expected in ("層の名前", "$x_1$", "<b>&amp;", "bell\ufffd", "half\ufffd", "…" + "x" * 17):
        assert expected in words_of(svg)
    for file_format in ("png", "pdf"):
        assert picture(template, file_format)


def test_the_scale_of_values_stands_beside_the_counts_and_is_left_out_without_values() -> None:
    template = tiny_mlp()
    svg = picture(template, "svg", np.ones(template.num_values, dtype=np.float32)).decode()
    [start] = re.findall(r' x="([\d.]+)"[^>]*>19 nodes', svg)
    [scale] = re.findall(r' x="([\d.]+)"[^>]*>values of edges', svg)
    assert float(scale) / 72 > float(start) / 72 + width_of("19 nodes · 52 edges · 47 values", TITLE)
    words = words_of(picture(trace(nn.ReLU(), torch.zeros(1, 3)), "svg", np.zeros(0, dtype=np.float32)))
    assert "values of edges" not in words
    assert "edges with values" not in words


def test_edges_of_a_tensor_that_is_used_twice_or_tied_say_its_name() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.twice, self.head = nn.Embedding(7, 5), nn.Linear(5, 5), nn.Linear(5, 7)
            self.head.weight = self.embed.weight

        def forward(self, words: Tensor) -> Tensor:
            return self.head(self.twice(torch.relu(self.twice(self.embed(words)))))

    bundles = outline(trace(Tied(), torch.zeros(1, 3, dtype=torch.int64))).bundles
    shared = [word for bundle in bundles for word in bundle.words if word.startswith("shared")]
    names = ["embed.weight", "twice.weight", "twice.bias"]
    assert sorted(shared) == sorted(2 * [f"shared: {name}" for name in names])


def test_two_weights_that_are_one_layer_are_not_called_shared() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.upper, self.lower = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.zeros(3, 3))

        def forward(self, rows: Tensor) -> Tensor:
            return nn.functional.linear(rows, torch.cat([self.upper, self.lower]))

    for template in (wide_block(), trace(Joined(), torch.zeros(1, 3))):
        assert not [bundle for bundle in outline(template).bundles if "shared" in " ".join(bundle.words)]


def test_words_around_the_arrows_of_a_box_and_of_its_statistics_do_not_meet() -> None:
    """A norm over two layers, which it reads through two chains, and its statistics too."""

    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.norm = nn.Linear(3, 5), nn.Linear(3, 5), nn.LayerNorm(10)

        def forward(self, rows: Tensor) -> Tensor:
            return self.norm(torch.cat([torch.tanh(self.first(rows)), self.second(rows)], 1))

    shown = outline(trace(Joined(), torch.zeros(1, 3)))
    [number] = [n for n, nodes in enumerate(shown.node_sets) if nodes.kind == NodeKind.NORMALISED]
    lanes = {source: source for source, target in shown.links if target == number}
    found = heights(measured(shown, number), lanes, min(lanes))
    stacked = sorted(found.arrows, key=lambda arrow: -arrow[1])
    assert len(stacked) == 4
    assert 0.0 in [height for _, height in stacked]
    for (upper, high), (lower, low) in pairwise(stacked):
        assert high - upper.below > low + lower.above
    for place in (stacked[:2], stacked[2:]):
        foot, top = found.statistics if place == stacked[:2] else (found.foot, found.top)
        assert all(foot < height < top for _, height in place)


def test_tokens_with_the_batch_second_are_features_at_positions() -> None:
    """`nn.MultiheadAttention` puts the batch, one example, between positions and features."""
    shown = outline(trace(nn.TransformerEncoderLayer(2, 1, 3, batch_first=True), torch.zeros(1, 3, 2)))
    lines = [words.lines for words in shown.words]
    assert lines[0] == ["2 features", "at 3 positions"]
    assert ["queries × keys", "2 products", "pairs of positions 3×3"] in lines


def test_a_wide_network_is_drawn_without_its_single_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    template = wide_block()

    def refuse(_: GraphTemplate) -> None:
        raise AssertionError("every edge was asked for")

    monkeypatch.setattr("pipeline.graph_edges.expand", refuse)
    picture(template, "svg")
    with pytest.raises(AssertionError, match="every edge was asked for"):
        picture(tiny_mlp(), "svg")


def test_bundles_hold_every_edge_once() -> None:
    for template in (wide_block(), tiny_mlp(), trace(Encoder(), torch.zeros(1, 5, 11))):
        assert sum(bundle.num_edges for bundle in outline(template).bundles) == template.num_edges


def test_groups_are_counted_in_each_group() -> None:
    """6 channels in 3 groups of 2, each read by 2 of 6: 3 * 2 * 2 edges; then 6 channels, each by itself."""
    network = nn.Sequential(nn.Conv1d(6, 6, 1, groups=3), nn.Conv1d(6, 6, 2, groups=6), nn.Conv1d(6, 1, 1))
    bundles = [b for b in outline(trace(network, torch.zeros(1, 6, 4))).bundles if b.kind == EdgeKind.CONV_WEIGHT]
    assert [(bundle.words, bundle.num_edges) for bundle in bundles] == [
        (("conv 1", "stride 1", "padding 0", "3 groups"), 12),
        (("conv 2", "stride 1", "padding 0", "depthwise"), 12),
        (("conv 1", "stride 1", "padding 0"), 6),
    ]


def shown_block() -> Outline:
    return outline(wide_block())


def test_columns_run_with_the_arrows_and_constants_stand_beside_what_they_serve() -> None:
    shown = shown_block()
    names = {number: nodes.name for number, nodes in enumerate(shown.template.node_sets)}
    beside = {(names[number], names[owner]) for number, owner in shown.beside.items()}
    assert beside == {("norm1", "norm1"), ("norm2", "norm2"), ("shortcut", "shortcut")}
    for bundle in shown.bundles:
        if bundle.source not in shown.beside:
            assert shown.column[bundle.source] < shown.column[bundle.target]
    columns = {names[number]: column for number, column in shown.column.items()}
    assert [columns[name] for name in ("input", "conv1", "shortcut", "norm1", "conv2", "norm2", "")] == [
        0,
        1,
        1,
        2,
        3,
        4,
        5,
    ]


def test_what_hangs_on_no_input_stands_right_before_what_reads_it() -> None:
    """A class token joins after the second layer: its nodes are drawn beside that layer, not beside the input."""

    class WithToken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 7))
            self.token = nn.Parameter(torch.zeros(1, 1, 7))

        def forward(self, tokens: Tensor) -> Tensor:
            return torch.cat([self.token.expand(len(tokens), -1, -1), self.embed(tokens)], 1)

    shown = outline(trace(WithToken(), torch.zeros(1, 4, 3)))
    sets = shown.template.node_sets
    columns = {(sets[number].kind, sets[number].name): column for number, column in shown.column.items()}
    assert columns[NodeKind.NEURON, ""] == columns[NodeKind.NEURON, "embed.2"] == 2


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (Step(operation=Operation.RELU), "ReLU"),
        (Step(operation=Operation.TANH), "tanh"),
        (Step(operation=Operation.SCALE, settings=(("number", (-0.5,)),)), "× −0.5"),
        (Step(operation=Operation.CLAMP, settings=(("high", (6.0,)), ("low", (0.0,)))), "clamp from 0 to 6"),
        (
            Step(operation=Operation.MAX_POOL, settings=(("kernel_size", (2.0, 3.0)), ("stride", (1.0, 1.0)))),
            "max pool 2×3, stride 1",
        ),
        (
            Step(operation=Operation.ADAPTIVE_AVERAGE_POOL, settings=(("output_size", (2.0, 2.0)),)),
            "average pool to 2×2",
        ),
        (Step(operation=Operation.SUM, settings=(("axes", (1.0,)), ("map_size", (5.0, 5.0)))), "sum over axis 2"),
        (Step(operation=Operation.MEAN, settings=(("axes", (0.0,)), ("map_size", (5.0,)))), "mean over map"),
    ],
)
def test_operations_are_told_in_the_words_of_the_field(step: Step, words: str) -> None:
    assert list(operation_words((step,))) == [words]


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), min_size=1, max_size=30))
def test_no_two_things_of_a_band_share_a_place(pairs: list[tuple[int, int]]) -> None:
    """Random networks: an item or a long link has every cell of its lane for itself, over all columns it spans."""
    links = sorted({(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]})
    column: dict[int, int] = {}
    for item in sorted({item for link in links for item in link}):
        column[item] = max((column[source] + 1 for source, target in links if target == item), default=0)
    if not column:
        return
    for band in bands(column, links, [2.0] * (max(column.values()) + 1), 6.0):
        cells = [(band.column[item], lane) for item, lane in band.lane.items()]
        for (source, target), lane in band.link_lane.items():
            cells += [(place, lane) for place in range(band.column[source] + 1, band.column[target])]
        assert len(cells) == len(set(cells))
        assert set(band.lane) == set(band.column)


def test_every_item_is_in_one_band_and_copied_where_it_is_read_further_on() -> None:
    column = {item: item for item in range(6)}
    links = [(item, item + 1) for item in range(5)] + [(0, 5)]
    found = bands(column, links, [1.0] * 6, 3.0)
    assert len(found) > 1
    original = [item for band in found for item in band.lane if item not in band.copies]
    assert sorted(original) == list(range(6))
    assert 0 in found[-1].copies


def test_lanes_leave_room_for_what_stands_in_them() -> None:
    """From below: lane 1 reaches 2 under and 1 over its middle, then a gap of 0.5, then lane 0 with 3 and 4."""
    band = Band(column={0: 0, 1: 0}, lane={0: 0, 1: 1})
    middle, height = lane_heights(band, above={0: 4.0, 1: 1.0}, below={0: 3.0, 1: 2.0}, link=0.1, gap=0.5)
    assert middle == {1: 2.0, 0: 6.5}
    assert height == 10.5


def test_words_are_packed_into_lines_and_paths_broken_at_dots() -> None:
    assert packed(["conv 3×3", "stride 2", "4 groups"]) == ["conv 3×3, stride 2", "4 groups"]
    assert packed(["summed over the 16 positions attended to"]) == ["summed over the 16", "positions attended to"]
    assert name_lines("layers.0.norm") == ["layers.0.norm"]
    assert name_lines("encoder.layers.0.self_attn") == ["encoder.layers.0.", "self_attn"]
    assert name_lines("averyveryverylongnameofamodule") == ["…longnameofamodule"]
