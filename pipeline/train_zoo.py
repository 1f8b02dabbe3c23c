"""Train a zoo: a Ray job of one task per chunk; and say how far it is.

    python -m pipeline zoo --config configs/zoo/digits.yaml --out runs/digits/zoo
    python -m pipeline status runs/digits/zoo

Reads   a specification, and its images
Writes  the zoo's chunks (pipeline.zoo_store)

What is to be done is the plan minus the finished chunks, so the command may be repeated after any failure; on a
finished zoo it says so and starts nothing. On several machines the zoo's folder must be one that all of them see.
"""

from functools import partial
from pathlib import Path

from pipeline.cluster import Machine
from pipeline.images import load_images
from pipeline.places import Place, place
from pipeline.trainers import Trainer
from pipeline.zoo import ZooSpec, plan, resolve
from pipeline.zoo_estimate import dry_run_lines, estimate
from pipeline.zoo_job import train_zoo
from pipeline.zoo_store import open_zoo
from pipeline.zoo_summary import summary


def zoo(
    spec: ZooSpec,
    out: str | Place,
    images_folder: Path | None = None,
    trainer: Trainer = Trainer(),
    machine: Machine = Machine(),
    dry_run: bool = False,
) -> None:
    """Train the runs of a zoo that are not trained yet.

    Args:
        spec: what the zoo is.
        out: its folder, or s3://bucket/folder; made if it is not there, continued if it is.
        images_folder: where the files of the image data set lie, compressed or not; downloaded once if not given.
        trainer: how the runs of a chunk are trained.
        machine: what the job asks of the machines it runs on.
        dry_run: say what would be trained and what it would take, from some steps of some runs; write nothing.
    """
    trainer.check(resolve(spec, 0).architecture)  # all runs of a zoo are of one family
    load = partial(load_images, spec.images, images_folder)
    if dry_run:
        images, planned = load(), plan(spec)
        print("\n".join(dry_run_lines(spec, planned, estimate(spec, planned, images, trainer.settled))))
        return
    train_zoo(spec, trainer, place(out), load, machine, lambda: plan(spec).chunk_steps(spec))


def status(path: str | Place) -> None:
    """Say how far a zoo is, from what is on disk; it may be training at the time.

    Args:
        path: the zoo's folder, or s3://bucket/folder.
    """
    print("\n".join(summary(open_zoo(place(path)))))
