"""A folder of any size that is there whole or not at all: written file by file under a hidden name, then renamed.

Reads   nothing
Writes  what it is given; what a killed writer leaves is hidden, and removed by the next one (pipeline.whole_files)

`whole_files.write_folder` does the same for files that fit in memory together.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pipeline.whole_files import aside_path, sweep, synchronise


def check_free(path: Path) -> None:
    """Refuse a folder that holds something.

    Raises:
        ValueError: a file is there, or a folder that is not empty.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file; an export is a folder, so choose another path (--out)")
    if path.is_dir() and (found := sorted(entry.name for entry in path.iterdir())):
        raise ValueError(f"{path} is not empty (it holds {found[0]}); choose another folder, or remove it (--out)")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """An empty folder to write into, which becomes ``path`` at the end; an error inside removes it instead.

    Raises:
        OSError: it cannot be written, or something came to lie at ``path`` meanwhile.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    aside = aside_path(path)
    shutil.rmtree(aside, ignore_errors=True)  # an earlier try of this process
    try:
        aside.mkdir()
        yield aside
        synchronise(aside)
        aside.rename(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # that of a full disk names no file
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    synchronise(path.parent)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write into, on disk when the block ends.

    Raises:
        FileExistsError: it is there already.
    """
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
