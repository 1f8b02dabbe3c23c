"""A dataset's values as one flat file of this machine, memory-mapped: what random access wants, at 4 bytes a value.

Reads   the parts of a dataset, once
Writes  FOLDER/values.f32   float32, little-endian: the values of all parts, one after another
        FOLDER/copy.json    the digest of the dataset, and size and SHA-256 of each part

The folder is written aside and renamed, so it is there whole or not at all; processes that make it at the same time
make the same bytes, and one of them wins. A part is compared with its digest when a process first reads it.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree

import numpy as np
from jaxtyping import Float32

from pipeline.checked_files import refuse_inside_dataset
from pipeline.dataset_manifest import Manifest, canonical_json
from pipeline.file_records import sha256
from pipeline.progress import progress_bar
from pipeline.whole_files import aside_path, sweep, synchronise, write_file

FORMAT = "metazoo-copy"
VERSION = 1


class LocalCopy:
    """The values of a dataset's parts, memory-mapped."""

    def __init__(self, folder: Path, sizes: list[int], digests: list[str]) -> None:
        self.folder = folder
        self.parts_in_memory = 1  # the system keeps what it has room for
        self._start = np.cumsum([0, *sizes])
        self._digests = digests
        self._checked: set[int] = set()
        # As a plain array, which is the same memory: slices of a memmap are slow.
        self._values = np.asarray(np.memmap(folder / "values.f32", dtype="<f4", mode="r", shape=(sum(sizes),)))

    def read_part(self, part: int) -> Float32[np.ndarray, " num_values"]:
        """The values of a part, read-only.

        Raises:
            ValueError: the copy was altered.
        """
        values = self._values[self._start[part] : self._start[part + 1]]
        if part not in self._checked:
            if sha256(values.tobytes()) != self._digests[part]:
                raise ValueError(f"{self.folder}: altered, part {part} is not what was copied; delete the folder")
            self._checked.add(part)
        return values


def local_copy(
    manifest: Manifest, read_part: Callable[[int], Float32[np.ndarray, " _"]], folder: str | os.PathLike[str]
) -> LocalCopy:
    """The copy of a dataset in a folder, made if it is not there.

    Raises:
        ValueError: something else is there, or the copy of another dataset.
    """
    path = Path(folder).absolute()
    refuse_inside_dataset(path)
    sweep(path.parent)
    if not path.exists():
        write_copy(manifest, read_part, path)
    return open_copy(manifest, path)


def open_copy(manifest: Manifest, path: Path) -> LocalCopy:
    """The copy that lies in a folder.

    Raises:
        ValueError: it is none, or of another dataset, or cut short.
    """
    sizes = [part.num_values for part in manifest.parts]
    try:
        document = json.loads((path / "copy.json").read_bytes())
        found = (document["format"], document["version"], document["dataset"])
        digests = [str(digest) for digest in document["parts"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: not a copy of a dataset ({error}); choose another folder") from error
    if found != (FORMAT, VERSION, manifest.digest) or len(digests) != len(sizes):
        raise ValueError(
            f"{path}: a copy of another dataset, or of this one before something was appended; delete it, or choose "
            "another folder"
        )
    file = path / "values.f32"
    if not file.is_file() or file.stat().st_size != 4 * sum(sizes):
        raise ValueError(f"{file}: missing or cut short; delete {path}, and it is made again")
    return LocalCopy(path, sizes, digests)


def write_copy(manifest: Manifest, read_part: Callable[[int], Float32[np.ndarray, " _"]], path: Path) -> None:
    """Make the copy, or find that another process has just made it."""
    aside = aside_path(path)
    rmtree(aside, ignore_errors=True)  # an earlier try of this process
    digests: list[str] = []
    try:
        aside.mkdir(parents=True)
        with (
            (aside / "values.f32").open("wb") as file,
            progress_bar("copying", "parts", len(manifest.parts)) as bar,
        ):
            for part in range(len(manifest.parts)):
                content = np.ascontiguousarray(read_part(part), dtype="<f4").tobytes()
                file.write(content)
                digests.append(sha256(content))
                bar.update()
            file.flush()
            os.fsync(file.fileno())
        document = {"format": FORMAT, "version": VERSION, "dataset": manifest.digest, "parts": digests}
        write_file(aside / "copy.json", canonical_json(document).encode())
        aside.rename(path)
    except OSError as error:
        if not path.is_dir():  # else another process was first
            error.filename = error.filename or str(path)
            raise
    finally:
        rmtree(aside, ignore_errors=True)
    synchronise(path.parent)
