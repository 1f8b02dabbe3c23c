"""Files and folders that are there whole or not at all, whatever is killed while they are written.

Reads   nothing
Writes  what it is given: aside, under a hidden name beside the final one, then synchronised with the disk, then renamed

The name aside says who writes (`.<name>~<host>~<process id>~aside`), so `sweep` can tell what a killed writer left.
"""

import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.places import Place, is_local

SUFFIX = "~aside"


def write_folder(path: Place, files: Mapping[str, bytes]) -> None:
    """Make a folder of some files; nothing happens if it is there already.

    An object store has no folders to rename: there the last file says that the others are whole, and comes last.

    Several may write the same folder at once, on several machines too, if they write the same bytes: the first one
    wins.
    """
    if not is_local(path):
        if not (path / list(files)[-1]).exists():
            for name, content in files.items():
                (path / name).write_bytes(content)
        return
    aside = aside_path(path)
    shutil.rmtree(aside, ignore_errors=True)  # an earlier try of this process
    try:
        aside.mkdir(parents=True)
        for name, content in files.items():
            _write(aside / name, content)
        synchronise(aside)
        aside.rename(path)
    except OSError as error:
        if not path.is_dir():
            error.filename = error.filename or str(path)  # that of a full disk names no file
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    synchronise(path.parent)


def write_file(path: Place, content: bytes) -> None:
    """Write a file, or replace one: a reader sees the old content or the new. An object store does so by itself."""
    if not is_local(path):
        path.write_bytes(content)
        return
    aside = aside_path(path)
    try:
        _write(aside, content)
        aside.replace(path)
    except OSError as error:  # the disk is full, or a folder is there, say
        aside.unlink(missing_ok=True)
        error.filename = error.filename or str(path)
        raise
    synchronise(path.parent)


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """Something written aside and not renamed: its writer is at work, or was killed."""

    path: Path
    final: Path
    """What it would have been."""
    host: str
    process: int

    @property
    def is_dead(self) -> bool:
        """Whether nobody needs it: its writer ran on this machine and is gone, or on another one and was overtaken."""
        return self.final.exists() if self.host != socket.gethostname() else not _is_running(self.process)


def leftovers(folder: Place) -> Iterator[Leftover]:
    """Everything in a folder that is written aside; nothing if there is no such folder, or it is in an object store."""
    if not is_local(folder):
        return
    for path in sorted(folder.glob(f".*{SUFFIX}")):
        parts = path.name.removeprefix(".").removesuffix(SUFFIX).rsplit("~", 2)
        if len(parts) == 3 and parts[2].isdigit():
            yield Leftover(path=path, final=folder / parts[0], host=parts[1], process=int(parts[2]))


def sweep(folder: Place) -> None:
    """Remove what killed writers left in a folder."""
    for leftover in leftovers(folder):
        if leftover.is_dead and leftover.path.is_dir():
            shutil.rmtree(leftover.path)
        elif leftover.is_dead:
            leftover.path.unlink(missing_ok=True)


def aside_path(path: Path, purpose: str = "") -> Path:
    """A name beside ``path`` that `sweep` clears away when this process is gone; ``purpose`` tells several apart."""
    return path.with_name(f".{path.name}{purpose}~{socket.gethostname()}~{os.getpid()}{SUFFIX}")


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def synchronise(folder: Path) -> None:
    """Wait until the names in a folder are on disk; what is in its files was waited for when they were written."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
