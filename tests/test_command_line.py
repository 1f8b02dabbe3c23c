"""Commands from signatures: what is called, and what a mistake looks like."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from pipeline.command_line import Command, read_command, run_command

CALLS: list[tuple] = []


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large."""

    width: int = 3
    """Across; at least 1."""
    colour: Literal["red", "green"] = "red"
    """Of all of it."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width is {self.width}; expected at least 1")


def draw(path: Path, times: int, size: Size = Size()) -> None:  # frozen
    """Draw something.

    Args:
        path: where to.
        times: how often.
        size: how large.
    """
    CALLS.append((path, times, size))


COMMANDS = {"draw": Command(function="test_command_line:draw", sentence="draw something", positional=("path",))}


def read(*arguments: str):
    return read_command("zoology", "What it is for.", COMMANDS, arguments)


def test_a_command_is_called_with_records_built_from_flags_and_file(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("times: 5\nsize: {width: 7}\n")
    CALLS.clear()
    read("draw", "here", "--config", str(tmp_path / "settings.yaml"), "--times", "11")()
    assert [(Path("here"), 11, Size(width=7))] == CALLS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["draw", "here", "--times", "2", "--size.width", "0"], "width is 0; expected at least 1"),
        (["draw", "here", "--times", "2", "--size.widht", "2"], "--size.widht"),
        (["draw", "here", "--time", "2"], "--time"),
        (["draw", "here", "--times", "often"], "draw: times is often; expected int; --help"),
        (
            ["draw", "here", "--times", "2", "--size", "3"],
            "draw: size is 3; expected some of width, colour, such as {width: …}",
        ),
        (
            ["draw", "here", "--times", "2", "--size.colour", "blue"],
            "draw: size.colour is blue; expected red, green; --help",
        ),
        (["draw", "here"], "times"),
        (["draw", "here", "there", "--times", "2"], "there"),
        (["draw", "here", "--times", "2", "--config", "missing.yaml"], "missing.yaml"),
        (["paint"], "no command 'paint'; choose from draw"),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        read(*arguments)
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1
    assert printed.out == ""


def test_a_wrong_key_in_a_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "settings.yaml").write_text("times: 5\nsize: {widht: 7}\n")
    with pytest.raises(SystemExit):
        read("draw", "here", "--config", str(tmp_path / "settings.yaml"))
    assert "widht" in capsys.readouterr().err


def test_bad_input_is_one_line_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise ValueError("graphs.zarr: not a dataset")

    with pytest.raises(SystemExit) as stop:
        run_command("zoology", command)
    assert stop.value.code == 1
    assert capsys.readouterr().err == "python -m zoology: graphs.zarr: not a dataset\n"


def test_a_path_that_cannot_be_written_is_one_line_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")

    def command() -> None:
        (tmp_path / "file" / "below").mkdir()

    with pytest.raises(SystemExit) as stop:
        run_command("zoology", command)
    assert stop.value.code == 1
    assert capsys.readouterr().err == (
        f"python -m zoology: {tmp_path}/file/below: Not a directory; choose another path, or free it\n"
    )


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    program = (
        "from pipeline.command_line import run_command;"
        "run_command('zoology', lambda: [print(number) for number in range(10**6)])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "0\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_an_interrupt_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        run_command("zoology", command)
    assert stop.value.code == 130
    assert "run the same command to go on" in capsys.readouterr().err


def test_the_list_of_commands_names_each_with_its_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        read("--help")
    assert stop.value.code == 0
    assert "  draw  draw something\n" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        read()
    assert stop.value.code == 2


def test_a_plain_value_in_a_file_instead_of_a_record_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "settings.yaml").write_text("times: 5\nsize: 0.1\n")
    with pytest.raises(SystemExit) as stop:
        read("draw", "here", "--config", str(tmp_path / "settings.yaml"))
    assert stop.value.code == 2
    assert "draw: size is 0.1; expected some of width, colour, such as {width: …};" in capsys.readouterr().err
