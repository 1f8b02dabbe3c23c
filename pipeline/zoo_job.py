"""The job that trains the missing chunks of a zoo, of either kind: a Ray task for each.

Reads   the specification of a zoo, and its images
Writes  the zoo's chunks (pipeline.zoo_store), and a line for each in its log
"""

import json
import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pipeline.cluster import Machine, cluster, run_tasks
from pipeline.images import Images
from pipeline.inr_zoo import InrSpec, resolve_inr
from pipeline.loop_trainer import Checkpoint
from pipeline.places import Place, check_reachable, is_local
from pipeline.progress import progress_bar
from pipeline.siren_trainer import FittedNetwork
from pipeline.stack_size import measured_stack
from pipeline.trainers import SirenTrainer, Trainer, check_device
from pipeline.zoo import ZooSpec, resolve
from pipeline.zoo_store import Zoo, create_zoo, finished_chunks, open_zoo, sweep_zoo, write_chunk
from pipeline.zoo_summary import summary

LOGGED_PACKAGES = ("numpy", "pyarrow", "scikit-learn", "torch")


def train_zoo(
    spec: ZooSpec | InrSpec,
    trainer: Trainer | SirenTrainer,
    out: Place,
    load: Callable[[], Images],
    machine: Machine,
    plan: Callable[[], Sequence[int]],
) -> None:
    """Train what is missing of a zoo, which is made if it is not there, and say how far it is.

    Args:
        load: gives its images.
        plan: gives the cost of every chunk, in any unit; refuses what cannot be trained.
    """
    if trainer.device == "cuda" and not machine.gpus_per_task:
        raise ValueError(
            "trainer: device is cuda, and machine.gpus_per_task is 0, so that tasks would see no GPU; set it to 1, or "
            "to 0.25 for four tasks on each GPU"
        )
    check_reachable(out)
    if (out / "zoo.json").exists():
        trainer = continued(trainer, open_zoo(out).trainer)
        store = create_zoo(out, spec, trainer)
        sweep_zoo(store)
        if len(finished_chunks(store)) == spec.num_chunks:
            print(f"Nothing to do: all {spec.num_chunks} chunks of {out} are trained.")
            print("\n".join(summary(store)))
            return
    costs, images = plan(), load()
    with cluster(machine):  # what fails until here does so before the zoo is there
        store = create_zoo(out, spec, settled(trainer, spec, images, machine))
        sweep_zoo(store)
        train(store, missing_chunks(store, costs), images, machine)
        sweep_zoo(store)
    print("\n".join(summary(store)))


def continued(trainer: Trainer | SirenTrainer, recorded: Trainer | SirenTrainer) -> Trainer | SirenTrainer:
    """The trainer for a zoo that was begun: where the size of stacks is left open, it is the recorded one."""
    return recorded if replace(recorded, stack=None) == trainer else trainer


def settled(
    trainer: Trainer | SirenTrainer, spec: ZooSpec | InrSpec, images: Images, machine: Machine
) -> Trainer | SirenTrainer:
    """The trainer with its size of stacks, where that is left open: a constant, or what a GPU of the cluster holds."""
    if trainer.device == "cpu" or trainer.stack is not None:
        return trainer.settled
    shared = (spec, trainer, images, machine.gpus_per_task)
    [(_, stack)] = run_tasks(try_stacks, [spec.name], shared, machine, noun="trying stacks of zoo")
    return replace(trainer, stack=stack)


def try_stacks(_: str, spec: ZooSpec | InrSpec, trainer: Trainer | SirenTrainer, images: Images, share: float) -> int:
    """Runs that fit into the memory of a GPU. This is the task."""
    check_device(trainer.device)
    return measured_stack(spec, trainer, images, share)


def missing_chunks(store: Zoo, costs: Sequence[int]) -> list[int]:
    """The chunks that are not trained yet, the longest first: a long one that starts last would be waited for."""
    missing = sorted(set(range(store.spec.num_chunks)) - set(finished_chunks(store)))
    return sorted(missing, key=lambda index: -costs[index])


def train(store: Zoo, chunks: Sequence[int], images: Images, machine: Machine) -> None:
    """Train chunks on the connected cluster, with a progress bar in models."""
    if is_local(store.path):
        store = replace(store, path=store.path.resolve())  # a task's working directory is its own
    num_left = sum(len(store.spec.chunk(index)) for index in chunks)
    num_runs = store.spec.num_runs
    with progress_bar("training", "models", num_runs, initial=num_runs - num_left) as bar:
        for _, num_models in run_tasks(train_and_write, chunks, (store, images), machine, noun="chunk"):
            bar.update(num_models)


def train_and_write(index: int, store: Zoo, images: Images) -> int:
    """Train a chunk and write it; returns the number of its runs. This is the task."""
    started, cpu_started = time.perf_counter(), time.process_time()
    checkpoints = train_chunk(store, index, images)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    write_chunk(store, index, checkpoints)
    log(store, index, checkpoints, seconds=seconds, cpu_seconds=cpu_seconds)
    return len(store.spec.chunk(index))


def train_chunk(store: Zoo, index: int, images: Images) -> Sequence[Checkpoint] | Sequence[FittedNetwork]:
    """Train the runs of a chunk, as the zoo's trainer does."""
    match store.spec, store.trainer:
        case ZooSpec() as spec, Trainer() as trainer:
            return trainer.train([resolve(spec, run_index) for run_index in spec.chunk(index)], images)
        case InrSpec() as spec, SirenTrainer() as trainer:
            return trainer.train([resolve_inr(spec, run_index) for run_index in spec.chunk(index)], images)
    raise TypeError(f"{store.path}: a {type(store.spec).__name__} is not trained by a {type(store.trainer).__name__}")


def log(
    store: Zoo,
    index: int,
    checkpoints: Sequence[Checkpoint] | Sequence[FittedNetwork],
    *,
    seconds: float,
    cpu_seconds: float,
) -> None:
    """Note when, where and how fast a chunk was trained."""
    last = {checkpoint.run.run_id: checkpoint for checkpoint in checkpoints}
    line = {
        "chunk": index,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "runs": len(last),
        "cpu_seconds": round(cpu_seconds, 3),
        "steps": sum(checkpoint.step for checkpoint in last.values()),
        "diverged": len({checkpoint.run.run_id for checkpoint in checkpoints if checkpoint.status == "diverged"}),
        "commit": commit(),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "packages": {package: version(package) for package in LOGGED_PACKAGES},
    }
    path, text = store.log_path(index), json.dumps(line) + "\n"
    if not is_local(path):  # nothing can be added to an object
        path.with_name(f"{path.stem}-{line['host']}-{line['process']}-{time.time_ns()}.jsonl").write_bytes(
            text.encode()
        )
        return
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(text)


def commit() -> str | None:
    """The commit of this code, where it is a checkout."""
    here = Path(__file__).parent
    if shutil.which("git") is None:
        return None
    answer = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else None
