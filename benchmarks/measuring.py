"""Seconds and resident memory, side by side: what the programs beside this one measure with.

Reads   ``/proc``, so that resident memory is told on Linux alone
Writes  nothing; run by itself it does nothing
"""

import math
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]
"""One line of a table, by the names of its columns; also what the JSON has."""
MB, GB = 2**20, 2**30


def circumstances() -> Row:
    """When, where and on what this runs."""
    git = partial(subprocess.run, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    commit, changes = git(["git", "rev-parse", "HEAD"]).stdout, git(["git", "status", "--porcelain"]).stdout
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit.strip() + (" and changes" if changes else ""),
        "processor": names[0].partition(": ")[2] if names else platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def interleaved(functions: list[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Seconds of each function in each round, all in turn, after one round that does not count."""
    seconds: list[list[float]] = [[] for _ in functions]
    for number in range(rounds + 1):
        for function, times in zip(functions, seconds, strict=True):
            started = time.perf_counter()
            function()
            if number:
                times.append(time.perf_counter() - started)
    return seconds


def in_child(function: Callable[[], Any], memory: float = math.inf, seconds: float = math.inf) -> Any:
    """What a function returns in a process of its own; past a limit, what it had used by then."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=send_result, args=(sender, function))
    child.start()
    sender.close()
    deadline = time.perf_counter() + seconds
    stopped: Row | None = None
    while stopped is None and not receiver.poll(0.1):
        used = resident(process=str(child.pid))
        if used > memory or time.perf_counter() > deadline:
            stopped = {"stopped": "memory" if used > memory else "time", "peak MB": round(used / MB)}
            child.kill()
    try:
        return receiver.recv() if stopped is None else stopped
    except EOFError as error:
        child.join()
        if child.exitcode == -signal.SIGKILL:
            return {"stopped": "the system"}
        raise RuntimeError(f"{function} did not finish; its own error stands above") from error
    finally:
        child.join()


def send_result(sender: Connection, function: Callable[[], Any]) -> None:
    """What a child does."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sender.send(function())


def resident(field: str = "VmRSS", process: str = "self") -> int:
    """Resident memory of a process in bytes, now or (``VmHWM``) at its most; 0 when it has ended."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), 0)


def show(title: str, rows: list[Row]) -> None:
    """Print a table; the names of columns are broken over lines."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    heads = [name.split() for name in names]
    height = max(map(len, heads))
    columns = [
        [""] * (height - len(head)) + head + [cell(row.get(name)) for row in rows]
        for name, head in zip(names, heads, strict=True)
    ]
    widths = [max(map(len, column)) for column in columns]
    print(f"\n{title}")
    for first, *others in zip(*columns, strict=True):
        right = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *right]).rstrip())
    sys.stdout.flush()


def cell(value: object) -> str:
    """A value of a row as it is printed."""
    return "" if value is None else f"{value:,}" if isinstance(value, int | float) else str(value)
