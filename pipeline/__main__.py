"""The command line of ``python -m pipeline``."""

import sys
from collections.abc import Callable
from functools import partial

from pipeline.command_line import Command, run_command
from pipeline.command_line import read_command as read

COMMANDS = {
    "zoo": Command(
        function="pipeline.train_zoo:zoo",
        sentence="train the networks of a zoo: a Ray job",
        switches=("dry_run",),
    ),
    "inr": Command(
        function="pipeline.train_inrs:inr",
        sentence="fit the networks of a zoo of implicit networks, one for an image: a Ray job",
        switches=("dry_run",),
    ),
    "status": Command(
        function="pipeline.train_zoo:status",
        sentence="say how far a zoo is, while it trains or after",
        positional=("path",),
    ),
    "graphs": Command(
        function="pipeline.build_graphs:graphs", sentence="turn zoos into a parameter-graph dataset: a Ray job"
    ),
    "append": Command(
        function="pipeline.build_graphs:append",
        sentence="add zoos to a finished dataset: a Ray job",
        positional=("path",),
    ),
    "import": Command(
        function="pipeline.import_networks:import_networks",
        sentence="turn networks that others trained into a dataset",
        positional=("folder",),
        switches=("append",),
    ),
    "inspect": Command(
        function="pipeline.inspect_graphs:inspect", sentence="show what a zoo or a dataset holds", positional=("path",)
    ),
    "trace": Command(
        function="pipeline.trace_command:trace",
        sentence="say what the parameter graph of a network is; check it, draw it",
        positional=("network",),
        switches=("check",),
    ),
    "export": Command(
        function="pipeline.export_graphs:export",
        sentence="write a dataset in a format that is read without this program",
        positional=("path",),
    ),
    "verify": Command(
        function="pipeline.verify_graphs:verify",
        sentence="check every digest and law of a dataset",
        positional=("path",),
    ),
}

read_command: Callable[[list[str]], Callable[[], None]] = partial(
    read, "pipeline", "From a zoo specification to trained networks and their parameter graphs.", COMMANDS
)


if __name__ == "__main__":
    run_command("pipeline", lambda: read_command(sys.argv[1:])())
