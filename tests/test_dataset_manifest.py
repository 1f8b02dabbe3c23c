"""The manifest: which files follow from counts, and that its text is its own proof."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.checked_files import CheckedFiles, read_manifest
from pipeline.dataset_manifest import (
    MANIFEST,
    SHARD_FLOATS,
    Addition,
    FileRecord,
    Manifest,
    PartRecord,
    TableRecord,
    canonical_json,
    files_of,
    part_files,
    sha256,
)


def small_manifest(contents: dict[str, bytes], num_values: int = 7) -> Manifest:
    """Of one addition of one part, without a template."""
    return Manifest(
        dtype="float32",
        options={"seed": 3},
        additions=(Addition(num_tables=1, num_left_out=0, made_of={"sources": {}}),),
        tables=(TableRecord(num_parts=1, num_templates=0),),
        parts=(PartRecord(num_graphs=2, num_values=num_values),),
        files={name: FileRecord.of(content) for name, content in contents.items()},
    )


SMALL_FILES = {
    name: name.encode()
    for name in (
        "zarr.json",
        "values/zarr.json",
        "tables/00000.parquet",
        "values/00000/zarr.json",
        "values/00000/c/0",
    )
}


@pytest.mark.parametrize(
    ("num_values", "num_shards"), [(1, 1), (SHARD_FLOATS, 1), (SHARD_FLOATS + 1, 2), (5 * SHARD_FLOATS, 5)]
)
def test_a_part_has_a_file_per_shard(num_values: int, num_shards: int) -> None:
    assert list(part_files(42, num_values)) == [
        "values/00042/zarr.json",
        *(f"values/00042/c/{shard}" for shard in range(num_shards)),
    ]


def test_additions_have_tables_and_tables_have_parts() -> None:
    manifest = Manifest(
        dtype="float32",
        options={},
        additions=(
            Addition(num_tables=2, num_left_out=0, made_of={}),
            Addition(num_tables=1, num_left_out=5, made_of={}),
        ),
        tables=(
            TableRecord(num_parts=1, num_templates=1),
            TableRecord(num_parts=2, num_templates=0),
            TableRecord(num_parts=1, num_templates=3),
        ),
        parts=(PartRecord(num_graphs=1, num_values=9),) * 4,
        files={},
    )
    assert [list(manifest.parts_of(table)) for table in range(3)] == [[0], [1, 2], [3]]
    assert sorted(name for name in files_of(manifest) if "values" not in name and name != "zarr.json") == [
        "left_out/00001.parquet",
        "tables/00000.parquet",
        "tables/00001.parquet",
        "tables/00002.parquet",
        "templates/00000.parquet",
        "templates/00002.parquet",
    ]


def test_a_folder_in_the_place_of_the_manifest_is_named(tmp_path: Path) -> None:
    """With zarr.json beside it, it would pass for a dataset that is not finished, which a finished one is not."""
    (tmp_path / MANIFEST).mkdir()
    (tmp_path / "zarr.json").write_text("{}")
    with pytest.raises(ValueError, match=r"manifest.json: not a file; restore the file from a copy, or build"):
        read_manifest(tmp_path)


def test_a_manifest_that_is_written_is_read_as_it_was(tmp_path: Path) -> None:
    manifest = small_manifest(SMALL_FILES)
    (tmp_path / MANIFEST).write_text(manifest.text())
    assert read_manifest(tmp_path) == manifest
    assert manifest.num_graphs == 2
    assert manifest.num_bytes == sum(map(len, SMALL_FILES))


def test_the_digest_is_that_of_the_text_without_it() -> None:
    document = json.loads(small_manifest(SMALL_FILES).text())
    digest = document.pop("digest")
    assert sha256(canonical_json(document).encode()) == digest


@given(st.data())
def test_no_byte_of_a_manifest_can_be_changed(data: st.DataObject) -> None:
    """Every change of one byte is refused: as no JSON, as another format or version, or by the digest."""
    text = small_manifest(SMALL_FILES).text().encode()
    place = data.draw(st.integers(0, len(text) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != text[place]))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(Path, "is_file", lambda _: True)
        monkeypatch.setattr(Path, "read_bytes", lambda _: text[:place] + bytes([byte]) + text[place + 1 :])
        with pytest.raises(ValueError, match="manifest"):
            read_manifest(Path("dataset"))


def test_a_file_is_believed_when_it_is_the_one_that_was_named(tmp_path: Path) -> None:
    (tmp_path / "zarr.json").write_bytes(b"zarr.json")
    files = CheckedFiles(tmp_path, small_manifest(SMALL_FILES))
    assert files.read("zarr.json") == b"zarr.json"
    with pytest.raises(ValueError, match=r"values/zarr\.json: missing; restore the file from a copy, or build"):
        files.read("values/zarr.json")
    (tmp_path / "zarr.json").write_bytes(b"zarr.jsOn")
    with pytest.raises(ValueError, match=r"zarr\.json: altered, its SHA-256 is not the manifest's; restore"):
        CheckedFiles(tmp_path, files.manifest).read("zarr.json")
    (tmp_path / "zarr.json").write_bytes(b"zarr")
    with pytest.raises(ValueError, match=r"zarr\.json: 4 bytes, 9 were written; restore"):
        CheckedFiles(tmp_path, files.manifest).read("zarr.json")
