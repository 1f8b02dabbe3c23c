"""Order, parts, tables and what is left out are laws of names, digests and lengths."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drawn_rules import rule_of, split_rules
from pipeline import graph_plan
from pipeline.dataset_manifest import DTYPES, canonical_json
from pipeline.dataset_tables import GRAPH_COLUMNS, LEFT_OUT_COLUMNS
from pipeline.graph_plan import DatasetPlan, DatasetSpec, Present, place, plan_dataset, shuffled
from pipeline.graph_source import SOURCE_COLUMNS, GraphSource
from pipeline.split_rules import Condition, SplitRule
from pipeline.template_document import write_document
from tiny_networks import traced

DOCUMENTS = {
    traced(name)[1].digest: write_document(traced(name)[1])
    for name in ("linear", "deep linear", "one layer used twice")
}
"""Texts of three templates, by their digests."""
TEMPLATES = list(DOCUMENTS)


def source_of(ids: Sequence[str], left_out: Sequence[tuple[str, str]] = (), **columns: Sequence[Any]) -> GraphSource:
    """A source of graphs of these ids, each a unit of its own of other values; columns may be given otherwise."""
    count = len(ids)
    made: dict[str, Sequence[Any]] = {
        "graph_id": ids,
        "unit": ids,
        "template": [TEMPLATES[0]] * count,
        "length": [1] * count,
        "values_sha256": [f"values of {name}" for name in ids],
        "file_offset": list(range(count)),
        **columns,
    }
    zeros = {pa.string(): "", pa.float64(): 0.0}
    rows = {
        field.name: pa.array(made.pop(field.name, [zeros.get(field.type, 0)] * count), type=field.type)
        for field in SOURCE_COLUMNS
    }
    others = [[name for name, _ in left_out], [reason for _, reason in left_out], [""] * len(left_out)]
    return GraphSource(
        sources={"made by hand": ""},
        rows=pa.table(rows | made),
        left_out=pa.table(others, schema=LEFT_OUT_COLUMNS),
        documents=DOCUMENTS,
        files=(),
    )


def ids_of(plan: DatasetPlan) -> list[str]:
    return [graph_id for part in plan.parts for graph_id in part.graph_id]


LENGTHS = st.lists(st.integers(1, 23), min_size=1, max_size=40)


@given(lengths=LENGTHS, floats_per_part=st.integers(1, 31))
def test_graphs_lie_one_after_another_in_parts_that_are_full(lengths: list[int], floats_per_part: int) -> None:
    """Slow reference: parts as lists, filled one graph at a time."""
    parts: list[list[int]] = []
    expected = []
    for length in lengths:
        if not parts or sum(parts[-1]) + length > floats_per_part:
            parts.append([])
        expected.append((len(parts) - 1, sum(parts[-1])))
        parts[-1].append(length)
    part, offset = place(np.array(lengths, dtype=np.int64), floats_per_part)
    assert list(zip(part.tolist(), offset.tolist(), strict=True)) == expected


def test_a_graph_longer_than_a_part_has_a_part_of_its_own() -> None:
    part, offset = place(np.array([2, 11, 3, 2, 1], dtype=np.int64), floats_per_part=5)
    assert part.tolist() == [0, 1, 2, 2, 3]
    assert offset.tolist() == [0, 0, 0, 3, 0]


@given(names=st.lists(st.text(max_size=5), unique=True, max_size=20), data=st.data())
def test_the_order_of_the_graphs_does_not_depend_on_the_order_they_come_in(
    names: list[str], data: st.DataObject
) -> None:
    mixed = data.draw(st.permutations(names))
    assert [names[place] for place in shuffled(names, 3)] == [mixed[place] for place in shuffled(mixed, 3)]
    assert sorted(shuffled(names, 3).tolist()) == list(range(len(names)))


def test_another_seed_gives_another_order() -> None:
    names = [f"run-{number}" for number in range(50)]
    assert shuffled(names, 0).tolist() != shuffled(names, 1).tolist()


def test_parts_of_no_floats_are_refused() -> None:
    with pytest.raises(ValueError, match="floats_per_part is 0; expected at least 1"):
        DatasetSpec(floats_per_part=0)


NAMES = st.lists(st.text(max_size=3), unique=True, min_size=1, max_size=20)


@given(data=st.data(), names=NAMES, seed=st.integers(0, 3))
def test_of_equal_graphs_the_first_by_id_is_kept_whatever_the_order_and_the_seed(
    data: st.DataObject, names: list[str], seed: int
) -> None:
    """Slow reference: the smallest id of each template and values."""
    key_of = {name: (data.draw(st.sampled_from(TEMPLATES)), data.draw(st.sampled_from("abc"))) for name in names}
    first = {key: min(name for name in names if key_of[name] == key) for key in key_of.values()}
    mixed = data.draw(st.permutations(names))
    source = source_of(
        mixed, template=[key_of[name][0] for name in mixed], values_sha256=[key_of[name][1] for name in mixed]
    )
    plan = plan_dataset(source, DatasetSpec(seed=seed))
    assert sorted(ids_of(plan)) == sorted(first.values())
    assert plan.left_out.to_pylist() == [
        {"graph_id": name, "reason": "duplicate", "detail": first[key_of[name]]}
        for name in sorted(names)
        if first[key_of[name]] != name
    ]
    everything = plan_dataset(source, DatasetSpec(seed=seed), duplicates="keep")
    assert sorted(ids_of(everything)) == sorted(names)
    assert everything.left_out.num_rows == 0


def test_the_same_values_in_another_template_are_another_graph() -> None:
    plan = plan_dataset(source_of(["a", "b"], template=TEMPLATES[:2], values_sha256=["v", "v"]), DatasetSpec())
    assert sorted(ids_of(plan)) == ["a", "b"]


PRESENT = Present(num_parts=3, graph_ids={"old"}, templates={TEMPLATES[0]}, graph_of={(TEMPLATES[0], "v"): "old"})
"""One graph, in the last of three parts."""


def test_a_duplicate_of_a_graph_that_is_present_is_left_out_though_its_id_comes_first() -> None:
    source = source_of(["a", "b", "c"], values_sha256=["v", "w", "w"])
    plan = plan_dataset(source, DatasetSpec(), present=PRESENT)
    assert ids_of(plan) == ["b"]
    assert plan.left_out.to_pylist() == [
        {"graph_id": "a", "reason": "duplicate", "detail": "old"},
        {"graph_id": "c", "reason": "duplicate", "detail": "b"},
    ]
    assert sorted(ids_of(plan_dataset(source, DatasetSpec(), duplicates="keep", present=PRESENT))) == ["a", "b", "c"]


def test_nothing_but_duplicates_of_what_is_present_is_an_error_that_counts_them() -> None:
    source = source_of(["a", "b"], values_sha256=["v", "v"], left_out=[("z", "diverged"), ("y", "diverged")])
    with pytest.raises(ValueError, match="made by hand: nothing to put into a dataset; 2 diverged, 2 duplicate"):
        plan_dataset(source, DatasetSpec(), present=PRESENT)
    with pytest.raises(ValueError, match="nothing to put into a dataset; nothing was left out"):
        plan_dataset(source_of([]), DatasetSpec())


def test_what_is_left_out_is_ordered_by_graph() -> None:
    source = source_of(["b", "e"], values_sha256=["v", "v"], left_out=[("f", "refused"), ("a", "diverged"), ("c", "")])
    plan = plan_dataset(source, DatasetSpec())
    assert plan.left_out["graph_id"].to_pylist() == ["a", "c", "e", "f"]
    assert plan.left_out["reason"].to_pylist() == ["diverged", "", "duplicate", "refused"]
    assert plan.left_out.schema == LEFT_OUT_COLUMNS


def test_a_graph_that_is_there_twice_is_refused_and_named() -> None:
    with pytest.raises(ValueError, match="graph b is there twice; give every run an id of its own"):
        plan_dataset(source_of(["c", "b", "a", "b", "c"]), DatasetSpec())


@pytest.mark.parametrize("duplicates", ["leave out", "keep"])
def test_a_graph_whose_id_is_present_is_refused_even_as_a_duplicate(duplicates: Any) -> None:
    source = source_of(["new", "old"], values_sha256=["u", "v"])
    with pytest.raises(ValueError, match="graph old is in the dataset already; append what is not there yet"):
        plan_dataset(source, DatasetSpec(), duplicates, PRESENT)


def test_a_unit_that_would_change_its_side_is_refused_and_one_that_keeps_it_is_not() -> None:
    everything_trains = DatasetSpec(
        split=SplitRule(train=1.0, val=0.0), further_splits={"split_b": SplitRule(train=1.0, val=0.0)}
    )
    source = source_of(["a", "b"], unit=["u", "w"])

    def plan(side: str) -> DatasetPlan:
        return plan_dataset(source, everything_trains, present=Present(sides={"split": {}, "split_b": {"w": side}}))

    with pytest.raises(
        ValueError, match="unit w would be 'train' by split_b, and its graphs in the dataset are 'test'"
    ):
        plan("test")
    assert plan("train").num_graphs == 2


def test_appended_parts_are_numbered_after_those_that_are_present() -> None:
    plan = plan_dataset(source_of(["a", "b"]), DatasetSpec(floats_per_part=1), present=PRESENT)
    assert [str(part) for part in plan.parts] == ["00003", "00004"]
    assert [row for table in plan.tables for row in table.rows["part"].to_pylist()] == [3, 4]


@given(data=st.data(), lengths=LENGTHS, floats_per_part=st.integers(1, 31), rows_per_table=st.integers(1, 7))
def test_tables_have_the_rows_of_whole_parts_and_few_of_them_and_each_template_lies_with_the_first(
    data: st.DataObject, lengths: list[int], floats_per_part: int, rows_per_table: int
) -> None:
    """Slow reference: part after part goes into the last table, unless that would get too long."""
    names = [f"graph {number}" for number in range(len(lengths))]
    templates = [data.draw(st.sampled_from(TEMPLATES)) for _ in names]
    there = data.draw(st.sets(st.sampled_from(TEMPLATES)))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(graph_plan, "ROWS_PER_TABLE", rows_per_table)
        plan = plan_dataset(
            source_of(names, length=lengths, template=templates),
            DatasetSpec(floats_per_part=floats_per_part),
            present=Present(num_parts=2, templates=there),
        )
    expected: list[list[tuple[str, ...]]] = []
    for part in plan.parts:
        if not expected or sum(map(len, expected[-1])) + len(part.graph_id) > rows_per_table:
            expected.append([])
        expected[-1].append(part.graph_id)
    assert [table.rows["graph_id"].to_pylist() for table in plan.tables] == [
        [name for part in parts for name in part] for parts in expected
    ]
    assert [table.num_parts for table in plan.tables] == [len(parts) for parts in expected]
    assert all(len(set(table.rows["part"].to_pylist())) == table.num_parts for table in plan.tables)
    stored = set(there)
    for table in plan.tables:
        needed = set(table.rows["template"].to_pylist())
        assert dict(table.documents) == {digest: DOCUMENTS[digest] for digest in needed - stored}
        assert table.record.num_templates == len(needed - stored)
        stored |= needed


def test_a_part_of_many_graphs_has_a_table_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eleven graphs of one float, five a part, and tables of at most two rows."""
    monkeypatch.setattr(graph_plan, "ROWS_PER_TABLE", 2)
    plan = plan_dataset(source_of([f"{n}" for n in range(11)]), DatasetSpec(floats_per_part=5))
    assert [(table.rows.num_rows, table.num_parts) for table in plan.tables] == [(5, 1), (5, 1), (1, 1)]


@pytest.mark.parametrize("name", ["split", "split_b", "width", "depth", "part", "offset"])
def test_a_column_of_a_name_that_datasets_use_is_refused(name: str) -> None:
    spec = DatasetSpec(further_splits={"split_b": SplitRule()})
    with pytest.raises(ValueError, match=f"the source has a column '{name}', a name that datasets use themselves"):
        plan_dataset(source_of(["a"], **dict[str, Any]({name: ["train"]})), spec)


def test_the_table_has_the_columns_of_the_page_then_further_splits_then_what_the_source_has() -> None:
    spec = DatasetSpec(further_splits={"split_z": SplitRule(salt="z"), "split_a": SplitRule(salt="a")})
    [table] = plan_dataset(source_of(["a", "b"], colour=["red", None]), spec).tables
    assert table.rows.schema.names == [*GRAPH_COLUMNS.names, "split_z", "split_a", "colour"]
    assert all(table.rows.schema.field(name).type == GRAPH_COLUMNS.field(name).type for name in GRAPH_COLUMNS.names)
    for name, rule in spec.splits.items():
        assert table.rows[name].to_pylist() == [rule.of(unit) for unit in table.rows["unit"].to_pylist()]


def test_a_split_may_ask_for_the_width_the_depth_and_the_columns_of_the_source() -> None:
    """Widths: 3 of "linear", 3 of "deep linear", whose depth is 3 and not 2."""
    for condition in (Condition(column="depth", above=2.0), Condition(column="colour", among=["red"])):
        spec = DatasetSpec(split=SplitRule(train=1.0, val=0.0, test=condition))
        source = source_of(["a", "b"], template=TEMPLATES[:2], colour=["blue", "red"])
        [table] = plan_dataset(source, spec).tables
        sides = dict(zip(table.rows["graph_id"].to_pylist(), table.rows["split"].to_pylist(), strict=True))
        assert sides == {"a": "train", "b": "test"}
        assert dict(zip(table.rows["graph_id"].to_pylist(), table.rows["depth"].to_pylist(), strict=True)) == {
            "a": 2,
            "b": 3,
        }


@given(
    split=split_rules(),
    further=st.dictionaries(st.text(max_size=3).map(lambda name: f"split_{name}"), split_rules(), max_size=2),
    seed=st.integers(-(2**70), 2**70),
    floats_per_part=st.integers(1, 2**40),
    dtype=st.sampled_from(DTYPES),
)
def test_a_specification_comes_back_from_the_manifest(
    split: dict[str, Any], further: dict[str, dict[str, Any]], seed: int, floats_per_part: int, dtype: Any
) -> None:
    rules = {name: rule_of(document) for name, document in further.items()}
    spec = DatasetSpec(
        seed=seed, floats_per_part=floats_per_part, dtype=dtype, split=rule_of(split), further_splits=rules
    )
    options = json.loads(canonical_json(spec.options()))
    assert DatasetSpec.parse(dtype, options) == spec


OPTIONS = DatasetSpec().options()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"splits": OPTIONS["splits"]},
        OPTIONS | {"splits": {}},
        OPTIONS | {"splits": []},
        OPTIONS | {"splits": {"split": []}},
        OPTIONS | {"splits": {"split": "rule"}},
        OPTIONS | {"splits": {"split": OPTIONS["splits"]["split"], "width": OPTIONS["splits"]["split"]}},
        OPTIONS | {"seed": None},
        OPTIONS | {"seed": "zero"},
        OPTIONS | {"seed": 1.5},
        OPTIONS | {"floats_per_part": 0},
        OPTIONS | {"floats_per_part": [1]},
    ],
    ids=str,
)
def test_options_that_do_not_say_how_to_go_on_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="its options do not say how to go on|floats_per_part is 0|'width' does not"):
        DatasetSpec.parse("float32", options)


@pytest.mark.parametrize("name", ["width", "split", "Split_b"])
def test_further_splits_have_the_names_of_splits(name: str) -> None:
    with pytest.raises(ValueError, match=f"further_splits: '{name}' does not begin with 'split_'"):
        DatasetSpec(further_splits={name: SplitRule()})
