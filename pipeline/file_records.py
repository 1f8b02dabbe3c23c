"""What a file must be: its size and digest, by which every store tells a file that was altered or cut short.

Reads   bytes, or a file
Writes  nothing
"""

import hashlib
import io
from dataclasses import dataclass
from typing import cast

from pipeline.places import Place


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """What a file must be."""

    size: int
    """In bytes."""
    sha256: str
    """Of its bytes, in lower-case hexadecimal."""

    @staticmethod
    def of(content: bytes) -> "FileRecord":
        """The record of a file with this content."""
        return FileRecord(size=len(content), sha256=sha256(content))

    @staticmethod
    def of_file(path: Place) -> "FileRecord":
        """The record of a file as it is, read in pieces."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(cast(io.BufferedReader, file), "sha256").hexdigest()  # so are those of fsspec
        return FileRecord(size=path.stat().st_size, sha256=digest)


def sha256(content: bytes) -> str:
    """In lower-case hexadecimal."""
    return hashlib.sha256(content).hexdigest()
