"""What is appended lies behind what is there, which stays as it is, to the byte and at any time; any kill included."""

import json
import shutil
from pathlib import Path

import pytest

from kills import Killed, killed_after
from pipeline import build_graphs
from pipeline.build_graphs import append, graphs
from pipeline.dataset_manifest import MANIFEST, canonical_json
from pipeline.dataset_writer import BUILDING
from pipeline.file_records import sha256
from pipeline.graph_plan import DatasetSpec
from pipeline.graph_sources import Selection
from pipeline.graph_store import open_graphs
from pipeline.split_rules import Condition, SplitRule
from pipeline.verify_graphs import verify
from tiny_dataset import (
    NUM_VALUES,
    SMALL_PARTS,
    content,
    in_this_process,
    known_templates,
    make_tiny_dataset,
    write_zoo,
)
from tiny_zoo import tiny_spec


@pytest.fixture(name="undisturbed")
def shared_undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 13 graphs; its zoo lies beside it."""
    return make_tiny_dataset(tmp_path_factory.getbasetemp())


@pytest.fixture(autouse=True)
def without_a_cluster(undisturbed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known_templates(undisturbed, monkeypatch)
    in_this_process(monkeypatch)


@pytest.fixture(name="dataset")
def own_dataset(undisturbed: Path, tmp_path: Path) -> Path:
    """A copy that the test may change."""
    return shutil.copytree(undisturbed, tmp_path / "graphs.zarr")


@pytest.fixture(name="other")
def other_zoo(tmp_path: Path) -> Path:
    """Three runs with two checkpoints each; the last one of run 1 diverged: five graphs."""
    write_zoo(tmp_path / "other", tiny_spec(seed=8, num_runs=3), diverged_runs=[1])
    return tmp_path / "other"


def test_what_is_there_stays_and_what_is_new_comes_behind_it(dataset: Path, other: Path) -> None:
    before, old = content(dataset), open_graphs(dataset)
    append(dataset, other)
    after, new = content(dataset), open_graphs(dataset)
    assert {name: after[name] for name in before if name != MANIFEST} == {
        name: before[name] for name in before if name != MANIFEST
    }
    assert new.table.slice(0, 13).equals(old.table)
    assert len(new) == 13 + 5
    assert new.left_out.num_rows == 2 + 1
    assert not (dataset / BUILDING).exists()
    verify(dataset)


def test_the_values_that_are_appended_are_those_of_a_dataset_made_of_the_zoo_alone(
    dataset: Path, other: Path, tmp_path: Path
) -> None:
    graphs(other, tmp_path / "alone.zarr", SMALL_PARTS)
    append(dataset, other)
    alone, both = open_graphs(tmp_path / "alone.zarr"), open_graphs(dataset)
    assert both.table["graph_id"].to_pylist()[13:] == alone.table["graph_id"].to_pylist()
    for row in range(len(alone)):
        assert both[13 + row].values.tobytes() == alone[row].values.tobytes()


def test_the_splits_go_on_by_the_rules_of_the_dataset(undisturbed: Path, other: Path, tmp_path: Path) -> None:
    spec = DatasetSpec(
        floats_per_part=3 * NUM_VALUES,
        split=SplitRule(salt="mine", train=0.4, val=0.3),
        further_splits={"split_tanh": SplitRule(test=Condition(column="config.activation", among=["tanh"]))},
    )
    graphs(undisturbed.parent / "zoo", tmp_path / "graphs.zarr", spec)
    append(tmp_path / "graphs.zarr", other)
    rows = open_graphs(tmp_path / "graphs.zarr").table.to_pylist()
    assert len(rows) == 18
    for row in rows:
        assert row["split"] == spec.split.of(row["unit"])
        assert (row["split_tanh"] == "test") == (row["config.activation"] == "tanh")
    verify(tmp_path / "graphs.zarr")


def test_a_second_append_of_the_same_says_that_there_is_nothing_to_do(
    dataset: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    append(dataset, other)
    before = content(dataset)
    capsys.readouterr()
    append(dataset, other)
    assert capsys.readouterr().out.startswith("Nothing to do: tiny-")
    assert content(dataset) == before


def test_the_command_that_made_a_dataset_has_nothing_to_do_after_an_append(
    undisturbed: Path, dataset: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    append(dataset, other)
    before = content(dataset)
    graphs(undisturbed.parent / "zoo", dataset, SMALL_PARTS)
    assert "Nothing to do" in capsys.readouterr().out
    assert content(dataset) == before


def test_an_append_killed_at_any_write_and_run_again_gives_the_same_bytes(
    undisturbed: Path, other: Path, tmp_path: Path
) -> None:
    """And until the manifest is replaced, the dataset is read as it was."""
    out = shutil.copytree(undisturbed, tmp_path / "graphs.zarr")
    with killed_after(1000) as writes:
        append(out, other)
    num_writes, whole = len(writes), content(out)
    assert num_writes == 1 + 2 * 3 + 1 + 2 + 1  # what is written, two parts and records, left out, two tables, manifest
    for kill in range(num_writes):
        shutil.rmtree(out)
        shutil.copytree(undisturbed, out)
        with killed_after(kill) as writes:
            append(out, other)
        assert len(writes) == kill + 1
        assert open_graphs(out).files.manifest == open_graphs(undisturbed).files.manifest
        append(out, other)
        assert content(out) == whole, f"killed during write {kill}"


def test_an_append_that_was_killed_is_a_finding_that_says_so(
    dataset: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with killed_after(4):
        append(dataset, other)
    with pytest.raises(ValueError, match="1 finding"):
        verify(dataset)
    assert "something is being added and not finished; finish it with the same append" in capsys.readouterr().out


def test_another_append_waits_until_the_first_is_finished(dataset: Path, other: Path, tmp_path: Path) -> None:
    write_zoo(tmp_path / "third", tiny_spec(seed=9, num_runs=2))
    with killed_after(4):
        append(dataset, other)
    with pytest.raises(ValueError, match=r"tiny-\w{8} is being added and not finished; finish that first"):
        append(dataset, tmp_path / "third")
    append(dataset, other)
    append(dataset, tmp_path / "third")
    assert len(open_graphs(dataset)) == 13 + 5 + 4
    verify(dataset)


def test_the_command_that_made_a_dataset_leaves_an_append_that_was_killed_alone(
    undisturbed: Path, dataset: Path, other: Path
) -> None:
    with killed_after(4):
        append(dataset, other)
    before = content(dataset)
    graphs(undisturbed.parent / "zoo", dataset, SMALL_PARTS)
    assert content(dataset) == before


def test_an_append_killed_before_it_tidied_up_is_tidied_up(
    dataset: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(_: Path) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(build_graphs, "tidy", die)
        with pytest.raises(Killed):
            append(dataset, other)
    assert (dataset / BUILDING).exists()
    append(dataset, other)
    assert not (dataset / BUILDING).exists()
    verify(dataset)


def test_checkpoints_that_were_not_chosen_can_be_appended(undisturbed: Path, tmp_path: Path) -> None:
    zoo, out = undisturbed.parent / "zoo", tmp_path / "graphs.zarr"
    graphs(zoo, out, SMALL_PARTS, Selection(epochs=[2]))
    append(out, zoo, Selection(epochs=[0, 1]))
    ids = open_graphs(out).table["graph_id"].to_pylist()
    assert sorted(ids) == sorted(open_graphs(undisturbed).table["graph_id"].to_pylist())
    verify(out)
    with pytest.raises(ValueError, match="is in the dataset already; append what is not there yet"):
        append(out, zoo, Selection(epochs=[1, 2]))


def test_a_duplicate_of_what_is_there_is_left_out_and_named(undisturbed: Path, dataset: Path, tmp_path: Path) -> None:
    """A zoo of another name whose networks are the same, to the last bit."""
    spec = tiny_spec(checkpoint_epochs=(0, 1, 2), name="again")
    write_zoo(tmp_path / "again", spec, diverged_runs=[3])
    with pytest.raises(ValueError, match="nothing to put into a dataset; 2 diverged, 13 duplicate"):
        append(dataset, tmp_path / "again")
    append(dataset, tmp_path / "again", Selection(duplicates="keep"))
    assert len(open_graphs(dataset)) == 26


def test_a_dataset_whose_options_are_not_said_cannot_be_appended_to(dataset: Path, other: Path) -> None:
    document = json.loads((dataset / MANIFEST).read_bytes())
    del document["digest"], document["options"]["seed"]
    text = canonical_json(document)
    (dataset / MANIFEST).write_text(canonical_json(document | {"digest": sha256(text.encode())}))
    with pytest.raises(
        ValueError, match=r"its options do not say how to go on \(KeyError: 'seed'\); make a new dataset"
    ):
        append(dataset, other)


def test_there_must_be_a_dataset_to_append_to(other: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no parameter-graph dataset here"):
        append(tmp_path / "nowhere.zarr", other)
    assert not (tmp_path / "nowhere.zarr").exists()


@pytest.mark.parametrize("bound", [3.0, 16.0])
def test_a_condition_that_tells_nothing_apart_is_refused_when_a_dataset_is_made(
    bound: float, undisturbed: Path, tmp_path: Path
) -> None:
    """All networks are 16 wide."""
    spec = DatasetSpec(further_splits={"split_width": SplitRule(test=Condition(column="width", above=bound))})
    with pytest.raises(ValueError, match=r"split_width: of 13 graphs, none or all .* by width \(found 16\); choose"):
        graphs(undisturbed.parent / "zoo", tmp_path / "graphs.zarr", spec)
