"""The command line of ``python -m analysis``."""

import sys
from collections.abc import Callable
from functools import partial

from pipeline.command_line import Command, run_command
from pipeline.command_line import read_command as read

COMMANDS = {
    "represent": Command(
        function="analysis.representations:represent", sentence="store the layers of a metanetwork, graph by graph"
    ),
    "cka": Command(function="analysis.compare:cka", sentence="compare all layers of all pairs of networks: a Ray job"),
    "report": Command(function="analysis.report:report", sentence="draw figures and a page from the saved tables"),
}

read_command: Callable[[list[str]], Callable[[], None]] = partial(
    read, "analysis", "From trained networks to their representations, CKA and a report.", COMMANDS
)


if __name__ == "__main__":
    run_command("analysis", lambda: read_command(sys.argv[1:])())
