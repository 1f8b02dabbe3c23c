"""Files and folders appear whole or not at all, and what killed writers left is removed, and nothing else."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.whole_files import leftovers, sweep, write_file, write_folder

FILES = {"a.txt": b"first", "b.txt": b"second"}
GONE = int(subprocess.check_output([sys.executable, "-c", "import os; print(os.getpid())"]))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def aside(folder: Path, name: str, host: str, process: int) -> Path:
    """What a writer leaves that is killed before it renames."""
    path = folder / f".{name}~{host}~{process}~aside"
    path.mkdir()
    (path / "a.txt").write_bytes(b"fir")
    return path


def test_a_folder_is_what_was_written_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    write_folder(tmp_path / "made" / "here", FILES)
    assert content(tmp_path / "made" / "here") == FILES
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["here"]


def test_the_first_writer_of_a_folder_wins(tmp_path: Path) -> None:
    write_folder(tmp_path / "here", FILES)
    write_folder(tmp_path / "here", {"a.txt": b"other"})
    assert content(tmp_path / "here") == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_a_folder_is_not_there_until_all_of_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, target: Path) -> None:
        assert content(self) == FILES
        assert not (tmp_path / "here").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "here", FILES)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        write_folder(tmp_path / "file" / "here", FILES)
    with pytest.raises(FileNotFoundError, match=r"missing/a.txt"):
        write_folder(tmp_path / "here", {"missing/a.txt": b""})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    for text in (b"a long first text", b"second"):
        write_file(tmp_path / "a.txt", text)
        assert content(tmp_path) == {"a.txt": text}


def test_only_what_dead_writers_left_is_swept(tmp_path: Path) -> None:
    here = socket.gethostname()
    (tmp_path / "finished").mkdir()
    dead = [aside(tmp_path, "unfinished", here, GONE), aside(tmp_path, "finished", "elsewhere", 1)]
    alive = [aside(tmp_path, "mine", here, os.getpid()), aside(tmp_path, "unfinished", "elsewhere", 1)]
    (tmp_path / f".notes~{here}~{GONE}~aside").write_bytes(b"")
    (tmp_path / ".hidden").write_bytes(b"")
    assert len(list(leftovers(tmp_path))) == 5
    sweep(tmp_path)
    assert not any(path.exists() for path in dead)
    assert {path.name for path in tmp_path.iterdir()} == {"finished", ".hidden", *(path.name for path in alive)}


def test_a_folder_that_is_not_there_has_no_leftovers(tmp_path: Path) -> None:
    assert list(leftovers(tmp_path / "nowhere")) == []
