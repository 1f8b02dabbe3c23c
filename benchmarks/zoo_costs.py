"""What each zoo of configs/ would take: the table of docs/zoos.md, from trying some runs of each for some steps.

    python -m benchmarks.zoo_costs [--quick]

Some minutes. Images are made up here, at the right size and number, since what they show changes no cost but that of
implicit networks, which stop early on real ones: theirs is the cost of as many steps as they may take.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import yaml

from benchmarks.measuring import circumstances
from pipeline import inr_estimate, zoo_estimate
from pipeline.images import Images, ImageSpec
from pipeline.inr_zoo import InrSpec
from pipeline.specifications import parse_as
from pipeline.trainers import SirenTrainer, Trainer
from pipeline.zoo import ZooSpec, plan
from pipeline.zoo_estimate import duration

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "zoos.md"
SIZES = ("tiny", "local", "cluster")
BEGIN, END = "<!-- costs -->\n", "<!-- end of costs -->\n"
TRIED_STEPS = 50
"""Of implicit networks."""


def main() -> None:
    """Estimate all, and replace the table in the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo_costs")
    parser.add_argument("--quick", action="store_true", help="the smallest zoos only; prints, and writes nothing")
    quick = parser.parse_args().quick
    table = "\n".join(lines(SIZES[:1] if quick else SIZES)) + "\n"
    print(table)
    if not quick:
        text = PAGE.read_text()
        before, after = text[: text.index(BEGIN)], text[text.index(END) :]
        PAGE.write_text(before + BEGIN + table + after)


def lines(sizes: tuple[str, ...]) -> Iterator[str]:
    """The table, and what it was measured on."""
    found = circumstances()
    yield f"| zoo | {' | '.join(f'`{size}`' for size in sizes)} |"
    yield f"|---|{'---|' * len(sizes)}"
    for family in sorted((ROOT / "configs" / "zoo" / "family").glob("*.yaml")):
        yield f"| `{family.stem}` | {' | '.join(classifiers(family, size) for size in sizes)} |"
    yield f"| implicit networks | {' | '.join(implicit(size) for size in sizes)} |"
    yield ""
    yield (
        "Processor time and disk, estimated within a factor of two by `python -m benchmarks.zoo_costs` on one core of\n"
        f"{found['processor']}, torch {found['torch']}, {found['date'][:10]}."
    )


def specification(*files: Path) -> dict:
    """The specification that files make together."""
    merged: dict = {}
    for file in files:
        merged |= yaml.safe_load(file.read_text())["spec"]
    return merged


def classifiers(family: Path, size: str) -> str:
    """A cell: what a zoo of this family and size takes."""
    spec = parse_as(ZooSpec, specification(family, ROOT / "configs" / "zoo" / "size" / f"{size}.yaml"))
    found = zoo_estimate.estimate(spec, plan(spec), made_up(spec.images), Trainer())
    return f"{spec.num_runs:,} runs, {duration(found.seconds)}, {storage(found.num_bytes)}"


def implicit(size: str) -> str:
    """A cell: what a zoo of implicit networks of this size takes at most."""
    spec = parse_as(InrSpec, specification(ROOT / "configs" / "inr" / f"{size}.yaml"))
    short = replace(spec, most_steps=TRIED_STEPS)
    found = inr_estimate.estimate(short, made_up(spec.images), SirenTrainer().settled)
    seconds = found.seconds * spec.most_steps / TRIED_STEPS
    return f"{spec.num_runs:,} runs, at most {duration(seconds)}, {storage(found.num_bytes)}"


def made_up(spec: ImageSpec) -> Images:
    """Noise, as many images as the specification has."""
    generator = np.random.default_rng(0)
    numbers = (spec.num_train_images, spec.num_test_images)
    images = [generator.uniform(-1, 1, (number, *spec.shape)).astype(np.float32) for number in numbers]
    labels = [generator.integers(spec.num_classes, size=number) for number in numbers]
    return Images(
        train_images=images[0],
        train_labels=labels[0],
        test_images=images[1],
        test_labels=labels[1],
        num_classes=spec.num_classes,
    )


def storage(num_bytes: int) -> str:
    """In the unit that fits."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
