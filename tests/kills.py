"""Kills in the middle of a write, without a process that dies: for writers of datasets."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pipeline import dataset_writer


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it, and nothing that would run after it runs."""


@contextmanager
def killed_after(num_writes: int) -> Iterator[list[Path]]:
    """Inside, the process dies during the write after so many; yields the paths written or begun."""
    begun: list[Path] = []
    write_file = dataset_writer.write_file

    def write(path: Path, content: bytes) -> None:
        begun.append(path)
        if len(begun) > num_writes:
            path.with_name(f".{path.name}~elsewhere~1~aside").write_bytes(content[: len(content) // 2])
            raise Killed
        write_file(path, content)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(dataset_writer, "write_file", write)
        with suppress(Killed):
            yield begun
