"""The command that traces anybody's network: what it prints, what it draws, and what a mistake looks like."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.__main__ import read_command
from pipeline.command_line import run_command
from pipeline.trace_command import order_words

NETWORKS = """
import torch
from torch import nn

NUMBER = 3


def mlp():
    return nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))


def wide():
    return nn.Sequential(nn.Linear(3, 113), nn.Tanh(), nn.Linear(113, 2))


def norm():
    return nn.Sequential(nn.Conv2d(1, 3, 2), nn.InstanceNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 1))


def words():
    return nn.Sequential(nn.Embedding(7, 4), nn.ReLU(), nn.Linear(4, 2))


def number():
    return 3


def fails():
    raise RuntimeError("no\\nweights")


class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Linear(5, 5)

    def forward(self, tokens):
        return torch.fft.fft(self.tokens(tokens)).real
"""


@pytest.fixture(name="networks")
def a_folder_with_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module in the current folder."""
    name = "somebodys_networks"
    (tmp_path / f"{name}.py").write_text(NETWORKS)
    (tmp_path / "broken_networks.py").write_text("import missing_library\n")
    (tmp_path / "wrong_networks.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield name
    for module in (name, "broken_networks", "wrong_networks"):
        sys.modules.pop(module, None)


def trace(*arguments: str) -> None:
    run_command("pipeline", read_command(["trace", *arguments]))


def test_a_network_is_described_in_80_columns(networks: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nodes 3 + 5 + 1 + 2 + 1; edges 15 + 5 + 10 + 2; the five neurons in any order."""
    trace(f"{networks}:mlp", "--input", "1,3")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Parameter graph of {networks}:mlp"
    assert lines[1:6] == [
        "  nodes      12 in 5 sets",
        "  edges      32 in 4 blocks",
        "             25 linear weight",
        "              7 linear bias",
        "  values     32",
    ]
    assert lines[7:] == ["  group      S(5)", "  order      120"]
    assert max(map(len, lines)) <= 80


def test_a_check_reports_differences_permutations_and_inert_tensors(
    networks: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bias before an instance norm is subtracted again."""
    trace(f"{networks}:norm", "--input", "1,1,5,5", "--check")
    text = capsys.readouterr().out
    assert "  checked    23 values go to the graph and back, bit for bit\n" in text
    assert "  inert      0.bias\n" in text
    assert "  group      S(3)\n" in text
    assert " tried; outputs change by " in text
    assert " other permutations tried; each changes the outputs\n" in text
    assert max(map(len, text.splitlines())) <= 80


def test_whole_numbers_are_an_input_too(networks: str, capsys: pytest.CaptureFixture[str]) -> None:
    trace(f"{networks}:words", "--input", "1,5", "--dtype", "int64", "--check", "true")
    assert "28 embedding\n" in capsys.readouterr().out


def test_a_picture_is_drawn_where_it_is_asked_for(networks: str, capsys: pytest.CaptureFixture[str]) -> None:
    trace(f"{networks}:wide", "--input", "1,3", "--draw", "graph.svg")
    assert capsys.readouterr().out.endswith("  picture    graph.svg\n")
    assert "113 features" in Path("graph.svg").read_text()


@pytest.mark.parametrize(
    ("network", "shape", "message"),
    [
        ("nowhere_to_be_found:mlp", "1,3", "there is no module 'nowhere_to_be_found', in the current folder"),
        ("somebodys_networks.inner:mlp", "1,3", "there is no module 'somebodys_networks.inner'"),
        ("broken_networks:mlp", "1,3", "broken_networks cannot be imported: ModuleNotFoundError: No module named"),
        ("wrong_networks:mlp", "1,3", "wrong_networks cannot be imported: ZeroDivisionError: division by zero"),
        ("somebodys_networks:cnn", "1,3", "somebodys_networks has no 'cnn'; expected a function that returns"),
        ("somebodys_networks", "1,3", "names no function; expected module and name, such as package.module:factory"),
        ("somebodys networks:mlp", "1,3", "names no function; expected module and name"),
        ("somebodys_networks:NUMBER", "1,3", "somebodys_networks:NUMBER is of type int; expected a function"),
        ("somebodys_networks:number", "1,3", "number() returns something of type int; expected a torch.nn.Module"),
        ("somebodys_networks:fails", "1,3", "somebodys_networks:fails() fails: RuntimeError: no weights"),
        ("somebodys_networks:mlp", "1,x", "--input is '1,x'; expected whole numbers from 1 on, the batch first"),
        ("somebodys_networks:mlp", "3", "--input is '3'; expected whole numbers from 1 on, the batch first"),
        ("somebodys_networks:mlp", "1,0", "--input is '1,0'; expected whole numbers from 1 on, the batch first"),
        ("somebodys_networks:mlp", "1,7", "Sequential fails on an input of shape (2, 7)"),
        ("somebodys_networks:Mixer", "1,5,5", "somebodys_networks:Mixer: "),
    ],
)
def test_a_mistake_is_one_line_that_names_it_and_exit_code_1(
    networks: str, network: str, shape: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        trace(network, "--input", shape)
    assert stop.value.code == 1
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1
    assert printed.out == ""


def test_a_picture_of_another_sort_is_refused_before_anything_is_traced(
    networks: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        trace(f"{networks}:mlp", "--input", "1,3", "--draw", "graph.gif")
    assert stop.value.code == 1
    assert capsys.readouterr().err == (
        "python -m pipeline: graph.gif: found the suffix '.gif'; expected one of .svg, .png, .pdf\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["somebodys_networks:mlp"], "input"),
        (["somebodys_networks:mlp", "--input", "1,3", "--dtype", "int32"], "int32"),
        (["somebodys_networks:mlp", "--input", "1,3", "--chekc"], "--chekc"),
    ],
)
def test_a_wrong_setting_is_exit_code_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        trace(*arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_orders_are_told_in_full_while_they_are_short() -> None:
    assert order_words(5040) == "5,040"
    assert order_words(10**15 - 1) == "999,999,999,999,999"
    assert order_words(10**5006) == "about 10^5,006"
