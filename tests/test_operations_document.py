"""docs/operations.md against the program: its counts, its refusals, its example and the places it names."""

import re
import runpy
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipeline.graph_kinds import EdgeKind, NodeKind
from pipeline.parameter_graph import GraphTemplate
from pipeline.symmetry_group import symmetry_group
from pipeline.template_rules import MAX_NUMBERS
from pipeline.trace_operations import RULES
from pipeline.tracing import trace
from tiny_networks import Wired

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "operations.md").read_text()


def table_after(marker: str) -> list[list[str]]:
    """The cells of the first table after a marker on the page, without its head."""
    lines = PAGE.partition(f"<!-- {marker} -->\n")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


class BasicBlock(nn.Module):
    """Of a ResNet, as everybody writes it: input, conv1, bn1, conv2, bn2, to 2 channels the shortcut, and the sum.

    1->1 has 1 + 1 + 2 + 1 + 2 + 1 = 8 nodes and 9 + 4 + 9 + 4 + 2 = 28 edges;
    1->2 has 1 + 2 + 3 + 2 + 3 + 2 + 3 + 2 = 18 nodes and 18 + 8 + 36 + 8 + 2 + 8 + 4 = 84 edges.
    """

    def __init__(self, num_inputs: int, num_outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_inputs, num_outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(num_outputs)
        self.conv2 = nn.Conv2d(num_outputs, num_outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(num_outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or num_inputs != num_outputs:
            projection = nn.Conv2d(num_inputs, num_outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(num_outputs))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(hidden)) + self.shortcut(x)).relu()


def transformer_layer() -> nn.Module:
    """Of width 1: input, query with key and value, scores, weighted values, output, sum, norm, two layers, sum, norm.

    It has 1 + 4 + 2 + 1 + 2 + 1 + 3 + 5 + 2 + 1 + 3 = 25 nodes and 6 + 3 + 2 + 2 + 2 + 4 + 8 + 5 + 2 + 4 = 38 edges.
    """
    return nn.TransformerEncoderLayer(1, 1, 4, batch_first=True)


def normed_mlp() -> nn.Module:
    """Input, a layer, its norm, a layer: 2 + 4 + 5 + 3 = 14 nodes and 9 + 12 + 8 = 29 edges."""
    return nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.ReLU(), nn.Linear(3, 2))


COUNTED: list[tuple[str, Callable[[], nn.Module], tuple[int, ...]]] = [
    ("BasicBlock 1->1", lambda: BasicBlock(1, 1), (1, 7, 5)),
    ("BasicBlock 1->1", lambda: BasicBlock(1, 1), (1, 11, 11)),
    ("BasicBlock 1->2", lambda: BasicBlock(1, 2), (1, 7, 5)),
    ("BasicBlock 1->2", lambda: BasicBlock(1, 2, stride=2), (1, 7, 5)),
    ("transformer layer of width 1", transformer_layer, (3, 1)),
    ("transformer layer of width 1", transformer_layer, (7, 1)),
    ("LayerNorm MLP", normed_mlp, (2,)),
]


def written(name: str) -> tuple[Counter[str], Counter[str], list[int]]:
    """The page's counts of a network: nodes by kind, edges by kind, and the numbers of its last line."""
    *rows, (_, *together) = table_after(f"count: {name}")
    nodes, edges = Counter[str](), Counter[str]()
    for counter, column in ((nodes, 1), (edges, 2)):
        for row in rows:
            for number, kind in re.findall(r"(\d+) `(\w+)`", row[column]):
                counter[kind] += int(number)
    return nodes, edges, [int(number) for number in re.findall(r"\d+", " ".join(together))]


def traced(name: str, build: Callable[[], nn.Module], shape: tuple[int, ...]) -> tuple[Counter[str], Counter[str], int]:
    """Nodes by kind, as their sets have them, edges by kind, and the number of values."""
    template = trace(build().eval(), torch.zeros(1, *shape))
    nodes, edges = Counter[str](), Counter[str]()
    for some in template.node_sets:
        nodes[some.kind.name] += some.count
    for block in template.blocks:
        edges[block.kind.name] += block.num_edges
    return nodes, edges, template.num_values


@pytest.mark.parametrize(("name", "build", "shape"), COUNTED)
def test_graphs_have_the_nodes_and_edges_that_the_page_counts(
    name: str, build: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    nodes, edges, together = written(name)
    assert together == [nodes.total(), edges.total(), sum(edges[kind.name] for kind in EdgeKind if kind.carries_value)]
    assert traced(name, build, shape) == (nodes, edges, together[2])


@pytest.mark.parametrize("name", dict.fromkeys(name for name, _, _ in COUNTED))
def test_products_on_the_page_are_multiplied_right(name: str) -> None:
    products = [
        (factors, int(number))
        for row in table_after(f"count: {name}")
        for factors, number in re.findall(r"([\d·]+) = (\d+)", row[2])
    ]
    assert products
    for factors, number in products:
        assert torch.tensor([int(factor) for factor in factors.split("·")]).prod() == number


@pytest.mark.parametrize(
    ("counted", "names"),
    [
        (BasicBlock, ["BasicBlock 1->1", "BasicBlock 1->2"]),
        (transformer_layer, ["transformer layer of width 1"]),
        (normed_mlp, ["LayerNorm MLP"]),
    ],
)
def test_sums_in_docstrings_are_those_of_the_page(counted: Callable[..., nn.Module], names: list[str]) -> None:
    sums = re.findall(r"([\d+ ]+) = (\d+) (?:nodes|edges)", counted.__doc__ or "")
    assert [int(total) for _, total in sums] == [number for name in names for number in written(name)[2][:2]]
    for terms, total in sums:
        assert sum(int(term) for term in terms.split("+")) == int(total)


def test_the_page_names_every_kind() -> None:
    for kind in (*NodeKind, *EdgeKind):
        assert f"`{kind.name}`" in PAGE


def test_the_page_states_the_limit_that_holds() -> None:
    assert "2^22" in PAGE
    assert MAX_NUMBERS == 2**22


REFUSED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "token-mixing linear layer": (
        lambda: Wired(lambda net, x: net.mix(net.first(x).transpose(1, 2)), first=nn.Linear(2, 3), mix=nn.Linear(5, 7)),
        (5, 2),
    ),
    "control flow that depends on data": (
        lambda: Wired(lambda net, x: net.first(x) if x.sum() > 0 else -net.first(x), first=nn.Linear(2, 3)),
        (2,),
    ),
    "mask computed from the input": (
        lambda: Wired(lambda net, x: torch.where(x > 0, net.first(x), 0.0), first=nn.Linear(2, 2)),
        (2,),
    ),
    "complex numbers": (
        lambda: Wired(lambda net, x: torch.fft.fft(net.first(x)).real, first=nn.Linear(2, 3)),
        (2,),
    ),
    "other precision": (lambda: Wired(lambda net, x: net.first(x).double(), first=nn.Linear(2, 3)), (2,)),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)), (2,)),
    "spectral norm": (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(2, 3)), (2,)),
    "element read twice": (
        lambda: Wired(lambda net, x: net.head(net.first(x).repeat(1, 2)), first=nn.Linear(2, 3), head=nn.Linear(6, 2)),
        (2,),
    ),
    "constant matrix": (
        lambda: Wired(lambda net, x: net.first(x) @ torch.arange(9.0).reshape(3, 3), first=nn.Linear(2, 3)),
        (2,),
    ),
    "parameter that never acts": (
        lambda: Wired(lambda net, x: net.first(x), first=nn.Linear(2, 3), second=nn.Linear(2, 3)),
        (2,),
    ),
    "feature that nothing reads": (lambda: Wired(lambda net, x: net.first(x)[:, :2], first=nn.Linear(2, 3)), (2,)),
    "kernel that meets padding alone": (lambda: nn.Conv1d(2, 3, 3, padding=1), (2, 1)),
    "random operation": (lambda: Wired(lambda net, x: net.first(x) + torch.randn(3), first=nn.Linear(2, 3)), (2,)),
    "examples mixed": (
        lambda: Wired(lambda net, x: net.first(x) - net.first(x).mean(0), first=nn.Linear(2, 3)),
        (2,),
    ),
    "several outputs": (
        lambda: Wired(lambda net, x: (net.first(x), net.second(x)), first=nn.Linear(2, 3), second=nn.Linear(2, 5)),
        (2,),
    ),
    "sorting": (lambda: Wired(lambda net, x: net.first(x).sort(1)[0], first=nn.Linear(2, 3)), (2,)),
}


def test_the_page_lists_every_refusal_that_is_tried() -> None:
    assert [what for what, _, _ in table_after("refused")] == list(REFUSED)


@pytest.mark.parametrize(("what", "says"), [(row[0], row[1].strip("`")) for row in table_after("refused")])
def test_what_the_page_says_is_refused_is_refused_in_its_words(what: str, says: str) -> None:
    build, shape = REFUSED[what]
    with pytest.raises(ValueError, match=re.escape(says)):
        trace(build(), torch.zeros(1, *shape))


@pytest.fixture
def table_of_rules() -> Iterator[None]:
    """The table of rules as it was, afterwards."""
    before = dict(RULES)
    yield
    RULES.clear()
    RULES.update(before)


@pytest.mark.usefixtures("table_of_rules")
def test_the_example_adds_an_operation(tmp_path: Path) -> None:
    """Three features and what a layer makes of each: S(3), of order 6, and a node for each beside those of the layers.

    Nodes 2 + (3+1) + (3+1) + 3 + (1+1) = 15; values (6+3) + (9+3) + (3+1) = 25; edges 25 + 2*3 = 31.
    """
    operation = torch.ops.aten.hypot.default
    assert operation not in RULES, "the example of docs/operations.md has a rule now; show another one"
    program = PAGE.partition("<!-- example -->\n```python\n")[2].partition("```")[0]
    (tmp_path / "example.py").write_text(program)
    shown = runpy.run_path(str(tmp_path / "example.py"))
    assert RULES[operation] is not None
    template = shown["template"]
    assert isinstance(template, GraphTemplate)
    assert (template.num_nodes, template.num_edges, template.num_values) == (15, 31, 25)
    assert (shown["report"].group, shown["report"].group_order) == ("S(3)", 6)
    assert shown["report"].inert == ()
    del RULES[operation]
    with pytest.raises(ValueError, match=r"aten.hypot.default in module .* has no rule"):
        trace(shown["network"], shown["example"])


def test_the_page_names_all_places_of_an_operation() -> None:
    """Those of ERF, line by line, and no file of the packages speaks of it that the page does not name."""
    named = set()
    for file, line, _ in ([cell.strip("`") for cell in row] for row in table_after("places")):
        assert line in (ROOT / file).read_text(), f"{file} has no {line}"
        named.add(file)
    speaking = {
        path.relative_to(ROOT).as_posix()
        for package in ("pipeline", "training", "analysis")
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"\bERF\b", path.read_text())
    }
    assert speaking == {file for file in named if file.endswith(".py")}


def test_a_kernel_that_meets_one_position_has_more_symmetries_than_neurons() -> None:
    """Two channels and two taps on a map of one position are four outputs of their own, so that all 4! = 24 orders
    of the taps and of the columns that read them preserve the function; neurons are the two channels, 2! = 2."""
    network = nn.Sequential(nn.ConvTranspose1d(1, 2, 2, bias=False), nn.Tanh(), nn.Flatten(), nn.Linear(4, 3)).double()
    x = torch.randn(5, 1, 1, dtype=torch.float64)
    expected = network(x)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for order in permutations(range(4)):
        moved = {"0.weight": state["0.weight"].reshape(1, 4)[:, order].reshape(1, 2, 2)}
        network.load_state_dict(state | moved | {"3.weight": state["3.weight"][:, order]})
        assert torch.allclose(network(x), expected, rtol=0, atol=1e-12)  # sums in another order
    template = trace(network.float(), torch.zeros(1, 1, 1))
    assert symmetry_group(template).order == 2
    larger = nn.Sequential(nn.ConvTranspose1d(1, 2, 2, bias=False), nn.Tanh(), nn.Flatten(), nn.Linear(6, 3))
    assert symmetry_group(trace(larger, torch.zeros(1, 1, 2))).order == 2
