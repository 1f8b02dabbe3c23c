"""The machines a job runs on: a Ray cluster that is joined, or one that is started here for as long as the job.

    RAY_ADDRESS=host:port     joins that cluster; ``ray job submit`` sets it for the jobs it starts
    otherwise                 starts one on this machine and ends it with the job

What is started here listens on 127.0.0.1 only, asks for a token of its own, has no dashboard, sends no usage
statistics and writes nothing to the user's home. Ray is imported inside functions, so that everything else, `--help`
too, does without it.
"""

import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from types import FrameType
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

NOUNS = {"CPU": "processors", "GPU": "GPUs"}
OOM_RETRIES = "15"
OBJECT_STORE_BYTES = 256 * 2**20
SECONDS_TO_ANSWER = 10


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a job asks of the machines it runs on. Nothing here changes what is written."""

    cpus_per_task: int = 1
    """Processors that Ray keeps free for each task; a task computes on one thread."""
    gpus_per_task: float = 0.0
    """GPUs, or a fraction of one, that Ray keeps free for each task."""
    tasks_in_flight: int = 256
    """Tasks handed to Ray at a time. More than the cluster has processors, so that a cluster that can grow does."""
    retries: int = 3
    """How often a task is tried again when its process or machine is lost; its own errors are not retried. A task that
    Ray ends for want of memory, before the machine has none left, is tried 15 times more (none if this is 0)."""

    def __post_init__(self) -> None:
        for name, least in (("cpus_per_task", 1), ("tasks_in_flight", 1), ("retries", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"machine: {name} is {getattr(self, name)}; expected at least {least}")
        if not (0 <= self.gpus_per_task <= 1 or self.gpus_per_task % 1 == 0 < self.gpus_per_task):  # NaN is neither
            raise ValueError(
                f"machine: gpus_per_task is {self.gpus_per_task}; expected a fraction up to 1, or a whole number"
            )


@contextmanager
def cluster(machine: Machine = Machine()) -> Iterator[None]:
    """Inside, Ray is connected. A cluster that was joined is left as it was; one that was started ends here.

    Args:
        machine: what tasks will ask for. A cluster that was joined may yet grow to have it: then a line says that they
            wait.

    Raises:
        ValueError: nothing answers at RAY_ADDRESS; or this machine has less than one task asks for.
    """
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        protect()
    os.environ.setdefault("RAY_task_oom_retries", OOM_RETRIES)  # Ray's own is without end
    import ray

    if ray.is_initialized():  # the caller's connection stays the caller's
        say_if_tasks_wait(machine)
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with ExitStack() as stack:
        if address:
            check_answers(address)
            try:
                ray.init(address=address, **quiet)
            except (ValueError, ConnectionError) as error:
                raise ValueError(f"RAY_ADDRESS is {address}: {error}; correct or unset it") from error
            stack.callback(ray.shutdown)
            say_if_tasks_wait(machine)
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True))
            own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
            ray.init(address="local", _temp_dir=folder, **own, **quiet)
            stack.callback(ray.shutdown)
            for name, asked, kind in resources(machine):
                if asked > (most := most_of(kind)):
                    raise ValueError(
                        f"machine: {name} is {asked:g}, and this machine has {most:g} {NOUNS[kind]}, so that no task "
                        f"could start; ask for at most {most:g}"
                    )
        stack.enter_context(termination_interrupts())
        yield


def say_if_tasks_wait(machine: Machine) -> None:
    """A line on the error stream if no machine of the connected cluster has what a task asks for."""
    for name, asked, kind in resources(machine):
        if asked > (most := most_of(kind)):
            print(
                f"Waiting for a machine of {asked:g} {NOUNS[kind]} (machine.{name}); the largest of the cluster has "
                f"{most:g} now.",
                file=sys.stderr,
            )


def resources(machine: Machine) -> list[tuple[str, float, str]]:
    """What a task asks for: the setting, how many, and Ray's name for it."""
    return [("cpus_per_task", float(machine.cpus_per_task), "CPU"), ("gpus_per_task", machine.gpus_per_task, "GPU")]


def most_of(kind: str) -> float:
    """Processors ("CPU") or GPUs ("GPU") of the largest machine of the connected cluster."""
    import ray

    return max((float(node["Resources"].get(kind, 0)) for node in ray.nodes() if node["Alive"]), default=0.0)


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """Inside, SIGTERM is what Ctrl-C is; Ray would print its C++ stack and leave at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def check_answers(address: str) -> None:
    """Refuse an address where nothing listens; Ray itself would try for minutes, and then end the process.

    Raises:
        ValueError: nothing answers there.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # "auto": Ray looks for a cluster of this machine
    try:
        socket.create_connection((host, int(port)), timeout=SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise ValueError(f"RAY_ADDRESS is {address}, where nothing answers ({error}); correct or unset it") from error


def protect() -> None:
    """Set, before Ray is imported, what keeps a cluster that is started here to this machine and this process.

    The variables stay: Ray reads some at import and keeps the token as long as the process lives.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # otherwise Ray writes one to ~/.ray/auth_token
    # Ray's name for "may this be part of a larger cluster": with 0 its ports listen on 127.0.0.1, on Linux too.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"


def run_tasks(
    function: Callable[..., Result], items: Sequence[Item], shared: Sequence[object], machine: Machine, noun: str
) -> Iterator[tuple[Item, Result]]:
    """Call ``function(item, *shared)`` for every item, as tasks of the connected cluster; yield each that finishes.

    Args:
        items: in the order in which their tasks start.
        shared: further arguments of every call; each travels to a machine once.
        noun: what an item is called in an error.

    Raises:
        ValueError: a task found bad input, or could not read or write (the disk is full, say), or its process or
            machine was lost more often than it is tried again; naming the item.
        RuntimeError: a task failed in another way, naming the item.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    options = {
        "num_cpus": machine.cpus_per_task,
        "num_gpus": machine.gpus_per_task,
        "max_retries": machine.retries,
    }
    start: Callable[..., Any] = ray.remote(function).options(**options).remote
    references = [ray.put(value) for value in shared]
    pending = iter(items)
    running = {start(item, *references): item for item in islice(pending, machine.tasks_in_flight)}
    while running:
        [finished], _ = ray.wait(list(running))
        item = running.pop(finished)
        running.update((start(next_item, *references), next_item) for next_item in islice(pending, 1))
        try:
            result = ray.get(finished)
        except RayError as error:
            cause = error.cause if isinstance(error, RayTaskError) else error  # else its process or machine was lost
            kind = ValueError if isinstance(cause, ValueError | OSError | RayError) else RuntimeError
            what = first_sentence(error) if cause is error else str(cause)
            raise kind(
                f"{noun} {item} failed: {type(cause).__name__}: {what}. What is finished is kept; "
                "when the cause is mended, the same command goes on from there"
            ) from error
        yield item, result


def first_sentence(error: Exception) -> str:
    """What Ray says first of a process or machine that was lost; a page of advice follows."""
    line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line.partition(". ")[0].strip().rstrip(".")
