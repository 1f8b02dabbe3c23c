"""Rules of splits, drawn at random as documents: every field left out and not, bounds of zero among them.

Documents, since strategies must not use ``random``, which the type checks of this suite do when a record is built.
"""

from typing import Any

from hypothesis import strategies as st

from pipeline.split_rules import Condition, SplitRule

NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.just(0.0)


def conditions(columns: st.SearchStrategy[str] = st.text()) -> st.SearchStrategy[dict[str, Any]]:
    """Conditions of each sort."""
    words = st.lists(st.text(), min_size=1, max_size=3)
    sorts = (("above", NUMBERS), ("below", NUMBERS), ("among", words))
    return st.one_of(*(st.fixed_dictionaries({"column": columns, sort: given}) for sort, given in sorts))


@st.composite
def split_rules(draw: st.DrawFn, tests: st.SearchStrategy[dict[str, Any]] = conditions()) -> dict[str, Any]:
    """Rules; fractions of 0 and of all among them."""
    train = draw(st.sampled_from([0.0, 0.1, 0.7, 1.0]) | st.floats(0, 1))
    val = draw(st.sampled_from([0.0, 0.15, 1.0]) | st.floats(0, 1))
    document: dict[str, Any] = {
        "salt": draw(st.text(max_size=5)),
        "train": train,
        "val": val if train + val <= 1 else 0.0,
    }
    if draw(st.booleans()):
        document["train_fraction"] = draw(st.floats(0, 1, exclude_min=True, exclude_max=True))
    if draw(st.booleans()):
        document["test"] = draw(tests)
    return document


def rule_of(document: dict[str, Any]) -> SplitRule:
    """The rule of a document, made without reading it as one."""
    test = Condition(**document["test"]) if "test" in document else None
    return SplitRule(**{**document, "test": test})
