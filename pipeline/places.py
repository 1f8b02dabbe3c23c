"""Places files lie at: folders of this machine, and object stores (``s3://bucket/folder``), behind one kind of path.

Reads   nothing
Writes  nothing

A place is a `upath.UPath`, which is a `pathlib.Path` where it is local, and goes through fsspec where it is not.
Credentials and end points come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, …), never from us. Listings
are not cached: another process may have written since.
"""

import os
from pathlib import Path

from upath import UPath

Place = UPath | Path
"""What functions take that work on any place."""


def place(path: str | os.PathLike[str]) -> UPath:
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


def is_local(path: Place) -> bool:
    """Whether it is on a disk of this machine, or one that looks like it: with renames, locks and memory-mapping."""
    return isinstance(path, Path)
