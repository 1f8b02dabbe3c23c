"""Commands as functions: a static table of them, and a parser made from the signature of the one that is asked for.

Reads   the arguments of ``python -m PACKAGE``, and YAML files given by ``--config``
Writes  help and errors to the terminal

Only the module of the command asked for is imported, so that the list of commands answers at once. A wrong setting is
one line and exit code 2; bad input that a command finds while it runs is one line and exit code 1.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import get_type_hints

from pipeline.setting_errors import no_record, plain_values, plainly


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command of a package."""

    function: str
    """Module and name: ``pipeline.train_zoo:zoo``; its parameters are the settings."""
    sentence: str
    """What it does, for the list of commands."""
    positional: tuple[str, ...] = ()
    """Parameters that are given by place instead of by flag."""
    switches: tuple[str, ...] = ()
    """Parameters whose flag alone means true."""


def read_command(
    package: str, purpose: str, commands: Mapping[str, Command], arguments: Sequence[str]
) -> Callable[[], None]:
    """The function asked for, its settings read and checked, ready to be called.

    Raises:
        SystemExit: help was asked for (code 0), or a setting is wrong (code 2, after one line that says which).
    """
    sentences = {name: command.sentence for name, command in commands.items()}
    name, rest = choose_command(package, purpose, sentences, arguments)
    return read_settings(f"python -m {package} {name}", commands[name], rest)


def choose_command(
    package: str, purpose: str, sentences: Mapping[str, str], arguments: Sequence[str]
) -> tuple[str, Sequence[str]]:
    """The name of the command asked for, and the arguments that are left for it.

    Raises:
        SystemExit: help was asked for (code 0), or there is no such command (code 2).
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage(package, purpose, sentences))
        raise SystemExit(0 if arguments else 2)
    name, *rest = arguments
    if name not in sentences:
        print(f"python -m {package}: no command {name!r}; choose from {', '.join(sentences)}", file=sys.stderr)
        raise SystemExit(2)
    return name, rest


def run_command(package: str, command: Callable[[], None]) -> None:
    """Run a command; bad input becomes one line on the error stream.

    Raises:
        SystemExit: with code 1, if the command raised ``ValueError`` or ``OSError``; with 130 after an interrupt.
    """
    try:
        command()
    except ValueError as error:
        print(f"python -m {package}: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    except BrokenPipeError:  # the reader of our output, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(
            f"python -m {package}: {where}{error.strerror or error}; choose another path, or free it", file=sys.stderr
        )
        raise SystemExit(1) from error
    except KeyboardInterrupt as interrupt:
        print(
            f"python -m {package}: interrupted; what is finished is kept, run the same command to go on",
            file=sys.stderr,
        )
        raise SystemExit(130) from interrupt


def usage(package: str, purpose: str, sentences: Mapping[str, str]) -> str:
    """The list of commands."""
    width = max(map(len, sentences))
    lines = [f"  {name:<{width}}  {sentence}" for name, sentence in sentences.items()]
    return "\n".join(
        [
            f"usage: python -m {package} COMMAND ...",
            "",
            purpose,
            "",
            *lines,
            "",
            f"python -m {package} COMMAND --help   lists the settings of a command",
        ]
    )


def read_settings(program: str, command: Command, arguments: Sequence[str]) -> Callable[[], None]:
    """The function of a command with its settings, read from flags and files.

    Raises:
        SystemExit: help was asked for (code 0), or a setting is wrong (code 2).
    """
    from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    module, name = command.function.split(":")
    function = getattr(import_module(module), name)
    places = "".join(f" {name.upper()}" for name in command.positional)
    parser = ArgumentParser(
        prog=program,
        usage=f"{program}{places} [SETTINGS]",
        description=command.sentence,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="YAML file with any of these settings")
    parser.add_function_arguments(function)
    flags = _flags_for_positional(command.positional, _values_for_switches(command.switches, arguments))
    try:
        parsed = parser.parse_args(flags)
        for key, value, kind in plain_values(get_type_hints(function), parsed.as_dict()):
            raise ValueError(no_record(key, value, kind))
        built = parser.instantiate(parsed)
    except (ArgumentError, ValueError) as error:
        raise wrong_setting(program, plainly(" ".join(str(error).split()), function)) from error
    return partial(function, **{key: value for key, value in built.items() if key != "config"})


def wrong_setting(program: str, reason: str) -> SystemExit:
    """Says in one line what is wrong; to be raised."""
    print(f"{program}: {reason}; --help lists the settings", file=sys.stderr)
    return SystemExit(2)


def _values_for_switches(switches: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """Arguments with a value after every flag that may stand alone: jsonargparse wants one. ``--dry-run`` is
    ``--dry_run``."""
    flags = {f"--{name}": f"--{name}" for name in switches} | {
        f"--{name.replace('_', '-')}": f"--{name}" for name in switches
    }
    pairs = zip(arguments, [*arguments, "--"][1:], strict=True)
    named = [(flags.get(this, this), following) for this, following in pairs]
    return [f"{this}=true" if this in flags and following.startswith("-") else this for this, following in named]


def _flags_for_positional(positional: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """Leading arguments that are no flags, with the flag of their place before them: jsonargparse gives required
    parameters flags."""
    given: list[str] = []
    for place, argument in enumerate(arguments):
        if argument.startswith("-") or place >= len(positional):
            return [*given, *arguments[place:]]
        given += [f"--{positional[place]}", argument]
    return given
