"""``verify`` accepts a sound dataset, finds every damage, and tells all of them at once."""

import re
import shutil
from pathlib import Path

import pytest

from damage import DAMAGES, SHARD, TABLE
from pipeline.checked_files import read_manifest
from pipeline.verify_graphs import verify
from tiny_dataset import make_tiny_dataset


@pytest.fixture(name="tiny_dataset")
def shared_tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_dataset(tmp_path_factory.getbasetemp())


def test_a_sound_dataset_is_called_sound(tiny_dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify(tiny_dataset)
    printed = capsys.readouterr().out
    assert f"{tiny_dataset} is sound: 13 graphs in 20 files, 0.3 MB" in printed
    assert read_manifest(tiny_dataset).digest in printed


@pytest.mark.parametrize("name", DAMAGES)
def test_every_damage_is_found_and_its_file_named(
    name: str, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, damage = shutil.copytree(tiny_dataset, tmp_path / "graphs.zarr"), DAMAGES[name]
    damage.apply(path)
    with pytest.raises(ValueError, match="is not sound|manifest|dataset") as error:
        verify(path)
    said = capsys.readouterr().out + str(error.value)
    assert re.search(damage.message, said)
    assert damage.file in said


def findings(report: str) -> list[str]:
    """The lines under promises that are not kept."""
    return [line.strip() for line in report.splitlines() if line.startswith(" " * 11)]


def test_all_findings_are_told_at_once(tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = shutil.copytree(tiny_dataset, tmp_path / "graphs.zarr")
    DAMAGES[f"a flipped bit in {SHARD}"].apply(path)
    DAMAGES[f"{TABLE} missing"].apply(path)
    (path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not sound, 3 findings; see above"):
        verify(path)
    report = capsys.readouterr().out
    assert [re.sub(r":.*", "", line) for line in findings(report)] == [
        str(path / name) for name in (TABLE, SHARD, "notes.txt")
    ]
    assert "  WRONG  no other files are there\n" in report
    assert "notes.txt: the manifest does not name it; delete it" in report


def test_what_a_killed_writer_left_is_a_finding(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shutil.copytree(tiny_dataset, tmp_path / "graphs.zarr")
    (path / "values/00001/c/.0~host~1~aside").write_bytes(b"half a sha")
    with pytest.raises(ValueError, match="1 finding;"):
        verify(path)
    assert "0~host~1~aside: the manifest does not name it; delete it" in capsys.readouterr().out


def test_the_report_names_every_promise_whatever_the_number_of_threads(
    tiny_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports: list[str] = []
    for threads in (1, 3):
        verify(tiny_dataset, threads=threads)
        reports.append(capsys.readouterr().out)
    assert reports[0] == reports[1]
    assert len(re.findall(r"^  ok     ", reports[0], flags=re.MULTILINE)) == 6
    with pytest.raises(ValueError, match="threads is 0; expected at least 1"):
        verify(tiny_dataset, threads=0)


def test_a_folder_without_a_dataset_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no parameter-graph dataset here .*make one: python -m pipeline graphs"):
        verify(tmp_path)
    with pytest.raises(ValueError, match="no parameter-graph dataset here"):
        verify(tmp_path / "nowhere")
