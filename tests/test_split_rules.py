"""Splits are laws of names: of the hash of a unit, and of what a table says of its graphs."""

import hashlib
import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drawn_rules import conditions, rule_of, split_rules
from pipeline.dataset_manifest import canonical_json
from pipeline.split_rules import SIDES, Condition, SplitRule, check_names

UNITS = [f"unit-{number}" for number in range(2000)]


def test_the_split_of_a_unit_is_the_start_of_its_hash_as_a_fraction() -> None:
    """The SHA-256 of "split/run-10" begins with aa: 10/16 + 10/256 = 0.664; the rest adds less than 1/256 = 0.004."""
    assert hashlib.sha256(b"split/run-10").hexdigest().startswith("aa")
    assert SplitRule(train=0.67, val=0.2).of("run-10") == "train"
    assert SplitRule(train=0.66, val=0.2).of("run-10") == "val"
    assert SplitRule(train=0.46, val=0.2).of("run-10") == "test"


def test_the_ends_of_a_fraction_belong_to_the_next_side() -> None:
    at = int(hashlib.sha256(b"split/a").hexdigest()[:12], 16) / 2**48
    assert SplitRule(train=at, val=0.0).of("a") == "test"
    assert SplitRule(train=np.nextafter(at, 1), val=0.0).of("a") == "train"


def test_the_fractions_of_a_split_are_those_asked_for() -> None:
    """Of 20,000 units a fraction p varies by sqrt(p (1 - p) / 20,000) < 0.0036; four of that is 0.015."""
    counts = Counter(SplitRule().of(f"unit-{number}") for number in range(20_000))
    assert counts["train"] / 20_000 == pytest.approx(0.7, abs=0.015)
    assert counts["val"] / 20_000 == pytest.approx(0.15, abs=0.015)
    assert set(counts) == {"train", "val", "test"}


def test_another_salt_gives_an_independent_split() -> None:
    """Two independent splits agree on 0.7^2 + 2 * 0.15^2 = 0.535 of the units."""
    units = [f"unit-{number}" for number in range(20_000)]
    same = np.mean([SplitRule().of(unit) == SplitRule(salt="other").of(unit) for unit in units])
    assert same == pytest.approx(0.535, abs=0.015)


@pytest.mark.parametrize(("train", "val"), [(0.9, 0.2), (-0.1, 0.2), (0.5, -0.1), (float("nan"), 0.1)])
def test_fractions_that_are_none_are_refused(train: float, val: float) -> None:
    with pytest.raises(ValueError, match="expected fractions, together at most 1"):
        SplitRule(train=train, val=val)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, float("nan")])
def test_a_fraction_of_the_training_side_that_is_none_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="expected a fraction above 0, up to 1"):
        SplitRule(train_fraction=fraction)


def sides_by_the_page(rule: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """docs/stores.md, "A split by rule", one row at a time; the rule as it lies in the manifest."""

    def holds(row: dict[str, Any]) -> bool:
        condition = rule["test"]
        found = row[condition["column"]]
        if found is None:
            return False
        if "among" in condition:
            return found in condition["among"]
        return found > condition["above"] if "above" in condition else found < condition["below"]

    def side(row: dict[str, Any]) -> str:
        if "test" in rule and holds(row):
            return "test"
        first = hashlib.sha256(f"{rule['salt']}/{row['unit']}".encode()).digest()[:6]
        u = math.ldexp(sum(byte * 256 ** (5 - place) for place, byte in enumerate(first)), -48)
        if u < rule["train"]:
            return "train" if u < rule["train"] * rule.get("train_fraction", 1.0) else "unused"
        if u < rule["train"] + rule["val"]:
            return "val"
        return "test_in" if "test" in rule else "test"

    return [side(row) for row in rows]


ASKED = conditions(st.sampled_from(["number", "count", "word"])).filter(
    lambda condition: (condition["column"] == "word") == ("among" in condition)
)


@given(document=split_rules(ASKED), data=st.data())
def test_the_sides_of_graphs_are_those_of_the_page(document: dict[str, Any], data: st.DataObject) -> None:
    """Bounds, NaN, nulls and words; the columns the same for all graphs of a unit."""
    condition = document.get("test", {})
    numbers = st.none() | st.sampled_from([0.0, condition.get("above", 1.0), condition.get("below", 1.0)]) | st.floats()
    words = st.none() | st.sampled_from(["a", *condition.get("among", [])])
    units = data.draw(st.lists(st.sampled_from(UNITS[:20]), max_size=30))
    of_unit = {
        unit: {
            "number": data.draw(numbers),
            "count": data.draw(st.none() | st.integers(-3, 3)),
            "word": data.draw(words),
        }
        for unit in dict.fromkeys(units)
    }
    rows = [{"unit": unit, **of_unit[unit]} for unit in units]
    types = {"unit": pa.string(), "number": pa.float64(), "count": pa.int64(), "word": pa.string()}
    found = rule_of(document).sides(pa.Table.from_pylist(rows, schema=pa.schema(list(types.items()))))
    assert found == sides_by_the_page(json.loads(canonical_json(document)), rows)
    assert set(found) <= set(SIDES)


def test_a_part_of_the_training_side_is_part_of_a_larger_one_and_the_rest_is_unused() -> None:
    """Of about 1,400 training units: 10 % within 50 % within all; nothing else moves."""
    sides = {
        fraction: np.array([SplitRule(train_fraction=fraction).of(unit) for unit in UNITS])
        for fraction in (0.1, 0.5, 1.0)
    }
    small, half, whole = (set(np.flatnonzero(sides[fraction] == "train")) for fraction in (0.1, 0.5, 1.0))
    assert small < half < whole
    assert 94 < len(small) < 186  # 140 on average; four standard deviations are 46
    for fraction in (0.1, 0.5):
        changed = sides[fraction] != sides[1.0]
        assert set(sides[fraction][changed]) == {"unused"}
        assert set(sides[1.0][changed]) == {"train"}


def test_the_end_of_a_part_of_the_training_side_is_a_product() -> None:
    """The fraction of run-10 is between 0.664 and 0.668 (see above): 0.7 * 0.96 = 0.672 and 0.7 * 0.94 = 0.658."""
    assert SplitRule(train=0.7, train_fraction=0.96).of("run-10") == "train"
    assert SplitRule(train=0.7, train_fraction=0.94).of("run-10") == "unused"


@pytest.mark.parametrize(
    "rule", [{"train": 0.7, "val": 0.15}, {"train": 0.3, "val": 0.6, "train_fraction": 0.4}], ids=str
)
def test_the_sides_of_many_units_are_those_of_the_page(rule: dict[str, Any]) -> None:
    document = {"salt": "s", **rule}
    rows = [{"unit": unit} for unit in UNITS]
    assert rule_of(document).sides(pa.Table.from_pylist(rows)) == sides_by_the_page(document, rows)


@given(unit=st.text(max_size=5), fractions=st.tuples(st.floats(1e-6, 1), st.floats(1e-6, 1)))
def test_no_unit_is_in_the_smaller_part_and_not_in_the_larger(unit: str, fractions: tuple[float, float]) -> None:
    smaller, larger = (SplitRule(train_fraction=fraction).of(unit) for fraction in sorted(fractions))
    assert smaller == larger or (smaller, larger) == ("unused", "train")


TABLE = pa.table(
    {
        "unit": ["a", "b", "c", "d"],
        "number": [1.0, 2.0, float("nan"), None],
        "small": pa.array([1.0, 2.0, float("nan"), None], type=pa.float32()),
        "count": pa.array([1, 2, 3, None]),
        "size": pa.array([1, 2, 3, 2**32 - 1], type=pa.uint32()),
        "word": ["x", "y", "", None],
        "repeated": pa.array(["x", "y", "x", None]).dictionary_encode(),
    }
)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Condition(column="number", above=1.0), [False, True, False, False]),
        (Condition(column="number", below=2.0), [True, False, False, False]),
        (Condition(column="small", above=1.0), [False, True, False, False]),
        (Condition(column="count", above=1.5), [False, True, True, False]),
        (Condition(column="count", below=2.0), [True, False, False, False]),
        (Condition(column="size", above=2.0), [False, False, True, True]),
        (Condition(column="word", among=["x", "z"]), [True, False, False, False]),
        (Condition(column="word", among=[""]), [False, False, True, False]),
        (Condition(column="word", among=["None", "nan"]), [False, False, False, False]),
        (Condition(column="repeated", among=["x"]), [True, False, True, False]),
    ],
)
def test_a_condition_holds_beyond_its_bound_or_for_its_words_and_nowhere_for_a_null(
    condition: Condition, expected: list[bool]
) -> None:
    assert condition.of(TABLE).tolist() == expected
    chunked = pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1)])
    assert condition.of(chunked).tolist() == expected


def test_a_condition_on_no_rows_holds_nowhere() -> None:
    for condition in (Condition(column="count", above=0.0), Condition(column="word", among=["x"])):
        assert condition.of(TABLE.slice(0, 0)).tolist() == []


def test_a_condition_on_no_column_says_which_there_are() -> None:
    with pytest.raises(ValueError, match="a split asks for 'widht', which is no column; found unit, number, small"):
        Condition(column="widht", above=3.0).of(TABLE)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (Condition(column="word", above=1.0), "asks for word above or below a number, and the column holds string"),
        (Condition(column="repeated", below=1.0), "repeated above or below a number, and the column holds dictionary"),
        (Condition(column="number", among=["x"]), "asks for number among words, and the column holds double"),
        (Condition(column="count", among=["1"]), "asks for count among words, and the column holds int64"),
    ],
)
def test_numbers_are_not_words_and_words_are_not_numbers(condition: Condition, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        condition.of(TABLE)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([True, False]),
        pa.array([0, 1], type=pa.timestamp("s")),
        pa.array([["x"], ["y"]]),
        pa.array([["x", "y"], ["y", "z"]]),
        pa.array([1, 2]).dictionary_encode(),
        pa.array([b"x", b"y"]),
    ],
    ids=lambda column: str(column.type).split("<")[0],
)
@pytest.mark.parametrize("condition", [{"above": 0.5}, {"among": ["True", "x"]}], ids=["number", "words"])
def test_a_column_that_holds_neither_numbers_nor_words_is_refused(column: pa.Array, condition: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a split asks for odd .*, and the column holds"):
        Condition(column="odd", **condition).of(pa.table({"odd": column}))


@pytest.mark.parametrize(
    "given",
    [{}, {"above": 1.0, "below": 2.0}, {"above": 0.0, "among": ["x"]}, {"among": []}, {"below": 0.0, "among": ["x"]}],
)
def test_a_condition_asks_one_thing(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="condition on width: expected one of above, below and among"):
        Condition(column="width", **given)


@pytest.mark.parametrize("bound", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("sort", ["above", "below"])
def test_a_bound_that_no_manifest_can_hold_is_refused(sort: str, bound: float) -> None:
    """JSON has no NaN and no infinity, and a bound of NaN holds for nothing without saying so."""
    with pytest.raises(ValueError, match=f"condition on width: {sort} is .*expected a finite number"):
        Condition(column="width", **dict[str, Any]({sort: bound}))


def test_what_is_out_of_distribution_is_test_and_what_the_hash_holds_out_is_test_in() -> None:
    widths = {unit: number % 3 for number, unit in enumerate(UNITS)}
    table = pa.table({"unit": UNITS, "width": list(widths.values())})
    plain, rule = SplitRule(), SplitRule(test=Condition(column="width", above=1.0))
    for (unit, width), side in zip(widths.items(), rule.sides(table), strict=True):
        by_hash = plain.of(unit)
        assert side == ("test" if width == 2 else "test_in" if by_hash == "test" else by_hash)
    assert set(rule.sides(table)) == {"train", "val", "test", "test_in"}
    assert set(plain.sides(table)) == {"train", "val", "test"}


def test_a_unit_on_both_sides_of_a_condition_is_refused_by_name() -> None:
    table = pa.table({"unit": ["a", "b", "b"], "epoch": [1, 0, 7]})
    with pytest.raises(ValueError, match="unit b has graphs that are out of distribution by epoch and others that are"):
        SplitRule(test=Condition(column="epoch", above=3.0)).sides(table)
    assert (
        SplitRule(test=Condition(column="epoch", above=7.0)).sides(table)[1:]
        == [SplitRule(test=Condition(column="epoch", above=7.0)).of("b")] * 2
    )


def test_a_null_among_numbers_of_a_unit_is_on_the_other_side_of_them() -> None:
    table = pa.table({"unit": ["a", "a"], "momentum": [0.9, None]})
    with pytest.raises(ValueError, match="unit a has graphs that are out of distribution by momentum"):
        SplitRule(test=Condition(column="momentum", above=0.5)).sides(table)


@given(split_rules())
def test_a_rule_and_its_document_come_back_from_the_manifest(document: dict[str, Any]) -> None:
    """Bounds of 0.0 too, which are false."""
    assert rule_of(document).document() == document
    assert SplitRule.parse(json.loads(canonical_json(document))) == rule_of(document)


def test_a_bound_of_zero_is_in_the_document() -> None:
    assert SplitRule(test=Condition(column="step", above=0.0)).document() == {
        "salt": "split",
        "train": 0.7,
        "val": 0.15,
        "test": {"column": "step", "above": 0.0},
    }


def test_numbers_without_a_point_are_read_as_those_with_one() -> None:
    document = {"salt": "s", "train": 1, "val": 0, "test": {"column": "step", "below": 0}}
    rule = SplitRule.parse(document)
    assert rule == SplitRule(salt="s", train=1.0, val=0.0, test=Condition(column="step", below=0.0))
    assert canonical_json(rule.document()) == (
        '{"salt":"s","test":{"below":0.0,"column":"step"},"train":1.0,"val":0.0}'
    )


DOCUMENT = {"salt": "s", "train": 0.5, "val": 0.25, "train_fraction": 0.5, "test": {"column": "width", "above": 3.0}}


@pytest.mark.parametrize("name", ["salt", "train", "val"])
def test_a_rule_without_what_the_page_says_it_has_is_refused(name: str) -> None:
    """A default in its place would be another rule when the default changes."""
    with pytest.raises(ValueError, match="not the rule of a split"):
        SplitRule.parse({key: value for key, value in DOCUMENT.items() if key != name})


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"val": 0.6},
        {"train": None},
        {"train": [0.5]},
        {"train": math.nan},
        {"train": 10**400},
        {"train_fraction": 0},
        {"train_fraction": math.nan},
        {"test": None},
        {"test": []},
        {"test": "width"},
        {"test": {}},
        {"test": {"column": "width"}},
        {"test": {"above": 3.0}},
        {"test": {"column": "width", "above": 3.0, "below": 5.0}},
        {"test": {"column": "width", "above": 3.0, "unless": 5.0}},
        {"test": {"column": "width", "above": None}},
        {"test": {"column": "width", "above": math.nan}},
        {"test": {"column": "width", "above": -(10**400)}},
        {"test": {"column": "width", "among": []}},
    ],
    ids=lambda change: str(change)[:40],
)
def test_what_is_no_rule_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not the rule of a split"):
        SplitRule.parse(DOCUMENT | change)


NONSENSE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(DOCUMENT)), inner, max_size=3),
    max_leaves=5,
)


@given(
    change=st.dictionaries(st.sampled_from([*DOCUMENT, "seed"]), NONSENSE, max_size=3),
    test=st.dictionaries(st.sampled_from(["column", "above", "below", "among"]), NONSENSE, max_size=3),
    has_test=st.booleans(),
)
def test_nonsense_is_refused_or_is_a_rule_that_can_be_written(
    change: dict[str, Any], test: dict[str, Any], has_test: bool
) -> None:
    try:
        rule = SplitRule.parse(DOCUMENT | change | ({"test": test} if has_test else {}))
    except ValueError:
        return
    assert SplitRule.parse(json.loads(canonical_json(rule.document()))) == rule


WRONG_TYPES = [
    [],
    "rule",
    None,
    3,
    DOCUMENT | {"salt": 5},
    DOCUMENT | {"salt": None},
    DOCUMENT | {"train": "0.5"},
    DOCUMENT | {"train": True, "val": 0},
    DOCUMENT | {"test": []},
    DOCUMENT | {"test": {"column": 5, "above": 3.0}},
    DOCUMENT | {"test": {"column": ["width"], "above": 3.0}},
    DOCUMENT | {"test": {"column": "family", "among": "abc"}},
    DOCUMENT | {"test": {"column": "family", "among": [1]}},
    DOCUMENT | {"test": {"column": "family", "among": {"a": 1}}},
]


def test_wrong_types_are_refused_where_nothing_checks_types() -> None:
    """A manifest is read in production, in which the checks of this suite are off: a string among whose letters words
    are looked for, say, would be believed."""
    program = (
        "import json, sys\n"
        "from pipeline.split_rules import SplitRule\n"
        "for text in sys.stdin:\n"
        "    try:\n"
        "        print('believed', SplitRule.parse(json.loads(text)))\n"
        "    except ValueError:\n"
        "        print('refused')\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[1],
        input="\n".join(map(json.dumps, WRONG_TYPES)),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert dict(zip(map(str, WRONG_TYPES), found, strict=True)) == dict.fromkeys(map(str, WRONG_TYPES), "refused")


def test_names_of_further_splits_begin_with_split() -> None:
    check_names(["split_width", "split_"])
    for name in ("split", "width", "Split_width", ""):
        with pytest.raises(ValueError, match=f"further_splits: '{name}' does not begin with 'split_'"):
            check_names(["split_ok", name])
