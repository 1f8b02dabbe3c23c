"""Progress bars: on a terminal a bar that moves, in a log a line now and then.

Reads   nothing
Writes  to standard error
"""

import sys
from typing import Any

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 20


def progress_bar(description: str, unit: str, total: int, initial: int = 0) -> "tqdm[Any]":
    """A bar for ``with``; its ``update(n)`` says that ``n`` more of ``total`` are done."""
    return tqdm(
        desc=description,
        unit=f" {unit}",
        total=total,
        initial=initial,
        mininterval=0.1 if sys.stderr.isatty() else SECONDS_BETWEEN_LINES,
    )
