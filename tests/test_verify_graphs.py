"""``verify`` accepts a sound dataset, finds every damage, and tells all of them at once."""

import re
import shutil
from pathlib import Path

import pytest

from damage import DAMAGES, SHARD, TABLE
from pipeline.dataset_manifest import read_manifest
from pipeline.verify_graphs import verify
from tiny_dataset import make_tiny_dataset


@pytest.fixture(name="tiny_dataset")
def shared_tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_dataset(tmp_path_factory.getbasetemp())


def test_a_sound_dataset_is_called_sound(tiny_dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify(tiny_dataset)
    printed = capsys.readouterr().out
    assert f"{tiny_dataset} is sound: 13 graphs in 19 files, 0.3 MB" in printed
    assert read_manifest(tiny_dataset).digest in printed


@pytest.mark.parametrize("name", DAMAGES)
def test_every_damage_is_found_and_its_file_named(name: str, tiny_dataset: Path, tmp_path: Path) -> None:
    path, damage = shutil.copytree(tiny_dataset, tmp_path / "graphs.zarr"), DAMAGES[name]
    damage.apply(path)
    with pytest.raises(ValueError, match=damage.message) as error:
        verify(path)
    assert damage.file in str(error.value)


def test_all_findings_are_told_at_once(tiny_dataset: Path, tmp_path: Path) -> None:
    path = shutil.copytree(tiny_dataset, tmp_path / "graphs.zarr")
    DAMAGES[f"a flipped bit in {SHARD}"].apply(path)
    DAMAGES[f"{TABLE} missing"].apply(path)
    (path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not sound, 3 findings:") as error:
        verify(path)
    lines = str(error.value).splitlines()[1:]
    assert [re.sub(r":.*", "", line).strip() for line in lines] == [
        str(path / name) for name in ("notes.txt", TABLE, SHARD)
    ]
    assert "the manifest does not name it" in lines[0]


def test_what_a_killed_writer_left_is_a_finding(tiny_dataset: Path, tmp_path: Path) -> None:
    path = shutil.copytree(tiny_dataset, tmp_path / "graphs.zarr")
    (path / "values/00001/c/.0~host~1~aside").write_bytes(b"half a sha")
    with pytest.raises(ValueError, match="1 finding:.*\n.*0~host~1~aside: the manifest does not name it; delete it"):
        verify(path)


def test_a_folder_without_a_dataset_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no parameter-graph dataset here .*make one: python -m pipeline graphs"):
        verify(tmp_path)
    with pytest.raises(ValueError, match="no parameter-graph dataset here"):
        verify(tmp_path / "nowhere")
