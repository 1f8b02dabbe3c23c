"""How graphs are grouped in pictures: families of architectures and sides of splits, each with a colour.

Reads   the table of a dataset
Writes  nothing
"""

import json
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from pipeline.zoo_plots import BLUE, FAINT, INK

OTHERS = "others"
SIDES = {"train": BLUE, "val": "#e39a2d", "test": INK}
FURTHER = ("#17936f", "#c06a9b", "#6db5e0", FAINT)
"""Of sides with other names. All these are near those of Okabe and Ito (2008), which the colour-blind tell apart."""
MARKS = ((BLUE, "o"), ("#e39a2d", "s"), (INK, "^"), ("#17936f", "D"), ("#c06a9b", "v"))
"""Colours and shapes of the largest families; others are faint."""


def family_names(table: pa.Table) -> list[str]:
    """The family of every graph's architecture."""
    if "family" in table.column_names:
        return [str(name) for name in table["family"].to_pylist()]
    names: dict[str, str] = {}
    texts = table["architecture"].to_pylist()
    for text in texts:
        if text not in names:
            try:
                names[text] = str(json.loads(text)["family"])
            except (ValueError, KeyError, TypeError):
                names[text] = "unknown"
    return [names[text] for text in texts]


def side_colours(names: Sequence[str]) -> dict[str, str]:
    """Sides in the order they are drawn: train, val, test, then others, the last of which share a colour."""
    known = [name for name in SIDES if name in names]
    others = sorted(set(names) - set(SIDES))
    return {name: SIDES[name] for name in known} | {
        name: FURTHER[min(place, len(FURTHER) - 1)] for place, name in enumerate(others)
    }


def largest(names: Sequence[str], most: int) -> list[str]:
    """The most frequent names, the first first; where there are more than ``most``, the last place is for `OTHERS`."""
    counts = Counter(names)
    order = sorted(counts, key=lambda name: (-counts[name], name))
    return order if len(order) <= most else [*order[: most - 1], OTHERS]
