"""Train a zoo: a Ray job of one task per chunk; and say how far it is.

    python -m pipeline zoo --config configs/zoo/digits.yaml --out runs/digits/zoo
    python -m pipeline status runs/digits/zoo

Reads   a specification, and its images
Writes  the zoo's chunks (pipeline.zoo_store)

What is to be done is the plan minus the finished chunks, so the command may be repeated after any failure; on a
finished zoo it says so and starts nothing. On several machines the zoo's folder must be one that all of them see.
"""

import json
import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.cluster import Machine, cluster, run_tasks
from pipeline.images import Images, load_images
from pipeline.loop_trainer import Checkpoint
from pipeline.progress import progress_bar
from pipeline.trainers import Trainer
from pipeline.zoo import Plan, ZooSpec, plan, resolve
from pipeline.zoo_estimate import dry_run_lines, estimate
from pipeline.zoo_store import Zoo, create_zoo, finished_chunks, open_zoo, read_rows, sweep_zoo, write_chunk

LOGGED_PACKAGES = ("numpy", "pyarrow", "scikit-learn", "torch")


def zoo(
    spec: ZooSpec,
    out: Path,
    images_folder: Path | None = None,
    trainer: Trainer = Trainer(),
    machine: Machine = Machine(),
    dry_run: bool = False,
) -> None:
    """Train the runs of a zoo that are not trained yet.

    Args:
        spec: what the zoo is.
        out: its folder; made if it is not there, continued if it is.
        images_folder: where the files of the image data set lie, compressed or not; downloaded once if not given.
        trainer: how the runs of a chunk are trained.
        machine: what the job asks of the machines it runs on.
        dry_run: say what would be trained and what it would take, from some steps of some runs; write nothing.
    """
    trainer.check(resolve(spec, 0).architecture)  # all runs of a zoo are of one family
    planned = plan(spec)
    load = partial(load_images, spec.images, images_folder)
    if dry_run:
        images = load()
        print("\n".join(dry_run_lines(spec, planned, estimate(spec, planned, images, trainer))))
        return
    images = None if (out / "zoo.json").exists() else load()  # what fails does so before the zoo is there
    store = create_zoo(out, spec, trainer)
    sweep_zoo(store)
    missing = missing_chunks(store, planned)
    if missing:
        train(store, missing, images or load(), machine)
        sweep_zoo(store)
    else:
        print(f"Nothing to do: all {spec.num_chunks} chunks of {out} are trained.")
    print("\n".join(summary(store)))


def status(path: Path) -> None:
    """Say how far a zoo is, from what is on disk; it may be training at the time.

    Args:
        path: the zoo's folder.
    """
    print("\n".join(summary(open_zoo(path))))


def missing_chunks(store: Zoo, planned: Plan) -> list[int]:
    """The chunks that are not trained yet, the longest first: a long one that starts last would be waited for."""
    finished = set(finished_chunks(store))
    num_steps = {
        index: int(planned.num_steps[store.spec.chunk(index)].sum())
        for index in range(store.spec.num_chunks)
        if index not in finished
    }
    return sorted(num_steps, key=lambda index: (-num_steps[index], index))


def train(store: Zoo, chunks: Sequence[int], images: Images, machine: Machine) -> None:
    """Train chunks on the cluster, with a progress bar in models."""
    store = replace(store, path=store.path.resolve())  # a task's working directory is its own
    num_left = sum(len(store.spec.chunk(index)) for index in chunks)
    num_runs = store.spec.num_runs
    with cluster(machine), progress_bar("training", "models", num_runs, initial=num_runs - num_left) as bar:
        for _, num_models in run_tasks(train_and_write, chunks, (store, images), machine, noun="chunk"):
            bar.update(num_models)


def train_and_write(index: int, store: Zoo, images: Images) -> int:
    """Train a chunk and write it; returns the number of its runs. This is the task."""
    runs = [resolve(store.spec, run_index) for run_index in store.spec.chunk(index)]
    started, cpu_started = time.perf_counter(), time.process_time()
    checkpoints = store.trainer.train(runs, images)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    write_chunk(store, index, checkpoints)
    log(store, index, checkpoints, seconds=seconds, cpu_seconds=cpu_seconds)
    return len(runs)


def log(store: Zoo, index: int, checkpoints: Sequence[Checkpoint], *, seconds: float, cpu_seconds: float) -> None:
    """Note when, where and how fast a chunk was trained."""
    runs = {checkpoint.run.run_id: checkpoint.run for checkpoint in checkpoints}
    line = {
        "chunk": index,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "runs": len(runs),
        "cpu_seconds": round(cpu_seconds, 3),
        "steps": sum(run.num_steps for run in runs.values()),
        "diverged": len({checkpoint.run.run_id for checkpoint in checkpoints if checkpoint.status == "diverged"}),
        "commit": commit(),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "packages": {package: version(package) for package in LOGGED_PACKAGES},
    }
    path = store.log_path(index)
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def commit() -> str | None:
    """The commit of this code, where it is a checkout."""
    here = Path(__file__).parent
    if shutil.which("git") is None:
        return None
    answer = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else None


def summary(store: Zoo) -> list[str]:
    """How far a zoo is and how well its networks do, a line each; reads a few columns of every chunk."""
    spec, finished = store.spec, finished_chunks(store)
    num_runs = sum(len(spec.chunk(index)) for index in finished)
    num_bytes = sum(file.stat().st_size for index in finished for file in store.chunk_path(index).iterdir())
    lines = [
        f"Zoo {spec.name!r} in {store.path}",
        f"  chunks          {len(finished)} of {spec.num_chunks}, {num_bytes / 1e6:.1f} MB",
        f"  runs            {num_runs} of {spec.num_runs}, {len(spec.checkpoint_epochs)} checkpoints each",
    ]
    if not finished:
        return lines
    rows = pa.concat_tables(
        read_rows(store, index, ["run_index", "checkpoint", "status", "test_accuracy"]) for index in finished
    )
    diverged = rows["status"].to_numpy() == "diverged"
    num_diverged = len(np.unique(rows["run_index"].to_numpy()[diverged]))
    is_last = rows["checkpoint"].to_numpy() == len(spec.checkpoint_epochs) - 1
    accuracy = rows["test_accuracy"].to_numpy()[is_last & ~diverged]
    lines.append(f"  diverged        {num_diverged} {'run' if num_diverged == 1 else 'runs'}")
    if len(accuracy):
        low, median, high = np.percentile(accuracy, [5, 50, 95])
        percentiles = f"5th to 95th percentile {low:.3f} to {high:.3f}"
        lines.append(f"  final accuracy  median {median:.3f}, {percentiles} (test)")
    else:
        lines.append("  final accuracy  none: every run diverged; lower the learning rates")
    return lines
