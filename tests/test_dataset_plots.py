"""The picture of a dataset: what it shows is what the table says, and nothing that is missing breaks it."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipeline.dataset_plots import draw, in_short, plot_dataset, short, size_ticks
from pipeline.edge_values import places_by_kind, spread, values_by_kind
from pipeline.graph_groups import FAINT, MARKS, OTHERS, SIDES, family_names, largest, side_colours
from pipeline.graph_kinds import EdgeKind
from pipeline.graph_store import GraphDataset, open_graphs
from tiny_dataset import NUM_VALUES, make_tiny_dataset

NUM_GRAPHS = 13


@pytest.fixture(name="tiny")
def shared_tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> GraphDataset:
    return open_graphs(make_tiny_dataset(tmp_path_factory.getbasetemp()))


def altered(dataset: GraphDataset, **columns: Any) -> GraphDataset:
    """The dataset with other columns, or more, in its table."""
    dataset, table = copy.copy(dataset), dataset.table
    for name, entries in columns.items():
        column = entries if isinstance(entries, pa.Array) else pa.array(entries)
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, column)
        else:
            table = table.append_column(name, column)
    dataset.table = table
    return dataset


def words(panel: Any) -> list[str]:
    """All text that is drawn in a panel."""
    labels = [*panel.texts, *panel.get_yticklabels(), *(panel.get_legend().texts if panel.get_legend() else [])]
    return [label.get_text() for label in labels]


def lengths(panel: Any) -> list[float]:
    """Of all bars that are longer than nothing."""
    return [bar.get_width() for bar in panel.patches if bar.get_width() > 0]


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_dataset_is_drawn_whole_or_not_at_all(tiny: GraphDataset, tmp_path: Path, suffix: str) -> None:
    picture = tmp_path / "pictures" / f"graphs{suffix}"
    plot_dataset(tiny, picture)
    assert [path.name for path in picture.parent.iterdir()] == [picture.name]
    if suffix == ".png":
        assert len(np.unique(np.asarray(Image.open(picture)))) > 100
        again = tmp_path / "again.png"
        plot_dataset(tiny, again)
        assert again.read_bytes() == picture.read_bytes()


def test_what_is_no_picture_is_refused(tiny: GraphDataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="graphs.gif: a picture ends in .png, .svg, .pdf"):
        plot_dataset(tiny, tmp_path / "graphs.gif")


def test_bars_of_families_add_up(tiny: GraphDataset) -> None:
    _, families, _, _ = draw(tiny).axes
    assert lengths(families) == [4, 9]
    assert words(families) == ["small_cnn", "train", "test"]
    names = ["a"] * 8 + ["b"] * 5
    held_out = [*["train"] * 3, *["elsewhere"] * 9, None]
    _, families, _, _ = draw(altered(tiny, family=names, split_by_depth=held_out)).axes
    assert sum(lengths(families)) == NUM_GRAPHS + NUM_GRAPHS - 1
    assert set(words(families)) == {"a", "b", " split", " split_by_depth", "train", "test", "elsewhere"}


def test_labels_are_shares_of_each_side(tiny: GraphDataset) -> None:
    labels, _, _, _ = draw(tiny).axes
    assert words(labels)[-2:] == ["train 4", "test 9"]
    filled = [patch for patch in labels.patches if hasattr(patch, "get_height")]
    assert sum(bar.get_height() for bar in filled) == pytest.approx(100)


def test_sizes_are_drawn_against_the_label_that_is_known(tiny: GraphDataset) -> None:
    psnr = [*np.linspace(20.0, 40.0, NUM_GRAPHS - 2), np.nan, np.inf]
    unknown = [np.nan] * NUM_GRAPHS
    labels, _, sizes, _ = draw(altered(tiny, psnr=psnr, test_accuracy=unknown)).axes
    assert labels.get_xlabel() == sizes.get_ylabel() == "PSNR in dB"
    [points] = sizes.collections
    np.testing.assert_allclose(points.get_offsets()[:, 1], psnr[:-2])
    assert (np.abs(np.log(points.get_offsets()[:, 0] / NUM_VALUES)) < 0.2).all()


NOTHING = [np.nan] * NUM_GRAPHS


@pytest.mark.parametrize(
    "columns",
    [
        {"test_accuracy": NOTHING},
        {"test_accuracy": [0.5, *NOTHING[1:]]},
        {"test_accuracy": pa.array([None] * 12 + [0.25], pa.float64())},
        {"test_accuracy": NOTHING, "psnr": [30.0] * NUM_GRAPHS},
        {"split": ["somewhere"] * NUM_GRAPHS},
        {"split": [f"fold {index}" for index in range(NUM_GRAPHS)]},
        {f"split_{index}": ["train"] * NUM_GRAPHS for index in range(20)},
        {"family": [f"${index}^{{$_{'x' * index}" for index in range(NUM_GRAPHS)]},
        {"family": ["_hidden", *["\n"] * 12], "split": ["_a", *["$_{"] * 12]},
        {"architecture": ["no JSON"] * NUM_GRAPHS},
        {"length": [10**index for index in range(NUM_GRAPHS)]},
        {"length": [1] * NUM_GRAPHS},
    ],
    ids=lambda columns: "-".join(columns)[:40],
)
def test_nothing_that_is_missing_or_odd_breaks_it(tiny: GraphDataset, tmp_path: Path, columns: dict[str, Any]) -> None:
    plot_dataset(altered(tiny, **columns), tmp_path / "graphs.png")
    assert (tmp_path / "graphs.png").stat().st_size > 10_000


def test_no_label_is_said(tiny: GraphDataset) -> None:
    labels, _, sizes, _ = draw(altered(tiny, test_accuracy=NOTHING)).axes
    assert words(labels)[0] == words(sizes)[0] == "no label is known"


def test_one_graph_is_drawn(tiny: GraphDataset, tmp_path: Path) -> None:
    one = altered(tiny, only=["yes", *["no"] * 12]).split("train")
    [first, *rest] = one.table["graph_id"].to_pylist()
    dataset = altered(one, unit=[first, *["other"] * len(rest)]).split(first, "unit")
    assert len(dataset) == 1
    plot_dataset(dataset, tmp_path / "graphs.png")
    assert (tmp_path / "graphs.png").exists()


def test_thousands_of_families_leave_the_largest_and_others() -> None:
    names = [f"f{index}" for index in range(5000)] + ["big"] * 3 + ["bigger"] * 4
    assert largest(names, 4) == ["bigger", "big", "f0", OTHERS]
    assert largest(["b", "a"], 2) == ["a", "b"]


def test_families_are_read_once_for_each_architecture() -> None:
    table = pa.table({"architecture": ['{"family":"vit"}', "?", "[]", '{"family":"vit"}']})
    assert family_names(table) == ["vit", "unknown", "unknown", "vit"]
    dictionary = table.append_column("family", table["architecture"].dictionary_encode())
    assert family_names(dictionary) == table["architecture"].to_pylist()


def test_sides_have_the_same_colours_everywhere() -> None:
    colours = side_colours(["val", "z", "train", "y", "x", "w", "v"])
    assert list(colours) == ["train", "val", "v", "w", "x", "y", "z"]
    assert colours["val"] == SIDES["val"]
    assert colours["y"] == colours["z"] == FAINT
    assert len({colour for colour, _ in MARKS}) == len(MARKS)


@pytest.mark.parametrize(
    ("sizes", "ticks"),
    [
        ([4970.0], [4970]),
        ([4970.0, 4971.0, 9000.0], [4970, 9000]),
        ([float(size) for size in range(100, 3000, 100)], [100, 300, 1000, 3000]),
        ([10.0**power for power in range(13)], [1, 10**4, 10**8, 10**12]),
    ],
)
def test_an_axis_of_sizes_has_a_few_words(sizes: list[float], ticks: list[int]) -> None:
    assert size_ticks(np.array(sizes)) == ticks


def test_words_are_short() -> None:
    assert [in_short(number) for number in (7, 4970, 20_000, 1_500_000)] == ["7", "4,970", "20k", "1.5M"]
    assert short("a_family_of_a_very_long_name") == "a_family_of_a_v…"
    assert short("$x$") == r"\$x\$"
    assert short("_x") == " _x"


def test_values_are_those_of_the_tensors(tiny: GraphDataset) -> None:
    found = values_by_kind(tiny)
    assert list(found) == [EdgeKind.LINEAR_WEIGHT, EdgeKind.LINEAR_BIAS, EdgeKind.CONV_WEIGHT, EdgeKind.CONV_BIAS]
    weights = np.concatenate([graph.values[4800:4960] for graph in tiny])
    assert np.array_equal(np.sort(found[EdgeKind.LINEAR_WEIGHT]), np.sort(weights))
    assert len(found[EdgeKind.CONV_BIAS]) == 3 * 16 * NUM_GRAPHS


def test_the_sample_is_spread_and_expands_no_template(tiny: GraphDataset) -> None:
    assert spread(5, 200).tolist() == [0, 1, 2, 3, 4]
    assert spread(1, 200).tolist() == [0]
    assert spread(1001, 11).tolist() == list(range(0, 1001, 100))
    template = open_graphs(tiny.files.root)[0].template
    places = places_by_kind(template)
    assert sum(map(len, places.values())) == NUM_VALUES - 4752 + 4096  # so many weights of convolutions
    assert not any("value_index" in vars(block) for block in template.blocks)
