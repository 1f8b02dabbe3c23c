"""Which graphs are for training, validation and testing: by a hash of the unit, or by what is out of distribution.

Reads   nothing
Writes  nothing

Hashes of names, not a random generator: a split is the same in every language and with every version of every library,
and a unit that comes later never moves those that are there.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool

SIDES = ("train", "val", "test", "test_in", "unused")


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What puts a graph out of distribution: a number above or below a bound, or a word among some."""

    column: str
    """Of the table: ``width``, ``depth``, ``family``, ``config.optimizer``, …"""
    above: float | None = None
    """Numbers above this one."""
    below: float | None = None
    """Numbers below this one."""
    among: list[str] = field(default_factory=list)
    """These words."""

    def __post_init__(self) -> None:
        if [self.above is None, self.below is None, not self.among].count(False) != 1:
            raise ValueError(f"condition on {self.column}: expected one of above, below and among")
        for name, bound in (("above", self.above), ("below", self.below)):
            if bound is not None and not math.isfinite(bound):
                raise ValueError(f"condition on {self.column}: {name} is {bound}; expected a finite number")

    def of(self, table: pa.Table) -> Bool[np.ndarray, " num_graphs"]:
        """Whether it holds, for every row; nowhere for a null.

        Raises:
            ValueError: there is no such column, or it does not hold numbers, or words.
        """
        if self.column not in table.column_names:
            raise ValueError(
                f"a split asks for {self.column!r}, which is no column; found {', '.join(table.column_names)}"
            )
        kind = table.schema.field(self.column).type
        held = kind.value_type if pa.types.is_dictionary(kind) else kind
        is_word = pa.types.is_string(held) or pa.types.is_large_string(held)
        is_number = pa.types.is_floating(kind) or pa.types.is_integer(kind)
        if not (is_word if self.among else is_number):
            raise ValueError(
                f"a split asks for {self.column} {'among words' if self.among else 'above or below a number'}, and "
                f"the column holds {kind}"
            )
        column = table[self.column].to_numpy(zero_copy_only=False)
        if self.among:
            return np.array([word in self.among for word in column], dtype=bool)
        numbers = column.astype(np.float64)  # null is NaN, which no comparison holds for
        return numbers > self.above if self.above is not None else numbers < np.float64(self.below)


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """How units are split: by a hash of the unit's name, so that further units never move those that are there."""

    salt: str = "split"
    """Another salt gives another, independent split."""
    train: float = 0.7
    """Fraction of units for training, on average: each unit falls by itself."""
    val: float = 0.15
    """Fraction of units for validation; the rest, 1 - train - val, is for testing."""
    train_fraction: float = 1.0
    """How much of the training side is used, the rest is ``unused``; a smaller fraction is part of a larger one."""
    test: Condition | None = None
    """Out of distribution: graphs it holds for are ``test`` and all others are split by the hash, what would be
    ``test`` being ``test_in``. It must hold for all graphs of a unit or for none."""

    def __post_init__(self) -> None:
        if not (self.train >= 0 and self.val >= 0 and self.train + self.val <= 1):
            raise ValueError(f"split: train is {self.train}, val is {self.val}; expected fractions, together at most 1")
        if not 0 < self.train_fraction <= 1:
            raise ValueError(f"split: train_fraction is {self.train_fraction}; expected a fraction above 0, up to 1")

    def of(self, unit: str, held: bool = False) -> str:
        """The side of a unit; ``held``: whether the condition holds for it."""
        if held:
            return "test"
        digest = hashlib.sha256(f"{self.salt}/{unit}".encode()).digest()
        fraction = int.from_bytes(digest[:6], "big") / 2**48  # exact in float64
        if fraction < self.train:
            return "train" if fraction < self.train * self.train_fraction else "unused"
        if fraction < self.train + self.val:
            return "val"
        return "test" if self.test is None else "test_in"

    def sides(self, table: pa.Table) -> list[str]:
        """The side of every graph.

        Raises:
            ValueError: the condition holds for some graphs of a unit and not for others, or cannot be asked.
        """
        units = table["unit"].to_pylist()
        held = self.test.of(table).tolist() if self.test is not None else [False] * len(units)
        held_for: dict[str, bool] = {}
        for unit, holds in zip(units, held, strict=True):
            if held_for.setdefault(unit, holds) != holds:
                assert self.test is not None
                raise ValueError(
                    f"unit {unit} has graphs that are out of distribution by {self.test.column} and others that are "
                    "not, so that it would be on both sides; split by something that is the same for all graphs of a "
                    "unit, or choose among the graphs first"
                )
        side_of = {unit: self.of(unit, holds) for unit, holds in held_for.items()}
        return [side_of[unit] for unit in units]

    def document(self) -> dict[str, Any]:
        """As the manifest has it: what is left at its default is left out, but for the first three."""
        document: dict[str, Any] = {"salt": self.salt, "train": self.train, "val": self.val}
        if self.train_fraction != 1:
            document["train_fraction"] = self.train_fraction
        if self.test is not None:
            given = {name: getattr(self.test, name) for name in ("above", "below", "among")}
            document["test"] = {"column": self.test.column} | {
                name: value for name, value in given.items() if value not in (None, [])
            }
        return document

    @staticmethod
    def parse(document: Mapping[str, Any]) -> "SplitRule":
        """The inverse of `document`.

        Raises:
            ValueError: it is not the document of a rule.
        """
        try:
            given = with_floats(document, ("train", "val", "train_fraction"))
            if missing := [name for name in ("salt", "train", "val") if name not in given]:
                raise ValueError(f"{missing[0]} is missing")
            if "test" in given:
                given["test"] = parse_condition(given["test"])
            if not isinstance(given["salt"], str):
                raise ValueError(f"salt is {given['salt']!r}; expected a text")
            return SplitRule(**given)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(f"not the rule of a split: {error}") from error


def parse_condition(document: Mapping[str, Any]) -> Condition:
    """The condition of a rule's document."""
    given = with_floats(document, ("above", "below"))
    among = given.get("among", [])
    if not (isinstance(given["column"], str) and isinstance(among, list) and all(isinstance(x, str) for x in among)):
        raise ValueError(f"test is {document}; expected the name of a column, and words among a list of words")
    return Condition(**given)


def with_floats(document: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The same, some of its numbers as floats, which JSON may write without a point."""
    for key in names:
        if key in document and type(document[key]) not in (int, float):
            raise ValueError(f"{key} is {document[key]!r}; expected a number")
    return {key: float(value) if key in names else value for key, value in document.items()}


def check_names(names: Sequence[str]) -> None:
    """Refuse names that are not those of split columns.

    Raises:
        ValueError: one does not begin with ``split_``.
    """
    for name in names:
        if not name.startswith("split_"):
            raise ValueError(f"further_splits: {name!r} does not begin with 'split_', as the names of splits do")
