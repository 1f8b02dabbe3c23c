"""Train a zoo of implicit networks, each of which is one image: a Ray job of one task per chunk.

    python -m pipeline inr --config configs/inr/tiny.yaml --out runs/inr/zoo
    python -m pipeline status runs/inr/zoo

Reads   a specification, and its images
Writes  the zoo's chunks (pipeline.zoo_store)

As with `python -m pipeline zoo`, the command may be repeated after any failure.
"""

from functools import partial
from pathlib import Path

from pipeline.cluster import Machine
from pipeline.images import load_images
from pipeline.inr_estimate import dry_run_lines, estimate
from pipeline.inr_zoo import InrSpec
from pipeline.places import Place, place
from pipeline.trainers import SirenTrainer
from pipeline.zoo_job import train_zoo


def inr(
    spec: InrSpec,
    out: str | Place,
    images_folder: Path | None = None,
    trainer: SirenTrainer = SirenTrainer(),
    machine: Machine = Machine(),
    dry_run: bool = False,
) -> None:
    """Fit the networks of a zoo of implicit networks that are not fitted yet.

    Args:
        spec: what the zoo is.
        out: its folder, or s3://bucket/folder; made if it is not there, continued if it is.
        images_folder: where the files of the image data set lie, compressed or not; downloaded once if not given.
        trainer: how the runs of a chunk are fitted.
        machine: what the job asks of the machines it runs on.
        dry_run: say what would be fitted and what it would take, from fitting a few; write nothing.
    """
    load = partial(load_images, spec.images, images_folder)
    if dry_run:
        print("\n".join(dry_run_lines(spec, estimate(spec, load(), trainer.settled))))
        return
    train_zoo(
        spec, trainer, place(out), load, machine, lambda: [len(spec.chunk(index)) for index in range(spec.num_chunks)]
    )
