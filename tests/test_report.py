"""The report: from tables alone, one page that loads nothing, every number on it; figures that show what they say."""

import csv
import re
import shutil
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from analysis.__main__ import read_command
from analysis.compare import cka
from analysis.figures import heat_map, scatter
from analysis.names import by_kind, counted, file_name, layer_title, readable, words
from analysis.page import bullets, figure, page, table, warning
from analysis.report import report
from analysis.scores import number
from analysis.sections import setting, span
from pipeline.command_line import run_command
from pipeline.graph_store import open_graphs
from stored_networks import layers, samples, write_network
from test_compare import FIVE_BLOCKS, in_this_process
from tiny_dataset import content, make_tiny_dataset
from training.predictions import Prediction, write_predictions

WIDTHS = {"input": 7, "layer0.nodes": 5, "layer0.edges": 3, "output": 1}


@pytest.fixture(name="tables")
def shared_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset without its values, predictions of its held-out graphs by three methods, the CKA of two networks."""
    folder = tmp_path_factory.getbasetemp() / "tables"
    if folder.exists():
        return folder
    shutil.copytree(make_tiny_dataset(tmp_path_factory.getbasetemp()), folder / "graphs.zarr")
    rows = open_graphs(folder / "graphs.zarr").table
    for values in (folder / "graphs.zarr" / "values").glob("0*"):
        shutil.rmtree(values)
    held_out = [row for row, split in enumerate(rows["split"].to_pylist()) if split != "train"]
    rng = np.random.default_rng(0)
    for name, method, noise in (
        ("gmn-seed-0/predictions", "gmn", 0.01),
        ("<i>gmn & seed-1/predictions", "gmn", 0.02),
        ("weight_statistics", "weight_statistics", 0.03),
    ):
        target = rows["test_accuracy"].to_numpy()
        found = [
            Prediction(row=row, target=target[row], prediction=target[row] + noise * rng.normal()) for row in held_out
        ]
        write_predictions(folder / "predictions" / f"{name}.parquet", rows, "test_accuracy", method, found)
    features = layers(2, WIDTHS, n=43)
    features["layer0.nodes"][:] = 1
    for name in ("gmn-seed-0", "<i>gmn & seed-1"):
        write_network(
            folder / "networks" / name, layers(1, WIDTHS, n=43) if "0" in name else features, samples(states=1)
        )
    with pytest.MonkeyPatch.context() as monkeypatch:
        in_this_process(monkeypatch)
        cka(folder / "networks", folder / "cka.parquet", FIVE_BLOCKS)
    return folder


@pytest.fixture(name="written")
def shared_written(tables: Path) -> Path:
    out = tables.parent / "report"
    if not out.exists():
        report(tables / "cka.parquet", tables / "predictions", tables / "graphs.zarr", out)
    return out


class Text(HTMLParser):
    """Collects the tags, attributes and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(name="parsed")
def shared_parsed(written: Path) -> Text:
    parsed = Text()
    parsed.feed((written / "report.html").read_text())
    return parsed


def test_every_number_of_the_scores_is_on_the_page(written: Path, parsed: Text) -> None:
    text = " ".join(parsed.text)
    with (written / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    for row in rows:
        assert row["method"] in text
        for name, value in row.items():
            if name.startswith(("r_squared", "kendall_tau")):
                assert number(float(value)) in text, name
    assert f"{rows[0]['n_graphs']} graphs of {rows[0]['n_runs']} held-out runs" in text


def test_the_page_loads_nothing(written: Path, parsed: Text) -> None:
    html = (written / "report.html").read_text()
    assert "//" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", html)
    assert "url(" not in html
    assert "@import" not in html
    assert not {"script", "link", "iframe", "object"} & set(parsed.tags)
    sources = [value or "" for name, value in parsed.attributes if name in ("src", "href")]
    assert len(sources) == 3 + 3, "a heat map per pair, a scatter per method"
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert ("content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in parsed.attributes


def test_names_are_taken_literally(written: Path, parsed: Text) -> None:
    assert "i" not in parsed.tags
    assert any("<i>gmn & seed 1" in text for text in parsed.text)
    assert all(re.fullmatch(r"[A-Za-z0-9.-]+\.png", path.name) for path in (written / "figures").iterdir())


def test_the_page_says_what_was_compared_and_what_may_not_be_concluded(tables: Path, parsed: Text) -> None:
    text = " ".join(parsed.text)
    dataset = open_graphs(tables / "graphs.zarr")
    assert f"{len(dataset):,} graphs" in text
    assert "2 checkpoints of runs that diverged are left out" in text
    assert dataset.files.manifest.digest in text
    assert "And what may not:" in text
    assert "Between unrelated layers, debiased values would have a standard deviation of 0.033 about 0" in text
    assert "Hatched cells have no value (constant layer)" in text
    assert "reading of layer0.edges" in text
    assert "All 48 cells" in text


def test_only_a_zoo_of_digits_is_called_a_demonstration(tables: Path, tmp_path: Path, parsed: Text) -> None:
    assert "too easy to support any claim" not in " ".join(parsed.text), "the zoo is called tiny"


def test_several_states_of_a_run_leave_no_null(tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_network(tmp_path / "networks" / "a", layers(1, WIDTHS))
    in_this_process(monkeypatch)
    cka(tmp_path / "networks", tmp_path / "cka.parquet", FIVE_BLOCKS)
    report(tmp_path / "cka.parquet", tables / "predictions", tables / "graphs.zarr", tmp_path / "report")
    html = (tmp_path / "report" / "report.html").read_text()
    assert "The 86 graphs are of 43 runs. States of one run resemble each other" in html
    assert "Between unrelated layers" not in html


def test_the_same_tables_give_the_same_files_and_the_terminal_the_scores(
    tables: Path,
    written: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    report(tables / "cka.parquet", [tables / "predictions"], tables / "graphs.zarr", Path("out"))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("gmn seed 0 ") for line in lines)
    assert any(line.startswith("split-half ceiling ") and "≥" in line for line in lines)
    assert "wrote out/report.html" in lines[-3]
    assert content(tmp_path / "out") == content(written)


def test_counts_agree_with_their_nouns() -> None:
    assert [counted(number, "heat map") for number in (0, 1, 1440)] == ["0 heat maps", "1 heat map", "1,440 heat maps"]


def pixels(png: bytes) -> np.ndarray:
    """Height, width, red-green-blue from 0 to 1."""
    from matplotlib.image import imread

    return imread(BytesIO(png), format="png")[..., :3]


def test_the_first_row_of_a_heat_map_is_at_the_bottom_and_orange_is_negative() -> None:
    """Values (1, -1/2) in the first row, and (0, undefined) above it; places in the picture count from the top left."""
    image = pixels(heat_map(np.array([[1.0, -0.5], [0.0, np.nan]]), ["a", "b"], ["c", "d"], "A", "B"))
    image = image[:, : int(0.75 * image.shape[1])]  # without the colour bar
    is_one = np.abs(image - np.array([8, 48, 107]) / 255).max(axis=2) < 0.01
    is_negative = (image[..., 0] > image[..., 1] + 0.2) & (image[..., 1] > image[..., 2] + 0.2)
    is_undefined = np.abs(image - np.array([236, 238, 241]) / 255).max(axis=2) < 0.01
    one, negative, undefined = (np.median(np.argwhere(mask), axis=0) for mask in (is_one, is_negative, is_undefined))
    cell = np.sqrt(is_one.sum())
    assert negative - one == pytest.approx([0, cell], abs=cell / 4), "to the right of it"
    assert undefined - negative == pytest.approx([-cell, 0], abs=cell / 4), "above it"


def test_many_layers_still_make_a_picture() -> None:
    names = [f"layer{number}" for number in range(47)]
    assert pixels(heat_map(np.full((47, 47), 0.5), names, names, "A", "B")).shape[1] < 3000


def test_a_scatter_is_a_picture_of_its_points() -> None:
    target = np.linspace(0, 1, 7)
    first, second = (
        scatter(target, prediction, np.arange(7) % 2, (0.0, 1.0), "A", "accuracy")
        for prediction in (target, 1 - target)
    )
    assert first != second
    assert first == scatter(target, target, np.arange(7) % 2, (0.0, 1.0), "A", "accuracy")
    assert len(pixels(first)) > 400


def test_markup_in_text_is_escaped_wherever_text_goes() -> None:
    evil = "<script>alert('x')</script>&"
    parts = [warning(evil), bullets([evil]), table([evil], [[evil]], evil, "l"), figure(EMPTY_PNG, evil, evil)]
    html = page(evil, evil, parts, evil)
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 4 + 1 + 1 + 3 + 2


EMPTY_PNG = heat_map(np.array([[1.0]]), ["a"], ["b"], "A", "B")


def test_names_for_readers() -> None:
    assert readable("gmn-seed_0") == "gmn seed 0"
    assert layer_title("layer12.nodes") == "layer 12 nodes"
    assert file_name("<i>a & b</i>") == "i-a-b-i"
    assert words([]) == ""
    assert words([1]) == "1"
    assert words([1, 4, 16]) == "1, 4 and 16"


def test_layers_of_one_kind_stand_together_in_their_order() -> None:
    names = ["input", "layer0.nodes", "layer0.edges", "layer1.nodes", "layer1.edges", "output"]
    assert [names[place] for place in by_kind(names)] == [
        *("input", "layer0.nodes", "layer1.nodes", "layer0.edges", "layer1.edges", "output")
    ]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([3, 3, 3], "the same"),
        ([None, None], "the same"),
        ([None, 0.9], "0.9"),
        ([0.1, 1.0, 0.25], "0.1, 0.25, 1"),
        ([number / 7 for number in range(40)], "0 to 5.571"),
        ([f"a long word, number {number}" for number in range(11)], "11 different"),
    ],
)
def test_settings_of_all_runs_in_few_words(values: list, text: str) -> None:
    assert span(values) == text


def test_a_setting_that_does_not_act_is_a_dash() -> None:
    assert [setting(value) for value in (None, 0.123456, "adam", 3)] == ["–", "0.1235", "adam", "3"]


def test_missing_tables_are_one_line_and_exit_code_1(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = ["--predictions", f"{tables / 'predictions'}", "--graphs", f"{tables / 'graphs.zarr'}", "--out", "out"]
    with pytest.raises(SystemExit) as stop:
        run_command("analysis", read_command(["report", "--cka", "missing.parquet", *paths]))
    assert stop.value.code == 1
    assert capsys.readouterr().err == (
        "python -m analysis: missing.parquet: no table of CKA values here; make it with python -m analysis cka\n"
    )
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["represent", "--checkpoint", "a", "--graphs", "b"], "out"),
        (["cka", "--representations", "a", "--out", "b", "--comparison.most_blocks", "3"], "most_blocks is 3"),
        (["report", "--ckaa", "a"], "ckaa"),
        (["reprot"], "no command 'reprot'; choose from represent, cka, report"),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        read_command(arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_settings_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "cka.yaml").write_text(
        "representations: [a, b]\nout: c\ncomparison: {most_blocks: 7, precision: float32}\n"
    )
    command = read_command(["cka", "--config", str(tmp_path / "cka.yaml")])
    assert command.keywords["representations"] == [Path("a"), Path("b")]  # type: ignore[attr-defined]
    assert command.keywords["comparison"].most_blocks == 7  # type: ignore[attr-defined]
