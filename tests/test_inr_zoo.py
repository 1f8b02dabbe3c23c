"""Zoos of implicit networks: what each run is, what is written of it, and that nothing depends on its neighbours."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.build_graphs import graphs
from pipeline.distributions import Choice, Distribution
from pipeline.graph_store import open_graphs
from pipeline.images import Images, ImageSpec, image_names, load_images, places
from pipeline.inr_plots import rendered
from pipeline.inr_zoo import InrSpec, resolve_inr
from pipeline.inspect_graphs import inspect
from pipeline.siren import Siren, pixel_coordinates
from pipeline.siren_trainer import fit_runs, started
from pipeline.specifications import parse_as
from pipeline.train_inrs import inr
from pipeline.train_zoo import status
from pipeline.trainers import SirenTrainer, Trainer
from pipeline.zoo_job import train_and_write
from pipeline.zoo_rows import INR_SCHEMA
from pipeline.zoo_store import Zoo, create_zoo, open_zoo, read_chunk
from tiny_dataset import write_zoo
from tiny_zoo import TINY

TINY_INR = InrSpec(
    name="tiny-inr",
    images=ImageSpec(name="digits", size=8, num_train=5, num_test=2),
    width=Choice(choice=(8, 12)),
    depth=Choice(choice=(2,)),
    omega=Choice(choice=(10.0,)),
    initialisation=Choice(grid=("shared", "independent")),
    learning_rate=Distribution(log_uniform=(5e-3, 2e-2)),
    psnr=Distribution(uniform=(18.0, 22.0)),
    most_steps=300,
    seed=3,
    fits_per_image=4,
    runs_per_chunk=10,
)
"""Seven images, four runs each: two that share their starts with other images, two that do not; three chunks."""


@pytest.fixture(scope="module")
def images() -> Images:
    return load_images(TINY_INR.images)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory, images: Images) -> Zoo:
    store = create_zoo(tmp_path_factory.mktemp("inr") / "zoo", TINY_INR, SirenTrainer().settled)
    for index in range(TINY_INR.num_chunks):
        train_and_write(index, store, images)
    return store


def rows_of(zoo: Zoo) -> list[dict[str, Any]]:
    return [row for index in range(zoo.spec.num_chunks) for row in read_chunk(zoo, index).rows.to_pylist()]


def test_runs_go_through_all_fits_of_an_image_before_the_next() -> None:
    runs = [resolve_inr(TINY_INR, index) for index in range(TINY_INR.num_runs)]
    assert [(run.image, run.fit) for run in runs[:5]] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]
    assert [run.config.initialisation for run in runs[:3]] == ["shared", "independent", "shared"]
    assert len({run.run_id for run in runs}) == len(runs) == 28


def test_shared_starts_are_the_same_for_every_image_and_others_for_no_two_runs() -> None:
    spec = replace(TINY_INR, width=Choice(choice=(8,)))
    starts = {
        (run.config.initialisation, run.fit, run.image): started(run).layers[0].weight.detach().numpy().tobytes()  # pyright: ignore
        for run in (resolve_inr(spec, index) for index in range(spec.num_runs))
    }
    assert len({text for (kind, _, _), text in starts.items() if kind == "independent"}) == 14
    for fit in (0, 2):
        assert len({text for (_, number, _), text in starts.items() if number == fit}) == 1
    assert len({text for (kind, _, _), text in starts.items() if kind == "shared"}) == 2


def test_an_image_has_one_name_whatever_else_is_taken() -> None:
    few = ImageSpec(name="digits", num_train=3, num_test=2)
    more = ImageSpec(name="digits", num_train=4, num_test=1)
    assert image_names(few) == image_names(more)
    train, test = places(ImageSpec(name="cifar10_grey", num_train=3, num_test=2))
    assert image_names(ImageSpec(name="cifar10", num_train=3, num_test=2)) == [
        *(f"cifar10-train-{place:05d}" for place in train),
        *(f"cifar10-test-{place:05d}" for place in test),
    ]


def test_every_row_is_a_network_that_is_its_image(zoo: Zoo, images: Images) -> None:
    """Each network, from its values alone, is rendered and compared with its image."""
    for index in range(TINY_INR.num_chunks):
        chunk = read_chunk(zoo, index)
        assert chunk.rows.schema.equals(INR_SCHEMA)
        assert chunk.correct.shape == (chunk.rows.num_rows, 0)
        for row in chunk.rows.to_pylist():
            run = resolve_inr(TINY_INR, row["run_index"])
            network = run.architecture.build()
            assert isinstance(network, Siren)
            values = torch.tensor(chunk.values[row["offset"] : row["offset"] + row["length"]])
            torch.nn.utils.vector_to_parameters(values, network.parameters())
            of_train = row["image"] < 5
            image = images.train_images[row["image"]] if of_train else images.test_images[row["image"] - 5]
            label = images.train_labels[row["image"]] if of_train else images.test_labels[row["image"] - 5]
            with torch.no_grad():
                error = (network(pixel_coordinates(8, 8)).numpy().reshape(8, 8) - image[0]).astype(float)
            assert row["image_class"] == label
            assert row["psnr"] == pytest.approx(10 * np.log10(4 / (error**2).mean()), abs=1e-3)
            assert row["train_loss"] == pytest.approx((error**2).mean(), rel=1e-3)
            assert row["psnr"] >= row["config.psnr"] or row["step"] == 300
            assert np.isnan(row["test_accuracy"])
            assert row["unit"] == image_names(TINY_INR.images)[row["image"]]
            assert row["config.learning_rate"] == run.config.learning_rate


def test_runs_stop_at_their_own_psnr(zoo: Zoo) -> None:
    rows = rows_of(zoo)
    reached = [row for row in rows if row["psnr"] >= row["config.psnr"]]
    assert len(reached) > 20
    assert len({row["step"] for row in reached}) > 10
    assert all(row["psnr"] < row["config.psnr"] + 3 for row in reached)


def test_stacks_of_any_size_give_the_same_to_rounding(images: Images) -> None:
    runs = [resolve_inr(TINY_INR, index) for index in range(9)]
    one, many = (fit_runs(runs, images, size) for size in (1, 256))
    for alone, among in zip(one, many, strict=True):
        assert alone.run is among.run
        assert alone.step == among.step
        assert np.allclose(alone.values, among.values, atol=1e-4)


def test_the_bytes_of_a_zoo_follow_from_its_specification(zoo: Zoo, images: Images, tmp_path: Path) -> None:
    again = create_zoo(tmp_path / "zoo", parse_as(InrSpec, TINY_INR.document()), SirenTrainer().settled)
    train_and_write(1, again, images)
    for name in ("values.npy", "rows.parquet", "correct.npy", "done.json"):
        assert (again.chunk_path(1) / name).read_bytes() == (zoo.chunk_path(1) / name).read_bytes()


def test_one_that_diverges_is_a_row_without_values(images: Images, tmp_path: Path) -> None:
    rates = Distribution(each=(1e38, *[1e-2] * 27))
    spec = replace(TINY_INR, learning_rate=rates, width=Choice(choice=(8,)))
    store = create_zoo(tmp_path / "zoo", spec, SirenTrainer().settled)
    train_and_write(0, store, images)
    first, second, *_ = read_chunk(store, 0).rows.to_pylist()
    assert (first["status"], first["length"]) == ("diverged", 0)
    assert np.isnan(first["psnr"])
    assert np.isnan(first["train_loss"])
    assert second["status"] == "ok"


def test_the_zoo_says_what_it_is(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    assert open_zoo(zoo.path) == zoo
    assert json.loads((zoo.path / "zoo.json").read_text())["kind"] == "implicit"
    status(zoo.path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:4] == ["  runs            28 of 28, 4 for each image", "  diverged        0 runs"]
    rows = rows_of(zoo)
    reached = sum(row["psnr"] >= row["config.psnr"] for row in rows)
    assert lines[4].startswith("  PSNR            median ")
    assert lines[5].startswith(f"  reached it      {reached} of 28 runs; steps median ")


def test_a_zoo_of_another_kind_is_refused(zoo: Zoo, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not that of another|another specification or trainer"):
        create_zoo(zoo.path, TINY_INR, SirenTrainer(stack=2))
    document = json.loads((zoo.path / "zoo.json").read_text())
    (tmp_path / "zoo.json").write_text(json.dumps(document | {"kind": "explicit"}))
    with pytest.raises(ValueError, match="kind is 'explicit', expected classifiers or implicit"):
        open_zoo(tmp_path)
    (tmp_path / "zoo.json").write_text(json.dumps(document | {"trainer": Trainer().document}))
    with pytest.raises(ValueError, match="the trainer .*loop.* is not known"):
        open_zoo(tmp_path)


def test_a_zoo_of_implicit_networks_becomes_a_dataset(zoo: Zoo, tmp_path: Path) -> None:
    graphs(zoo.path, tmp_path / "graphs.zarr")
    dataset = open_graphs(tmp_path / "graphs.zarr")
    assert len(dataset) == 28
    for name in ("image", "image_class", "fit", "psnr"):
        assert dict(zip(dataset.table["run_id"].to_pylist(), dataset.table[name].to_pylist(), strict=True)) == {
            row["run_id"]: row[name] for row in rows_of(zoo)
        }
    splits = dict(zip(dataset.table["unit"].to_pylist(), dataset.table["split"].to_pylist(), strict=True))
    assert len(splits) == 7
    assert all(
        splits[unit] == split
        for unit, split in zip(dataset.table["unit"].to_pylist(), dataset.table["split"].to_pylist(), strict=True)
    )


def test_implicit_networks_and_others_can_be_in_one_dataset(zoo: Zoo, tmp_path: Path) -> None:
    write_zoo(tmp_path / "zoo", TINY)
    graphs([zoo.path, tmp_path / "zoo"], tmp_path / "graphs.zarr")
    table = open_graphs(tmp_path / "graphs.zarr").table
    assert table.num_rows == 28 + 10
    assert table["psnr"].null_count == 10
    assert table["config.momentum"].null_count >= 28
    assert np.isnan(table["test_accuracy"].to_numpy()).sum() == 28


def test_a_zoo_of_implicit_networks_is_drawn(zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect(zoo.path, tmp_path / "zoo.png")
    assert capsys.readouterr().out.splitlines()[-1] == f"  picture: {tmp_path / 'zoo.png'}"
    assert len(np.unique(np.asarray(Image.open(tmp_path / "zoo.png")))) > 100
    for picture, row in zip(rendered(zoo), rows_of(zoo)[::4], strict=True):
        assert row["fit"] == 0
        assert picture.shape == (8, 8, 1)
    empty = create_zoo(tmp_path / "empty", TINY_INR, SirenTrainer().settled)
    with pytest.raises(ValueError, match="empty: no network is fitted yet"):
        inspect(empty.path, tmp_path / "empty.png")


def test_a_dry_run_fits_a_few_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inr(TINY_INR, tmp_path / "zoo", dry_run=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == [
        "Zoo 'tiny-inr', a dry run: nothing is written",
        "  images            digits, 1x8x8, 7 in all",
        "  runs              28 in 3 chunks of 10",
        "                    4 for each image, at most 300 steps",
        "  networks          siren, 105 to 205 values",
    ]
    assert all(len(line) <= 80 for line in lines)
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"most_steps": 0}, "most_steps is 0; expected at least 1"),
        ({"fits_per_image": 0}, "fits_per_image is 0; expected at least 1"),
        ({"seed": -1}, "seed is -1; expected 0 to"),
        ({"omega": Choice(choice=(0.0,))}, r"omega is one of \[0.0\]; expected positive numbers"),
        ({"omega": Choice(choice=(float("nan"),))}, r"omega is one of \[nan\]; expected positive numbers"),
        ({"omega": Choice(choice=(float("inf"),))}, r"omega is one of \[inf\]; expected positive numbers"),
        ({"name": ""}, "name is empty"),
        ({"width": Choice(choice=())}, "width: choice is empty"),
        ({"psnr": Distribution(choice=(0.0,))}, "psnr: choice is .0.0.; expected numbers above 0"),
        ({"learning_rate": Distribution(each=(1e-3,))}, "learning_rate: each has 1 values; expected 28"),
    ],
)
def test_impossible_specifications_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY_INR, **changes)
