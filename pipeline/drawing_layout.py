"""Where things go in a drawing: columns broken into bands like lines of text, and lanes, so that nothing overlaps.

Reads   columns of items, links between them, widths and heights
Writes  bands and lanes

A link that spans several columns keeps a lane of its own between them, so no line ever runs behind a box. A band opens
with a copy of whatever it reads from bands above.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

Link = tuple[int, int]
"""From one item to another, by number."""


@dataclass(kw_only=True)
class Band:
    """Some columns of a drawing, from left to right."""

    column: dict[int, int] = field(default_factory=dict)
    """Of every item, from 0."""
    copies: set[int] = field(default_factory=set)
    """Items that belong to bands above."""
    lane: dict[int, int] = field(default_factory=dict)
    """Of every item: 0 is the longest way, positive ones are below it."""
    link_lane: dict[Link, int] = field(default_factory=dict)
    """Of links that span several columns."""

    @property
    def num_columns(self) -> int:
        return max(self.column.values()) + 1


def bands(column: Mapping[int, int], links: Sequence[Link], width: Sequence[float], most: float) -> list[Band]:
    """Items in bands of about the same width, none wider than ``most`` if that can be, cut where few links cross."""
    starts = [*_starts(column, links, width, most), len(width)]
    found: list[Band] = []
    for first, last in pairwise(starts):
        inside = {item for item, place in column.items() if first <= place < last}
        within = [link for link in links if link[1] in inside]
        copies = {source for source, _ in within if source not in inside}
        shift = first - bool(copies)
        places = {item: column[item] - shift if item in inside else 0 for item in sorted(inside | copies)}
        band = Band(column=places, copies=copies)
        _assign_lanes(band, sorted(set(within)))
        found.append(band)
    return found


def _starts(column: Mapping[int, int], links: Sequence[Link], width: Sequence[float], most: float) -> list[int]:
    """First columns of the bands: the best way to break lines, column by column."""
    crossing = [len({s for s, t in links if column[s] < place <= column[t]}) for place in range(len(width) + 1)]
    edge = [0.0, *accumulate(width)]
    num_bands = max(1, -(-edge[-1] // most))
    aim = edge[-1] / num_bands
    cost, back = [0.0], [0]
    for end in range(1, len(width) + 1):
        options = []
        for start in range(end):
            taken = edge[end] - edge[start] + (width[start] if start else 0)
            if taken > most * 1.1 and end - start > 1:
                continue
            options.append((cost[start] + (taken / aim - 1) ** 2 + 0.3 + _crossing_cost(crossing[start]), start))
        best = min(options)
        cost.append(best[0])
        back.append(best[1])
    starts = [back[-1]]
    while starts[0]:
        starts.insert(0, back[starts[0]])
    return starts


def _crossing_cost(num_sources: int) -> float:
    """Of cutting where so many sources are read further on; one is always read."""
    return 0.4 * max(0, num_sources - 1)


def _assign_lanes(band: Band, links: Sequence[Link]) -> None:
    """Lanes for all items and long links of a band."""
    taken: dict[int, set[int]] = {0: set()}
    after: dict[int, list[int]] = {}
    before: dict[int, list[int]] = {}
    for source, target in links:
        after.setdefault(source, []).append(target)
        before.setdefault(target, []).append(source)
    item = max(band.column, key=lambda item: (band.column[item], item))
    main = [item]
    while previous := before.get(item):
        item = max(previous, key=lambda other: (band.column[other], len(before.get(other, ())), -other))
        main.append(item)
    band.lane.update(dict.fromkeys(main, 0))
    taken[0].update(range(band.num_columns))
    long = {link for link in links if band.column[link[1]] - band.column[link[0]] > 1}
    for first in sorted(set(band.column) - set(main), key=lambda item: (band.column[item], item)):
        if first not in band.lane:
            _place_branch(band, first, long, before, after, taken)
    spans = {link: range(band.column[link[0]] + 1, band.column[link[1]]) for link in long - set(band.link_lane)}
    for link in sorted(spans, key=lambda link: (len(spans[link]), link)):
        lane = _free_lane(taken, spans[link], 1 if band.lane[link[0]] > 0 else -1)
        taken[lane] |= set(spans[link])
        band.link_lane[link] = lane


def _place_branch(
    band: Band,
    first: int,
    long: set[Link],
    before: Mapping[int, list[int]],
    after: Mapping[int, list[int]],
    taken: dict[int, set[int]],
) -> None:
    """A lane for a side branch, and for the long links it comes from and ends in."""
    branch = [first]
    while True:
        following = [
            item
            for item in after.get(branch[-1], ())
            if item not in band.lane and item not in branch and band.column[item] == band.column[branch[-1]] + 1
        ]
        if not following:
            break
        branch.append(min(following))
    begin, end = band.column[first], band.column[branch[-1]]
    arrives = [(item, first) for item in before.get(first, ()) if (item, first) in long]
    leaves = [(branch[-1], item) for item in after.get(branch[-1], ()) if (branch[-1], item) in long]
    along = [link for link in arrives[:1] + leaves[:1] if link not in band.link_lane]
    begin = min([begin, *(band.column[source] + 1 for source, target in along if target == first)])
    end = max([end, *(band.column[target] - 1 for source, target in along if source == branch[-1])])
    span = range(begin, end + 1)
    lane = min(_free_lane(taken, span, 1), _free_lane(taken, span, -1), key=lambda lane: (abs(lane), -lane))
    taken[lane] |= set(span)
    band.lane.update(dict.fromkeys(branch, lane))
    band.link_lane.update(dict.fromkeys(along, lane))


def _free_lane(taken: dict[int, set[int]], span: range, step: int) -> int:
    """The nearest lane on one side of the main one that is free in some columns."""
    lane = step
    while taken.setdefault(lane, set()) & set(span):
        lane += step
    return lane


def lane_heights(
    band: Band, above: Mapping[int, float], below: Mapping[int, float], link: float, gap: float
) -> tuple[dict[int, float], float]:
    """The height of each lane's middle over the foot of the band, and of the band; lane numbers grow downwards.

    Args:
        above: how far every item reaches over the middle of its lane.
        below: how far it reaches under it.
        link: height of a lane of links alone.
        gap: between lanes.
    """
    lanes = sorted({*band.lane.values(), *band.link_lane.values()}, reverse=True)
    middle: dict[int, float] = {}
    height = 0.0
    for lane in lanes:
        items = [item for item, place in band.lane.items() if place == lane]
        height += max([link / 2, *(below[item] for item in items)]) + (gap if middle else 0)
        middle[lane] = height
        height += max([link / 2, *(above[item] for item in items)])
    return middle, height
