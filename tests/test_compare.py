"""The table of CKA values: the same however the work is cut up and ordered; right cells; clear refusals. No cluster."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from analysis import compare
from analysis.cka_table import CELL_COLUMNS, METADATA, CkaTable, read_cka_table
from analysis.compare import Comparison, cka, measure_block
from analysis.estimates import Estimator
from analysis.similarity import cka_matrix, debiased_linear_cka
from pipeline.cluster import Machine
from stored_networks import layers, samples, write_network

WIDTHS_A = {"input": 7, "hidden": 5, "output": 1}
WIDTHS_B = {"input": 7, "first": 3, "second": 11, "third": 2, "output": 1}
FIVE_BLOCKS = Comparison(most_blocks=5)


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def in_this_process(
    monkeypatch: pytest.MonkeyPatch,
    order: Callable[[list[Any]], Sequence[Any]] = list,
    before: Callable[[Any], None] = lambda task: None,
) -> None:
    """Have the job run its tasks here, one after another in some order, instead of on a cluster."""

    def run_tasks(
        function: Callable[..., Any], items: Sequence[Any], shared: Sequence[Any], machine: Machine, noun: str
    ) -> Iterator[tuple[Any, Any]]:
        for item in order(list(items)):
            before(item)
            yield item, function(item, *shared)

    monkeypatch.setattr(compare, "cluster", nullcontext)
    monkeypatch.setattr(compare, "run_tasks", run_tasks)


def compare_here(
    folder: Path, comparison: Comparison = FIVE_BLOCKS, order: Callable[[list[Any]], Sequence[Any]] = list
) -> CkaTable:
    """The table of the networks below ``folder/networks``."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        in_this_process(monkeypatch, order)
        cka(folder / "networks", folder / "cka.parquet", comparison)
    return read_cka_table(folder / "cka.parquet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two networks with three and with five layers."""
    folder = tmp_path_factory.mktemp("compare")
    write_network(folder / "networks" / "a", layers(1, WIDTHS_A))
    write_network(folder / "networks" / "b", layers(2, WIDTHS_B))
    return folder


@pytest.fixture(scope="module")
def table(folder: Path) -> CkaTable:
    return compare_here(folder)


def values(table: CkaTable) -> np.ndarray:
    return table.cells["value"].to_numpy()


def test_rows_are_the_layers_of_a_and_columns_those_of_b(table: CkaTable) -> None:
    """Every cell is the CKA of just those two arrays."""
    estimators: tuple[Estimator, ...] = ("debiased", "biased")
    for estimator in estimators:
        cells = table.pair("a", "b", estimator)
        assert (cells.a.layers, cells.b.layers) == (tuple(WIDTHS_A), tuple(WIDTHS_B))
        expected = cka_matrix(layers(1, WIDTHS_A), layers(2, WIDTHS_B), estimator=estimator).values
        assert cells.value == pytest.approx(expected, abs=1e-12)


def test_all_pairs_are_there_by_both_estimators_in_the_columns_of_the_format(table: CkaTable) -> None:
    found = table.cells.group_by(["model_a", "model_b", "estimator"]).aggregate([("value", "count")]).to_pylist()
    counts = {(row["model_a"], row["model_b"], row["estimator"]): row["value_count"] for row in found}
    pairs = {("a", "a"): 9, ("a", "b"): 15, ("b", "b"): 25}
    assert counts == {(*pair, estimator): n for pair, n in pairs.items() for estimator in ("debiased", "biased")}
    assert table.cells.schema.remove_metadata() == CELL_COLUMNS
    first = table.cells.slice(0, 1).to_pylist()[0]
    assert (first["n"], first["n_units"], first["d_a"], first["d_b"], first["n_blocks"]) == (86, 43, 7, 7, 5)
    digest = hashlib.sha256("".join(f"{name}\n" for name in samples()["sample_id"].to_pylist()).encode()).hexdigest()
    assert first["sample_digest"] == digest


def test_a_network_is_the_same_as_itself(table: CkaTable) -> None:
    for name, widths in (("a", WIDTHS_A), ("b", WIDTHS_B)):
        cells = table.pair(name, name, "debiased")
        assert np.diag(cells.value) == pytest.approx(np.ones(len(widths)), abs=1e-9)
        assert cells.value == pytest.approx(cells.value.T, abs=1e-12)
        assert np.diag(cells.high - cells.low) == pytest.approx(np.zeros(len(widths)), abs=1e-9)


@pytest.mark.parametrize(("most_blocks", "seed"), [(5, 1), (7, 3), (10, 1)])
def test_no_partition_into_blocks_changes_a_value(
    most_blocks: int, seed: int, table: CkaTable, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "networks").symlink_to(folder / "networks")
    found = compare_here(tmp_path, Comparison(most_blocks=most_blocks, seed=seed))
    assert values(found) == pytest.approx(values(table), abs=1e-12)
    assert not np.array_equal(found.cells["se"].to_numpy(), table.cells["se"].to_numpy())


@pytest.mark.parametrize("seed", [0, 1])
def test_any_order_of_tasks_gives_the_same_bytes(seed: int, table: CkaTable, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "networks").symlink_to(folder / "networks")
    rng = np.random.default_rng(seed)
    found = compare_here(tmp_path, order=lambda tasks: [tasks[place] for place in rng.permutation(len(tasks))])
    assert found.path.read_bytes() == table.path.read_bytes()


def test_single_precision_moves_values_by_less_than_a_millionth(table: CkaTable, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "networks").symlink_to(folder / "networks")
    found = compare_here(tmp_path, Comparison(most_blocks=5, precision="float32"))
    assert values(found) == pytest.approx(values(table), abs=1e-6)
    assert (values(found) != values(table)).any()


def test_samples_are_joined_by_id_whatever_their_order(table: CkaTable, tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(86)
    write_network(tmp_path / "networks" / "a", layers(1, WIDTHS_A))
    shuffled = {name: features[order] for name, features in layers(2, WIDTHS_B).items()}
    write_network(tmp_path / "networks" / "b", shuffled, samples(order))
    found = compare_here(tmp_path)
    for name in ("value", "se", "low", "high"):
        assert np.array_equal(found.cells[name].to_numpy(), table.cells[name].to_numpy())


def test_joining_by_position_would_give_other_values(table: CkaTable, tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(86)
    write_network(tmp_path / "networks" / "a", layers(1, WIDTHS_A))
    write_network(tmp_path / "networks" / "b", {name: one[order] for name, one in layers(2, WIDTHS_B).items()})
    found = compare_here(tmp_path).pair("a", "b", "debiased").value
    assert np.abs(found - table.pair("a", "b", "debiased").value).max() > 0.1


def test_other_samples_are_refused_naming_the_first(tmp_path: Path) -> None:
    write_network(tmp_path / "networks" / "a", layers(1, WIDTHS_A))
    write_network(tmp_path / "networks" / "b", layers(2, WIDTHS_B, n=84), samples(num_units=42))
    message = r"a and b were not represented on the same samples: 2 only in .*networks/a \('run042@0', 'run042@1'\)"
    with pytest.raises(ValueError, match=message):
        compare_here(tmp_path)
    assert not (tmp_path / "cka.parquet").exists()


def test_other_units_are_refused(tmp_path: Path) -> None:
    table = samples()
    other = table.set_column(1, "unit", pa.array(["run007", *table["unit"].to_pylist()[1:]]))
    write_network(tmp_path / "networks" / "a", layers(1, WIDTHS_A))
    write_network(tmp_path / "networks" / "b", layers(2, WIDTHS_B), other)
    with pytest.raises(ValueError, match=r"sample 'run000@0' belongs to unit 'run000' in .*a and to 'run007' in .*b"):
        compare_here(tmp_path)


def test_a_killed_job_goes_on_with_the_missing_pairs_to_the_same_bytes(
    table: CkaTable, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "networks").symlink_to(folder / "networks")
    started: list[compare.PairBlock] = []

    def kill_late(task: compare.PairBlock) -> None:
        started.append(task)
        if (task.a, task.b, task.block) == (0, 1, 3):
            raise Killed

    in_this_process(monkeypatch, before=kill_late)
    with pytest.raises(Killed):
        cka(tmp_path / "networks", tmp_path / "cka.parquet", FIVE_BLOCKS)
    assert [path.name for path in tmp_path.glob("cka*")] == ["cka.parquet.pairs"]
    started.clear()
    in_this_process(monkeypatch, before=started.append)
    cka(tmp_path / "networks", tmp_path / "cka.parquet", FIVE_BLOCKS)
    assert {(task.a, task.b) for task in started} == {(0, 1), (1, 1)}, "the pair (0, 0) was finished"
    assert (tmp_path / "cka.parquet").read_bytes() == table.path.read_bytes()
    assert [path.name for path in tmp_path.glob("cka*")] == ["cka.parquet"]


def test_a_second_run_measures_nothing_and_says_so(
    table: CkaTable, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cka.parquet").write_bytes(table.path.read_bytes())
    monkeypatch.setattr(compare, "run_tasks", None)  # whoever calls it fails
    cka([folder / "networks" / "a", folder / "networks" / "b"], tmp_path / "cka.parquet", FIVE_BLOCKS)
    printed = capsys.readouterr().out
    assert "Nothing to do" in printed
    assert "wrote" not in printed
    assert "CKA of 2 networks on 86 samples of 43 units: 98 rows" in printed
    assert "a and b, same layer: median" in printed
    assert max(map(len, printed.replace(str(tmp_path), "").splitlines())) <= 80


def test_one_network_is_compared_with_itself(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_this_process(monkeypatch)
    cka(folder / "networks" / "a", tmp_path / "cka.parquet", FIVE_BLOCKS)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "CKA of 1 network on 86 samples of 43 units: 18 rows"
    assert lines[-1] == f"wrote {tmp_path / 'cka.parquet'}"


def test_other_networks_or_settings_replace_the_table(tmp_path: Path) -> None:
    write_network(tmp_path / "networks" / "a", layers(1, WIDTHS_A))
    first = compare_here(tmp_path)
    again = compare_here(tmp_path, Comparison(most_blocks=5, seed=1))
    assert first.description != again.description
    write_network(tmp_path / "networks" / "a", layers(3, WIDTHS_A))
    assert not np.array_equal(values(again), values(compare_here(tmp_path, Comparison(most_blocks=5, seed=1))))


def test_a_file_of_something_else_is_not_replaced(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "networks").symlink_to(folder / "networks")
    pq.write_table(samples(), tmp_path / "cka.parquet")
    before = (tmp_path / "cka.parquet").read_bytes()
    with pytest.raises(ValueError, match=r"cka\.parquet: holds something else than CKA values"):
        compare_here(tmp_path)
    assert (tmp_path / "cka.parquet").read_bytes() == before


def test_a_constant_layer_and_one_that_is_nowhere_finite_cost_no_other_cell(table: CkaTable, tmp_path: Path) -> None:
    bad = layers(1, WIDTHS_A) | {"constant": np.full((86, 3), 5.0), "lost": np.full((86, 2), np.nan)}
    write_network(tmp_path / "networks" / "a", bad)
    write_network(tmp_path / "networks" / "b", layers(2, WIDTHS_B))
    cells = compare_here(tmp_path).pair("a", "b", "debiased")
    assert cells.value[:3] == pytest.approx(table.pair("a", "b", "debiased").value, abs=1e-12)
    assert (cells.reason[3] == "constant layer").all()
    assert (cells.reason[4] == "no finite row").all()
    assert np.isnan(cells.value[3:]).all()


def test_rows_that_are_not_finite_are_dropped_and_counted(tmp_path: Path) -> None:
    bad = layers(1, WIDTHS_A)
    bad["hidden"][[3, 59], 1] = np.inf, np.nan
    write_network(tmp_path / "networks" / "a", bad)
    write_network(tmp_path / "networks" / "b", layers(2, WIDTHS_B))
    found = compare_here(tmp_path)
    keep = np.delete(np.arange(86), [3, 59])
    expected = debiased_linear_cka(bad["input"][keep], layers(2, WIDTHS_B)["third"][keep])
    assert found.pair("a", "b", "debiased").value[0, 3] == pytest.approx(expected, abs=1e-12)
    ab = found.cells.filter((pc.field("model_a") == "a") & (pc.field("model_b") == "b"))
    assert set(ab["n"].to_pylist()) == {84}
    assert set(ab["n_dropped"].to_pylist()) == {2}


def test_a_layer_wider_than_samples_is_compared_exactly(tmp_path: Path) -> None:
    wide = {**layers(1, WIDTHS_A), "wide": layers(1, {"wide": 301})["wide"]}
    wide["wide"][11, 5] = np.nan
    write_network(tmp_path / "networks" / "a", wide)
    found = compare_here(tmp_path).pair("a", "a", "debiased")
    keep = np.delete(np.arange(86), 11)
    assert found.value[3, 3] == pytest.approx(1, abs=1e-9)
    assert found.value[1, 3] == pytest.approx(debiased_linear_cka(wide["hidden"][keep], wide["wide"][keep]), abs=1e-12)
    assert found.a.widths[3] == 301


def test_the_null_is_given_only_where_samples_are_independent(table: CkaTable, tmp_path: Path) -> None:
    """Two states of one run in the sum make unrelated layers look alike: sqrt(2) / n would be too small."""
    assert np.isnan(table.cells["null_sd"].to_numpy()).all()
    assert np.isnan(table.cells["z"].to_numpy()).all()
    write_network(tmp_path / "networks" / "a", layers(1, WIDTHS_A, n=43), samples(states=1))
    cells = compare_here(tmp_path).cells
    debiased = cells["estimator"].to_numpy() == "debiased"
    assert cells["null_sd"].to_numpy()[debiased] == pytest.approx(np.sqrt(2) / 43)
    assert cells["z"].to_numpy()[debiased] == pytest.approx(cells["value"].to_numpy()[debiased] * 43 / np.sqrt(2))
    assert np.isnan(cells["z"].to_numpy()[~debiased]).all(), "biased values of unrelated layers are not about 0"


def test_states_of_one_run_lift_the_values_of_unrelated_layers(tmp_path: Path) -> None:
    """Why the null is not given: three copies of every run, nothing in common between the two networks."""
    rng = np.random.default_rng(0)
    for name in "ab":
        features = np.repeat(rng.normal(size=(43, 29)), 3, axis=0) + 0.01 * rng.normal(size=(129, 29))
        write_network(tmp_path / "networks" / name, {"layer": features}, samples(states=3))
    assert compare_here(tmp_path).pair("a", "b", "debiased").value[0, 0] > 5 * np.sqrt(2) / 129


def test_few_units_have_values_and_no_intervals(tmp_path: Path) -> None:
    write_network(tmp_path / "networks" / "a", layers(1, WIDTHS_A, n=38), samples(num_units=19))
    cells = compare_here(tmp_path).cells
    assert np.isfinite(cells["value"].to_numpy()).all()
    assert np.isnan(cells["se"].to_numpy()).all()
    assert set(cells["n_blocks"].to_pylist()) == {1}


def test_three_samples_have_a_reason(tmp_path: Path) -> None:
    write_network(tmp_path / "networks" / "a", layers(1, WIDTHS_A, n=3), samples(num_units=3, states=1))
    cells = compare_here(tmp_path).cells
    assert set(cells.filter(pc.field("estimator") == "debiased")["reason"].to_pylist()) == {"n<4"}


def test_a_task_measures_its_block_alone(folder: Path) -> None:
    networks = [
        compare.Network(stored=stored, lost=frozenset())
        for stored in compare.find_representations([folder / "networks"])
    ]
    shared = compare.join_samples([network.stored for network in networks], 5, 0)
    found = [
        measure_block(compare.PairBlock(a=0, b=1, block=block), networks, shared, Comparison()).n for block in range(5)
    ]
    assert found == np.bincount(shared.block).tolist()
    assert sum(found) == 86


def test_too_few_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="most_blocks is 4; expected at least 5"):
        Comparison(most_blocks=4)


def no_file(path: Path) -> None:
    path.unlink()


def rewrite(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    return lambda path: pq.write_table(change(pq.read_table(path)), path)


def with_metadata(document: bytes) -> Callable[[Path], None]:
    return rewrite(lambda table: table.replace_schema_metadata({METADATA: document}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_file, r"no table of CKA values here; make it with python -m analysis cka"),
        (lambda path: path.write_bytes(b"PAR1"), r"not a readable table of CKA values"),
        (with_metadata(b"{"), r"not a readable table of CKA values"),
        (with_metadata(b"{}"), r"holds something else than CKA values"),
        (with_metadata(b'{"format": "metazoo-cka", "version": 2}'), r"version 2; this program reads version 1"),
        (rewrite(lambda table: table.drop_columns("se")), r"columns are model_a, .*; expected model_a, "),
    ],
)
def test_a_table_that_is_none_is_refused(
    damage: Callable[[Path], None], message: str, table: CkaTable, tmp_path: Path
) -> None:
    path = tmp_path / "cka.parquet"
    path.write_bytes(table.path.read_bytes())
    assert read_cka_table(path).cells.num_rows == 98
    damage(path)
    with pytest.raises(ValueError, match=message):
        read_cka_table(path)


def test_a_folder_is_no_table(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder; the table is a file, so give its name: .*cka.parquet"):
        cka(folder / "networks", tmp_path)
    assert not any(tmp_path.iterdir())
