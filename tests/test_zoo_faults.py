"""What may happen while `python -m pipeline zoo` runs on several machines: nothing is lost, nothing is there twice, and
the zoo is byte for byte the undisturbed one. `campaign_zoo.py` draws such faults at random."""

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from fault_clusters import (
    POLL_SECONDS,
    POLLS,
    add_node,
    content,
    lose,
    nodes,
    stop_at_a_task,
    wait_for_no_task,
)
from pipeline.__main__ import read_command
from pipeline.command_line import run_command
from pipeline.images import load_images
from pipeline.whole_files import write_file, write_folder
from pipeline.zoo import plan
from pipeline.zoo_job import missing_chunks, train_and_write
from pipeline.zoo_store import create_zoo
from tiny_zoo import tiny_spec

ROOT = Path(__file__).parents[1]
NUM_CHUNKS = 7
SPEC = tiny_spec(num_runs=3 * NUM_CHUNKS, epochs=7, checkpoint_epochs=(0, 7))
"""A chunk takes a quarter of a second, and its values.npy has about 120,000 bytes."""
FAULTY = "tests/fault_clusters.py"
SECONDS = 180
"""After which a command counts as hanging."""
KEPT = "What is finished is kept; when the cause is mended, the same command goes on from there"


@dataclass(frozen=True, kw_only=True)
class Machines:
    """A cluster whose head runs no tasks, and its two other nodes."""

    cluster: Any
    nodes: list[Any]

    @contextmanager
    def running(self, program: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
        """Start a program as a job of the cluster; it is ended with the block if it has not ended by then."""
        wait_for_no_task()
        environment = {**os.environ, "RAY_ADDRESS": self.cluster.address, "PYTHONPATH": str(ROOT)}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *program], cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def run(self, program: list[str], log: Path) -> int:
        """Run a program as a job of the cluster, to its end; returns its exit code."""
        with self.running(program, log) as process:
            return process.wait(timeout=SECONDS)


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    # Not tmp_path: Ray keeps unix sockets about 70 characters below its folder, and their paths end at 107.
    with (
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # its ports listen on 127.0.0.1, as in pipeline.cluster
        with nodes(2) as (cluster, others):
            yield Machines(cluster=cluster, nodes=others)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the zoo holds when its chunks are trained one after another, without a cluster."""
    store = create_zoo(tmp_path_factory.mktemp("undisturbed") / "zoo", SPEC)
    images = load_images(SPEC.images)
    for index in range(NUM_CHUNKS):
        train_and_write(index, store, images)
    return content(store.path)


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """Trains the zoo into a folder of the test's, ``zoo``."""
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump({"spec": SPEC.document()}))
    return ["zoo", "--config", str(config), "--out", str(tmp_path / "zoo")]


def listed(chunks: Path) -> set[str]:
    """The finished chunks' names."""
    return {path.name for path in chunks.glob("[0-9]*")}


def test_a_node_lost_in_mid_chunk_costs_nothing(
    machines: Machines, undisturbed: dict[str, bytes], command: list[str], tmp_path: Path
) -> None:
    """The job goes on with the node that is left; a new one comes for the next test."""
    out, log = tmp_path / "zoo", tmp_path / "driver.log"
    staying, lost = machines.nodes
    with machines.running(["-m", "pipeline", *command], log) as driver:
        stop_at_a_task(driver, lost)
        assert len(listed(out / "chunks")) < NUM_CHUNKS
        lose(machines.cluster, lost)
        machines.nodes[:] = [staying]
        assert driver.wait(timeout=SECONDS) == 0, log.read_text()
    machines.nodes.append(add_node(machines.cluster))
    assert content(out) == undisturbed


def test_status_says_what_is_finished_when_the_driver_was_killed(
    machines: Machines,
    undisturbed: dict[str, bytes],
    command: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, log = tmp_path / "zoo", tmp_path / "driver.log"
    with machines.running(["-m", "pipeline", *command], log) as driver:
        for _ in range(POLLS):
            if listed(out / "chunks"):
                break
            with suppress(subprocess.TimeoutExpired):
                raise AssertionError(f"it ended by itself, with {driver.wait(timeout=POLL_SECONDS)}: {log.read_text()}")
        driver.kill()
    assert_chunks_are_whole(out, undisturbed)
    finished = listed(out / "chunks")
    run_command("pipeline", read_command(["status", str(out)]))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Zoo 'tiny' in {out}"
    assert lines[1].startswith(f"  chunks          {len(finished)} of {NUM_CHUNKS}, ")
    assert lines[2] == f"  runs            {3 * len(finished)} of {3 * NUM_CHUNKS}, 2 checkpoints each"


def test_a_chunk_that_raises_then_finds_the_disk_full_then_loses_its_worker_is_trained_in_the_end(
    machines: Machines, undisturbed: dict[str, bytes], command: list[str], tmp_path: Path
) -> None:
    """Three runs of the same command, in which all other chunks are trained once. The full disk is the system's error:
    a worker may write no file as large as values.npy, and stops in its middle."""
    out, mark, log = tmp_path / "zoo", tmp_path / "mark", tmp_path / "driver.log"
    chunk = last_chunk(out)
    unwritten = out / "chunks" / f"{chunk:05d}"
    mark.touch()

    assert machines.run([FAULTY, "raises", str(chunk), str(mark), *command], log) == 1
    line = f"RuntimeError: chunk {chunk} failed: FloatingPointError: the loss is not a number. {KEPT}"
    assert log.read_text().splitlines()[-1] == line
    assert mark.read_text() == "once\n"  # a task's own errors are not tried again
    assert_chunks_are_whole(out, undisturbed)
    before = {path: path.stat().st_mtime_ns for path in (out / "chunks").glob("[0-9]*/*")}

    assert machines.run([FAULTY, "full", str(chunk), str(mark), *command], log) == 1
    line = f"python -m pipeline: chunk {chunk} failed: OSError: [Errno 27] File too large: '{unwritten}'. {KEPT}"
    assert log.read_text().splitlines()[-1] == line
    assert "Traceback" not in log.read_text()
    assert not unwritten.exists()
    assert_chunks_are_whole(out, undisturbed)

    assert machines.run([FAULTY, "killed", str(chunk), str(mark), *command], log) == 0, log.read_text()
    assert not mark.exists()  # it was killed
    assert content(out) == undisturbed
    assert {path: path.stat().st_mtime_ns for path in before} == before


def last_chunk(out: Path) -> int:
    """The chunk that starts when all others have, or nearly all; makes the zoo."""
    return missing_chunks(create_zoo(out, SPEC), plan(SPEC).chunk_steps(SPEC))[-1]


def assert_chunks_are_whole(out: Path, undisturbed: dict[str, bytes]) -> None:
    """Some chunks are there, not all, and each is that of the undisturbed zoo."""
    wait_for_no_task()
    finished = listed(out / "chunks")
    assert 1 <= len(finished) < NUM_CHUNKS
    for name in finished:
        assert content(out / "chunks" / name) == chunk_of(undisturbed, name)


def chunk_of(zoo: dict[str, bytes], name: str) -> dict[str, bytes]:
    """The content of one chunk of a zoo."""
    start = f"chunks/{name}/"
    return {path.removeprefix(start): content for path, content in zoo.items() if path.startswith(start)}


@contextmanager
def file_sizes_end_at(limit: int) -> Iterator[None]:
    """Inside, no file of this process can have more bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "write",
    [lambda path, content: write_file(path, content), lambda path, content: write_folder(path, {"values": content})],
    ids=["a file", "a folder"],
)
def test_what_does_not_fit_is_named_and_leaves_nothing(write: Callable[[Path, bytes], None], tmp_path: Path) -> None:
    limit = 2**20  # more than anything else is written meanwhile
    path = tmp_path / "here"
    with pytest.raises(OSError, match=f"File too large: '{path}'"), file_sizes_end_at(limit):
        write(path, bytes(limit + 1))
    assert list(tmp_path.iterdir()) == []
    write(path, bytes(limit + 1))
    assert [entry.name for entry in tmp_path.iterdir()] == ["here"]
