"""Places files lie at: folders of this machine, and object stores (``s3://bucket/folder``), behind one kind of path.

Reads   nothing
Writes  nothing

A place is a `upath.UPath`, which is a `pathlib.Path` where it is local, and goes through fsspec where it is not.
Credentials and end points come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, …), never from us. Listings
are not cached: another process may have written since.
"""

import os
import shutil
from pathlib import Path

from typing_extensions import TypeIs
from upath import UPath

Place = UPath | Path
"""What functions take that work on any place."""
PathName = str | os.PathLike[str] | UPath
"""What commands and scripts say where something lies by."""


def place(path: PathName) -> UPath:
    """The place with this name.

    Raises:
        ValueError: it is a URL of a kind that nothing installed here reads.
    """
    if "://" not in str(path):
        return UPath(path)
    if isinstance(path, UPath):
        path = str(path)  # anew: connections do not survive a fork
    try:
        return UPath(path, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"{path}: {error}; s3:// needs the packages of the extra [s3]: pip install -c constraints.txt '.[s3]'"
        ) from error


def is_local(path: Place) -> TypeIs[Path]:
    """Whether it is on a disk of this machine, or one that looks like it: with renames, locks and memory-mapping."""
    return isinstance(path, Path)


def check_reachable(path: Place) -> None:
    """Refuse a place that does not answer.

    Raises:
        ValueError: an object store cannot be reached, or does not let us in.
    """
    if is_local(path):
        return
    try:
        path.exists()
    except Exception as error:  # each store raises its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{path}: cannot be reached: {reason}; credentials and end point come from the environment "
            "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_PROFILE)"
        ) from error


def make_folder(path: Place) -> None:
    """Make a folder and those above it, where there are such things as folders."""
    if is_local(path):
        path.mkdir(parents=True, exist_ok=True)


def remove_folder(path: Place) -> None:
    """Remove a folder and all below it, if it is there."""
    if is_local(path):
        shutil.rmtree(path, ignore_errors=True)
    elif path.exists():
        path.fs.rm(path.path, recursive=True)


def files_below(path: Place) -> dict[str, int]:
    """Size of every file below a folder, by its path relative to it, with ``/``; links are not followed."""
    if is_local(path):
        found = (file for file in path.rglob("*") if file.is_symlink() or not file.is_dir())
        return {file.relative_to(path).as_posix(): file.lstat().st_size for file in found}
    start, found = len(path.path) + 1, dict(path.fs.find(path.path, detail=True))
    return {name[start:]: int(info["size"]) for name, info in found.items()}
