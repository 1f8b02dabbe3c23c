"""A Ray cluster of several nodes on this machine, the processes at work on it, and what a zoo holds afterwards: for the
fixed faults (test_zoo_faults.py) and the random ones (campaign_zoo.py).

    python tests/fault_clusters.py FAULT CHUNK MARK zoo --config ... --out ...

runs a command of `python -m pipeline` with a fault in one chunk as long as the file MARK is there (`faulty`). Whatever
is stopped or ended here is a descendant of this process.
"""

import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Any

import psutil
from upath import UPath

POLL_SECONDS = 0.02
POLLS = 6000
"""Until what is waited for counts as never coming: some minutes."""
ROOM = 60_000
"""Bytes that a file may have where the disk is full."""


@contextmanager
def nodes(count: int) -> Iterator[tuple[Any, list[Any]]]:
    """A cluster whose head runs no tasks, and its other nodes, of one processor each.

    ``RAY_TMPDIR`` must be a folder of the caller's: the cluster's address is written below it.
    """
    from ray.cluster_utils import Cluster

    head = {
        "num_cpus": 0,
        "node_ip_address": "127.0.0.1",
        "object_store_memory": 100_000_000,
        # Processes that no job needs: they take longer to start than all others.
        "include_dashboard": False,
        "include_log_monitor": False,
        "no_monitor": True,
        # A node whose connection is refused five times is lost; between the tries Ray would wait for 3 seconds.
        "_system_config": {"health_check_period_ms": 500},
    }
    cluster: Any = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield cluster, [add_node(cluster) for _ in range(count)]
    finally:
        cluster.shutdown()


def add_node(cluster: Any) -> Any:
    """One more machine of one processor."""
    return cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1", object_store_memory=100_000_000)


def processes_of(node: Any) -> list[psutil.Process]:
    """What runs on a node: its raylet, and the raylet's workers."""
    raylets = [psutil.Process(started.process.pid) for started in node.all_processes["raylet"]]
    return raylets + [process for raylet in raylets for process in raylet.children(recursive=True)]


def lose(cluster: Any, node: Any) -> None:
    """Take a machine away, all that runs on it at once."""
    processes = processes_of(node)
    cluster.remove_node(node, allow_graceful=False)
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # psutil compares start times first, so a reused process id is safe
            process.kill()
    psutil.wait_procs(processes)


def task_processes() -> list[psutil.Process]:
    """The processes of this cluster, descendants of ours, that are at a task of the job."""
    return [process for process in psutil.Process().children(recursive=True) if is_at_a_task(process)]


def is_at_a_task(process: psutil.Process) -> bool:
    """Whether a worker trains a chunk; Ray says so in the name of the process. Not if it has ended."""
    try:
        return "ray::train_and_write" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def wait_for_a_task(driver: Popen[bytes]) -> None:
    """Return when a task is at work, or the driver has ended. Processes are asked for: Ray tells nobody."""
    while not task_processes():
        with suppress(TimeoutExpired):
            driver.wait(timeout=POLL_SECONDS)
            return


def wait_for_no_task() -> None:
    """Return when no task of an earlier job is at work: the workers of a driver that was killed outlive it a little."""
    for _ in range(POLLS):
        if not (working := task_processes()):
            return
        psutil.wait_procs(working, timeout=POLL_SECONDS)
    raise AssertionError(f"{task_processes()} are still at a task of a job that ended")


def stop_at_a_task(driver: Popen[bytes], node: Any) -> psutil.Process:
    """A process of a node, stopped (SIGSTOP) in the middle of a task: then a fault finds it there, however fast the
    machine is."""
    for _ in range(POLLS):
        for process in filter(is_at_a_task, processes_of(node)):
            process.suspend()
            if is_at_a_task(process):
                return process
            process.resume()
        with suppress(TimeoutExpired):
            raise AssertionError(f"the command ended by itself, with {driver.wait(timeout=POLL_SECONDS)}")
    raise AssertionError("no task came to the node")


def content(folder: Path | UPath) -> dict[str, bytes]:
    """Every file of a zoo but its log, which is outside the format; and its folders, each an empty entry."""
    folder = Path(str(folder))
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    return {
        name: b"" if path.is_dir() else path.read_bytes() for name, path in paths.items() if name.split("/")[0] != "log"
    }


def faulty(fault: str, chunk: int, mark: Path) -> Callable[..., int]:
    """The task of a zoo's job, with a fault in one chunk as long as a file is there.

    Args:
        fault: "raises", which notes it in the file; "full", a file of more than `ROOM` bytes is the system's error;
            "killed", by SIGKILL, as where a system's memory ran out, when the whole chunk is written and not renamed.
    """

    def die(self: Path, target: str | os.PathLike[str]) -> Path:
        mark.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
        return self

    def train(index: int, *arguments: Any) -> int:
        from pipeline.zoo_job import train_and_write  # in the worker, where it is the product's own

        if index == chunk and mark.exists():
            match fault:
                case "raises":
                    with mark.open("a") as file:
                        file.write("once\n")
                    raise FloatingPointError("the loss is not a number")
                case "full":
                    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
                    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, most))
                case "killed":
                    Path.rename = die
        return train_and_write(index, *arguments)

    return train


def main() -> None:
    """Run a command with a fault."""
    from pipeline import zoo_job
    from pipeline.__main__ import read_command
    from pipeline.command_line import run_command

    fault, chunk, mark, *command = sys.argv[1:]
    zoo_job.train_and_write = faulty(fault, int(chunk), Path(mark))
    run_command("pipeline", read_command(command))


if __name__ == "__main__":
    main()
