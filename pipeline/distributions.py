"""How a hyperparameter is drawn, written in YAML as one readable line.

    optimizer: {choice: [sgd, adam, rmsprop]}
    learning_rate: {log_uniform: [5.0e-4, 5.0e-2]}
    dropout: {uniform: [0.0, 0.5]}

Reads   nothing
Writes  nothing

A drawing takes a generator of its own, so what one hyperparameter is never depends on how many others are drawn.
"""

import math
from dataclasses import asdict, dataclass
from typing import Generic, TypeVar

import numpy as np

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Choice(Generic[Value]):
    """One of some values. A value given twice is twice as likely."""

    choice: tuple[Value, ...]
    """One of these, each equally likely."""

    def check(self, name: str) -> None:
        """Refuse nothing to choose from; ``name`` says in the error what is drawn."""
        if not self.choice:
            raise ValueError(f"{name}: choice is empty; expected at least one value")

    def draw(self, generator: np.random.Generator) -> Value:
        return self.choice[generator.integers(len(self.choice))]


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """How a number is drawn: exactly one of the three is given."""

    choice: tuple[float, ...] | None = None
    """One of these, each equally likely."""
    uniform: tuple[float, float] | None = None
    """Uniform from the first to the second."""
    log_uniform: tuple[float, float] | None = None
    """Log-uniform from the first to the second."""

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
        given = {kind: values for kind, values in asdict(self).items() if values is not None}
        if len(given) != 1:
            raise ValueError(
                f"{name}: found {' and '.join(given) or 'nothing'}; expected one of choice, uniform and log_uniform "
                "(to replace the one in a configuration file from the command line, set that one to null)"
            )
        [(kind, values)] = given.items()
        if not values:
            raise ValueError(f"{name}: choice is empty; expected at least one number")
        low, high = min(values), max(values)
        if not all(math.isfinite(value) for value in values) or (kind != "choice" and values[0] > values[1]):
            raise ValueError(f"{name}: {kind} is {list(values)}; expected finite numbers, the smaller first")
        if kind == "log_uniform" and low <= 0:
            raise ValueError(f"{name}: log_uniform is {list(values)}; expected two positive numbers")
        if low < least or low <= above or high > most or high >= below:
            lower = f"above {above:g}" if above > -math.inf else f"at least {least:g}"
            upper = f" and below {below:g}" if below < math.inf else f" and at most {most:g}" if most < math.inf else ""
            raise ValueError(f"{name}: {kind} is {list(values)}; expected numbers {lower}{upper}")

    def draw(self, generator: np.random.Generator) -> float:
        if self.choice is not None:
            return self.choice[generator.integers(len(self.choice))]
        if self.uniform is not None:
            return float(generator.uniform(*self.uniform))
        assert self.log_uniform is not None
        low, high = self.log_uniform
        drawn = math.exp(generator.uniform(math.log(low), math.log(high)))
        return min(max(drawn, low), high)  # rounding may carry it just outside
