"""How a hyperparameter is drawn, written in YAML as one readable line.

    optimizer: {choice: [sgd, adam, rmsprop]}
    learning_rate: {log_uniform: [5.0e-4, 5.0e-2]}
    dropout: {uniform: [0.0, 0.5]}
    l2: {grid: [1.0e-3, 1.0e-4]}
    train_fraction: {each: [0.1, 0.5, 1.0]}

Reads   nothing
Writes  nothing

A drawing takes a generator of its own, so what one hyperparameter is never depends on how many others are drawn. Grids
and lists draw nothing: run 0 has the first value, and so on. Of several grids, runs go through all combinations, the
last grid fastest, and begin again (`turns`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Generic, TypeVar

import numpy as np

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Choice(Generic[Value]):
    """How a value is drawn: exactly one of the three is given. A value given twice is twice as likely, or frequent."""

    choice: tuple[Value, ...] | None = None
    """One of these, each equally likely."""
    grid: tuple[Value, ...] | None = None
    """Each of these, in all combinations with those of other grids, run after run."""
    each: tuple[Value, ...] | None = None
    """One for each run, in the order of runs."""

    @property
    def values(self) -> tuple[Value, ...]:
        """All that may be drawn."""
        return self.choice or self.grid or self.each or ()

    def check(self, name: str) -> None:
        """Refuse nothing to choose from; ``name`` says in the error what is drawn."""
        check_one(name, asdict(self))

    def draw(self, generator: np.random.Generator, turn: int = 0) -> Value:
        """A value; of a grid or a list the one whose ``turn`` it is."""
        if self.choice is not None:
            return self.choice[generator.integers(len(self.choice))]
        return self.values[turn]


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """How a number is drawn: exactly one of the five is given."""

    choice: tuple[float, ...] | None = None
    """One of these, each equally likely."""
    uniform: tuple[float, float] | None = None
    """Uniform from the first to the second."""
    log_uniform: tuple[float, float] | None = None
    """Log-uniform from the first to the second."""
    grid: tuple[float, ...] | None = None
    """Each of these, in all combinations with those of other grids, run after run."""
    each: tuple[float, ...] | None = None
    """One for each run, in the order of runs."""

    def check(
        self,
        name: str,
        *,
        least: float = -math.inf,
        above: float = -math.inf,
        most: float = math.inf,
        below: float = math.inf,
    ) -> None:
        """Refuse what cannot be drawn from, or may draw a number outside the bounds; ``name`` says what it is."""
        kind, values = check_one(name, asdict(self))
        low, high = min(values), max(values)
        ordered = kind not in ("uniform", "log_uniform") or values[0] <= values[1]
        if not all(math.isfinite(value) for value in values) or not ordered:
            raise ValueError(f"{name}: {kind} is {list(values)}; expected finite numbers, the smaller first")
        if kind == "log_uniform" and low <= 0:
            raise ValueError(f"{name}: log_uniform is {list(values)}; expected two positive numbers")
        if low < least or low <= above or high > most or high >= below:
            lower = f"above {above:g}" if above > -math.inf else f"at least {least:g}"
            upper = f" and below {below:g}" if below < math.inf else f" and at most {most:g}" if most < math.inf else ""
            raise ValueError(f"{name}: {kind} is {list(values)}; expected numbers {lower}{upper}")

    def draw(self, generator: np.random.Generator, turn: int = 0) -> float:
        """A number; of a grid or a list the one whose ``turn`` it is."""
        if self.choice is not None:
            return self.choice[generator.integers(len(self.choice))]
        if self.uniform is not None:
            return float(generator.uniform(*self.uniform))
        if self.log_uniform is None:
            return (self.grid or self.each or ())[turn]
        low, high = self.log_uniform
        drawn = math.exp(generator.uniform(math.log(low), math.log(high)))
        return min(max(drawn, low), high)  # rounding may carry it just outside


def check_one(name: str, kinds: Mapping[str, Sequence[Value] | None]) -> tuple[str, Sequence[Value]]:
    """The one kind that is given, which must not be empty."""
    given = {kind: values for kind, values in kinds.items() if values is not None}
    if len(given) != 1:
        *others, last = kinds
        raise ValueError(
            f"{name}: found {' and '.join(given) or 'nothing'}; expected one of {', '.join(others)} and {last} "
            "(to replace the one in a configuration file from the command line, set that one to null)"
        )
    [(kind, values)] = given.items()
    if not values:
        raise ValueError(f"{name}: {kind} is empty; expected at least one value")
    return kind, values


def turns(drawn: Mapping[str, Choice | Distribution], run_index: int) -> dict[str, int]:
    """Which value of each grid and each list is a run's; grids count like the digits of a number, the last fastest."""
    found: dict[str, int] = {}
    left = run_index
    for name, how in reversed(list(drawn.items())):
        if how.grid is not None:
            left, found[name] = divmod(left, len(how.grid))
        elif how.each is not None:
            found[name] = run_index
    return found


def check_lists(drawn: Mapping[str, Choice | Distribution], num_runs: int) -> None:
    """Refuse lists that do not have a value for every run."""
    for name, how in drawn.items():
        if how.each is not None and len(how.each) != num_runs:
            raise ValueError(
                f"{name}: each has {len(how.each)} values; expected {num_runs}, one for each run (num_runs)"
            )
