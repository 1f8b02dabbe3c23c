"""A zoo on disk: what is written is what is read, the bytes follow from the specification, and damage is named."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.architectures import Architecture
from pipeline.images import load_images
from pipeline.loop_trainer import Checkpoint, train_chunk
from pipeline.places import Place, remove_folder
from pipeline.specifications import digest_of
from pipeline.trainers import Trainer
from pipeline.zoo import ModelSpec, ZooSpec, expand
from pipeline.zoo_rows import ROW_SCHEMA
from pipeline.zoo_store import (
    CHUNK_FILES,
    Zoo,
    create_zoo,
    finished_chunks,
    half_accuracies,
    open_zoo,
    read_chunk,
    read_rows,
    sweep_zoo,
    write_chunk,
)
from tiny_zoo import TINY, tiny_spec

NUM_TEST = 13
NUM_VALUES = 7


def made_up(run: ModelSpec, checkpoint: int) -> Checkpoint:
    """A checkpoint without training; the second of run 1 has diverged."""
    status = "diverged" if (run.run_index, checkpoint) == (1, 1) else "ok"
    generator = np.random.default_rng([run.run_index, checkpoint])
    lost = status == "diverged"
    return Checkpoint(
        run=run,
        checkpoint=checkpoint,
        step=checkpoint * run.num_steps,
        status=status,
        values=generator.standard_normal(0 if lost else NUM_VALUES).astype(np.float32),
        train_loss=np.nan if lost else generator.random(),
        train_accuracy=np.nan if lost else generator.random(),
        test_loss=np.nan if lost else generator.random(),
        test_accuracy=np.nan if lost else generator.random(),
        correct=np.zeros(NUM_TEST, bool) if lost else generator.random(NUM_TEST) < 0.5,
    )


def checkpoints_of(spec: ZooSpec, index: int) -> list[Checkpoint]:
    runs = expand(spec)
    return [made_up(runs[run], checkpoint) for run in spec.chunk(index) for checkpoint in (0, 1)]


@pytest.fixture
def zoo(tmp_path: Path) -> Zoo:
    """A zoo with both of its chunks written."""
    zoo = create_zoo(tmp_path / "zoo", TINY)
    for index in (1, 0):
        write_chunk(zoo, index, checkpoints_of(TINY, index))
    return zoo


def tree(path: Place) -> dict[str, bytes]:
    path = Path(str(path))
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_what_is_written_is_what_is_read(zoo: Zoo) -> None:
    assert finished_chunks(zoo) == [0, 1]
    for index in (0, 1):
        written, read = checkpoints_of(TINY, index), read_chunk(zoo, index)
        assert read.rows.schema.equals(ROW_SCHEMA)
        assert read.rows.num_rows == len(written) == len(read.correct)
        bits = np.unpackbits(read.correct, axis=1)
        assert bits.shape == (len(written), 16)
        assert not bits[:, NUM_TEST:].any()
        for checkpoint, row, row_bits in zip(written, read.rows.to_pylist(), bits, strict=True):
            values = read.values[row["offset"] : row["offset"] + row["length"]]
            assert values.tobytes() == checkpoint.values.tobytes()
            assert np.array_equal(row_bits[:NUM_TEST], checkpoint.correct)
            assert row["test_loss"] == pytest.approx(checkpoint.test_loss, rel=0, abs=0, nan_ok=True)
            assert (row["status"], row["step"]) == (checkpoint.status, checkpoint.step)
            assert Architecture.parse(row["architecture"]) == checkpoint.run.architecture


def test_rows_are_ordered_by_run_and_checkpoint_and_carry_the_resolved_configuration(zoo: Zoo) -> None:
    rows = read_chunk(zoo, 0).rows.to_pylist()
    assert [(row["run_index"], row["checkpoint"], row["epoch"]) for row in rows] == [
        (run, checkpoint, epoch) for run in (0, 1, 2) for checkpoint, epoch in ((0, 0), (1, 2))
    ]
    for row, checkpoint in zip(rows, checkpoints_of(TINY, 0), strict=True):
        assert row["run_id"] == row["unit"] == checkpoint.run.run_id
        for name, value in vars(checkpoint.run.config).items():
            assert row[f"config.{name}"] == value


def test_a_diverged_checkpoint_is_a_row_without_values(zoo: Zoo) -> None:
    row = read_chunk(zoo, 0).rows.to_pylist()[3]
    assert (row["status"], row["length"]) == ("diverged", 0)
    assert np.isnan(row["test_accuracy"])


def test_columns_have_the_same_types_where_nothing_acts(tmp_path: Path) -> None:
    """A chunk whose runs all do without momentum still has a column of numbers."""
    zoo = create_zoo(tmp_path / "zoo", TINY)
    adam = [
        replace(checkpoint, run=replace(checkpoint.run, config=replace(checkpoint.run.config, momentum=None)))
        for checkpoint in checkpoints_of(TINY, 0)
    ]
    write_chunk(zoo, 0, adam)
    column = read_chunk(zoo, 0).rows["config.momentum"]
    assert (column.type, column.null_count) == (pa.float64(), 6)


def test_a_chunk_in_which_every_run_diverged_can_be_read(tmp_path: Path) -> None:
    zoo = create_zoo(tmp_path / "zoo", TINY)
    lost = made_up(expand(TINY)[1], 1)
    write_chunk(zoo, 0, [lost, lost])
    read = read_chunk(zoo, 0)
    assert read.values.shape == (0,)
    assert read.rows["length"].to_pylist() == [0, 0]


def test_the_bytes_of_a_zoo_follow_from_its_specification(zoo: Zoo, tmp_path: Path) -> None:
    other = create_zoo(tmp_path / "other", TINY)
    for index in (0, 1):
        write_chunk(other, index, checkpoints_of(TINY, index))
    assert tree(other.path) == tree(zoo.path)


def test_really_trained_chunks_have_the_same_bytes_twice(tmp_path: Path) -> None:
    spec = tiny_spec(num_runs=2)
    images = load_images(spec.images)
    zoos = [create_zoo(tmp_path / name, spec) for name in ("one", "two")]
    for zoo in zoos:
        write_chunk(zoo, 0, train_chunk(expand(spec), images))
    assert tree(zoos[0].path) == tree(zoos[1].path)
    assert read_chunk(zoos[0], 0).values.shape == (4 * 4970,)
    assert read_chunk(zoos[0], 0).correct.shape == (4, 212)  # 1,696 test images, 8 to a byte


def test_a_chunk_that_is_there_is_not_written_again(zoo: Zoo) -> None:
    before = tree(zoo.path)
    write_chunk(zoo, 0, checkpoints_of(TINY, 0)[:2])
    assert tree(zoo.path) == before


def test_a_writer_that_is_stopped_leaves_no_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo = create_zoo(tmp_path / "zoo", TINY)

    def stop(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stop)
        with pytest.raises(KeyboardInterrupt):
            write_chunk(zoo, 0, checkpoints_of(TINY, 0))
    assert finished_chunks(zoo) == []
    write_chunk(zoo, 0, checkpoints_of(TINY, 0))
    assert finished_chunks(zoo) == [0]


def test_leftovers_of_a_killed_writer_are_no_chunks_and_are_swept(zoo: Zoo) -> None:
    before = tree(zoo.path)
    left = zoo.path / "chunks" / ".00000~elsewhere~1~aside"
    left.mkdir()
    (left / "values.npy").write_bytes(b"half")
    assert finished_chunks(zoo) == [0, 1]
    sweep_zoo(zoo)
    assert tree(zoo.path) == before


def test_a_zoo_is_opened_again_by_the_same_specification(zoo: Zoo) -> None:
    assert create_zoo(zoo.path, tiny_spec()) == open_zoo(zoo.path) == zoo


def test_a_zoo_of_another_specification_is_refused_by_what_differs_and_kept(zoo: Zoo) -> None:
    before = tree(zoo.path)
    message = (
        r"holds the zoo of another specification or trainer; it differs in hyperparameters.momentum.uniform "
        r"\(\[0.5, 0.9\] there, \[0.5, 0.8\] asked for\); epochs \(2 there, 3 asked for\). Choose another folder"
    )
    other = tiny_spec(epochs=3, momentum=replace(TINY.hyperparameters.momentum, uniform=(0.5, 0.8)))
    with pytest.raises(ValueError, match=message):
        create_zoo(zoo.path, other)
    assert tree(zoo.path) == before


def test_a_zoo_of_another_trainer_is_not_continued(zoo: Zoo) -> None:
    with pytest.raises(ValueError, match=r"differs in trainer.name \(\"loop\" there, \"stacked\" asked for\)"):
        create_zoo(zoo.path, tiny_spec(), Trainer(name="stacked"))
    document = json.loads((zoo.path / "zoo.json").read_text())
    (zoo.path / "zoo.json").write_text(json.dumps({**document, "trainer": {"name": "fused", "threads": 1}}))
    with pytest.raises(ValueError, match=r"zoo.json: the trainer {'name': 'fused', 'threads': 1} is not known; expect"):
        open_zoo(zoo.path)


@pytest.mark.parametrize("trainer", [Trainer(), Trainer(name="stacked", stack=3)])
def test_a_zoo_knows_its_trainer(tmp_path: Path, trainer: Trainer) -> None:
    create_zoo(tmp_path / "zoo", TINY, trainer)
    assert open_zoo(tmp_path / "zoo").trainer == trainer


def test_a_folder_with_something_else_in_it_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match=r"is not empty and not a zoo \(it holds thesis.tex\); choose another folder"):
        create_zoo(tmp_path, TINY)
    assert tree(tmp_path) == {"thesis.tex": b"precious"}


def test_a_folder_with_only_what_a_killed_creator_left_becomes_the_zoo(tmp_path: Path) -> None:
    (tmp_path / ".zoo.json~elsewhere~1~aside").write_bytes(b"{")
    assert create_zoo(tmp_path, TINY).spec == TINY


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file is a file; a zoo is a folder, so choose another path"):
        create_zoo(tmp_path / "file", TINY)


def test_a_path_without_a_zoo_is_refused(tmp_path: Path) -> None:
    message = r"there is no zoo here \(no zoo.json\); train one with python -m pipeline zoo"
    with pytest.raises(ValueError, match=message):
        open_zoo(tmp_path / "nowhere")


def test_a_zoo_of_another_version_or_format_or_with_an_altered_specification_is_refused(zoo: Zoo) -> None:
    file = zoo.path / "zoo.json"
    document = json.loads(file.read_text())
    for content in ("{", "[]", ""):
        file.write_text(content)
        with pytest.raises(ValueError, match="zoo.json is no JSON object; restore"):
            open_zoo(zoo.path)
    file.write_text(json.dumps(document | {"version": 2}))
    with pytest.raises(ValueError, match="version is 2, this program reads version 1; train the zoo again into a new"):
        open_zoo(zoo.path)
    file.write_text(json.dumps(document | {"format": "metazoo-graphs"}))
    with pytest.raises(ValueError, match="zoo.json: format is 'metazoo-graphs', expected 'metazoo-zoo'; restore"):
        open_zoo(zoo.path)
    file.write_text(json.dumps(document | {"spec": document["spec"] | {"epochs": 5}}))
    with pytest.raises(ValueError, match="zoo.json: the specification was altered, its digest no longer matches"):
        open_zoo(zoo.path)
    file.write_text(json.dumps(document)[:-100])
    with pytest.raises(ValueError, match="zoo.json is no JSON object; restore the file"):
        open_zoo(zoo.path)


@pytest.mark.parametrize("name", CHUNK_FILES)
def test_a_damaged_file_is_named(zoo: Zoo, name: str) -> None:
    read_chunk(zoo, 0)  # digests are remembered, but not beyond a change
    file = zoo.chunk_path(0) / name
    whole = file.read_bytes()
    advice = f"; delete {file.parent} and train that chunk again with python -m pipeline zoo"
    file.write_bytes(whole[:-5])
    with pytest.raises(ValueError, match=f"{name} has {len(whole) - 5} bytes, {len(whole)} were written{advice}"):
        read_chunk(zoo, 0)
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match=f"{name} was altered: its SHA-256 is not the one in done.json{advice}"):
        read_chunk(zoo, 0)
    file.unlink()
    with pytest.raises(ValueError, match=f"{name} is missing{advice}"):
        read_chunk(zoo, 0)


def test_the_record_of_another_chunk_or_none_is_refused(zoo: Zoo) -> None:
    done = zoo.chunk_path(0) / "done.json"
    done.write_bytes((zoo.chunk_path(1) / "done.json").read_bytes())
    with pytest.raises(ValueError, match="done.json is not that of chunk 0 of this zoo; delete"):
        read_chunk(zoo, 0)
    done.write_text("{")
    with pytest.raises(ValueError, match="done.json is not that of chunk 0 of this zoo; delete"):
        read_chunk(zoo, 0)
    done.unlink()
    with pytest.raises(ValueError, match="done.json is missing; delete"):
        read_chunk(zoo, 0)


def test_a_chunk_that_is_not_trained_is_refused(tmp_path: Path) -> None:
    zoo = create_zoo(tmp_path / "zoo", TINY)
    assert finished_chunks(zoo) == []
    with pytest.raises(ValueError, match="00001: this chunk is not trained yet; train what is missing with python -m"):
        read_chunk(zoo, 1)


def test_a_table_that_cannot_be_read_is_named(zoo: Zoo) -> None:
    (zoo.chunk_path(0) / "rows.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="rows.parquet cannot be read .*; delete"):
        read_rows(zoo, 0, ["status"])


def test_the_two_half_accuracies_are_those_of_the_even_and_the_odd_images() -> None:
    """Eleven images in two bytes, the last five bits unused. Row 0: even 0 2 8 of six right, odd 1 of five."""
    correct = np.zeros((2, 11), dtype=bool)
    correct[0, [0, 1, 2, 8]] = True
    correct[1] = True
    half_a, half_b = half_accuracies(np.packbits(correct, axis=1), num_tested=11)
    assert half_a.tolist() == [3 / 6, 1]
    assert half_b.tolist() == [1 / 5, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": ["x"]}, r"kind is \['x'\], expected classifiers or implicit"),
        ({"trainer": "loop"}, "the trainer {'name': 'loop'} is not known"),
        ({"trainer": None}, "the trainer {'name': None} is not known"),
        ({"num_chunks": 5}, "num_chunks is 5, and the specification makes 2"),
        ({"spec": TINY.document() | {"num_runs": "x"}}, "num_runs"),
        ({"spec": []}, "altered|spec"),
    ],
)
def test_a_description_that_was_altered_is_one_line(zoo: Zoo, change: dict[str, Any], message: str) -> None:
    file = zoo.path / "zoo.json"
    document = json.loads(file.read_text()) | change
    if isinstance(document["spec"], dict):
        document["digest"] = digest_of(document["spec"])
    file.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=message):
        open_zoo(zoo.path)


def test_only_folders_are_chunks(zoo: Zoo) -> None:
    remove_folder(zoo.chunk_path(1))
    zoo.chunk_path(1).touch()
    assert finished_chunks(zoo) == [0]
