"""Train the Fashion-MNIST zoo of docs/fashion_zoo.md, or what is missing of it, and write that page.

    python -m benchmarks.fashion_zoo [--images_folder DIR] [--out runs/fashion/zoo]

Two hours on two cores; stopped and started again it goes on. The page's numbers and its picture are the zoo's alone.
"""

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml
from scipy.stats import kendalltau

from pipeline.specifications import parse_as
from pipeline.train_zoo import zoo
from pipeline.zoo import ZooSpec
from pipeline.zoo_plots import plot_zoo, read_rows
from pipeline.zoo_store import Zoo, finished_chunks, open_zoo

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "zoo" / "fashion.yaml"
PAGE, PICTURE = ROOT / "docs" / "fashion_zoo.md", ROOT / "docs" / "images" / "fashion-zoo.png"
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def main() -> None:
    """Train, draw, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fashion_zoo")
    parser.add_argument("--images_folder", type=Path, help="where the files of Fashion-MNIST lie; else downloaded")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "fashion" / "zoo", help="the zoo's folder")
    arguments = parser.parse_args()
    spec = parse_as(ZooSpec, yaml.safe_load(CONFIG.read_text())["spec"])
    zoo(spec, arguments.out, arguments.images_folder)
    trained = open_zoo(arguments.out)
    plot_zoo(trained, PICTURE)
    PAGE.write_text("\n".join(page(trained)) + "\n")
    print(f"written to {PAGE}")


def page(trained: Zoo) -> Iterator[str]:
    """The page, line by line."""
    rows, halves = read_rows(trained)
    assert isinstance(trained.spec, ZooSpec)
    spec, accuracy = trained.spec, rows["test_accuracy"].to_numpy()
    num_diverged = len(set(rows.filter(pa.array(~np.isfinite(accuracy)))["run_index"].to_pylist()))
    yield f"""# A zoo on Fashion-MNIST

Written by `python -m benchmarks.fashion_zoo`, which trains `configs/zoo/fashion.yaml` first, or what is missing of it.
{spec.num_runs:,} networks of the Small CNN Zoo (4,970 parameters) on {spec.images.num_train_images:,} images of
Fashion-MNIST, tested on {spec.images.num_test_images:,}; {spec.epochs} epochs at most, checkpoints after
{", ".join(map(str, spec.checkpoint_epochs))}; {num_diverged} of the runs diverged.

![Learning curves, split halves, and accuracy by each hyperparameter](images/fashion-zoo.png)

## What it took

{took(trained)}

## Test accuracy

| epoch | {" | ".join(f"{quantile:.0%}" for quantile in QUANTILES)} | split halves |
|---|{"---|" * (len(QUANTILES) + 1)}"""
    number = rows["checkpoint"].to_numpy()
    for place, epoch in enumerate(spec.checkpoint_epochs):
        chosen = (number == place) & np.isfinite(accuracy)
        quantiles = " | ".join(f"{value:.3f}" for value in np.quantile(accuracy[chosen], QUANTILES))
        correlation = np.corrcoef(halves[0][chosen], halves[1][chosen])[0, 1]
        yield f"| {epoch} | {quantiles} | {correlation:.4f} |"
    yield """
Columns are quantiles over runs. *Split halves* is the correlation over runs between the accuracy on the even and on
the odd test images: what can be predicted at all.

## What goes with accuracy at the end

Kendall's tau over the runs in which the hyperparameter acts.

| hyperparameter | tau |
|---|---|"""
    last = rows.filter(pa.array((number == number.max()) & np.isfinite(accuracy)))
    for name in ("learning_rate", "l2", "dropout", "init_std", "train_fraction"):
        values = np.array([math.nan if value is None else value for value in last[f"config.{name}"].to_pylist()])
        acts = np.isfinite(values)
        tau, _ = kendalltau(values[acts], last["test_accuracy"].to_numpy()[acts])
        yield f"| `{name}` | {tau:+.2f} ({int(acts.sum()):,} runs) |"


def took(trained: Zoo) -> str:
    """A sentence from the zoo's log: the last line of each chunk."""
    logs = [trained.log_path(index).read_text().splitlines()[-1] for index in finished_chunks(trained)]
    lines = [json.loads(log) for log in logs]
    hours = sum(line["cpu_seconds"] for line in lines) / 3600
    size = sum(file.stat().st_size for file in (trained.path / "chunks").rglob("*") if file.is_file()) / 1e6
    commits = sorted({(line["commit"] or "an unknown commit")[:7] for line in lines})
    days = sorted({line["finished"][:10] for line in lines})
    return (
        f"{hours:.2f} core-hours of training and evaluating, the sum over `log/` ({lines[0]['machine']}, torch "
        f"{lines[0]['packages']['torch']}, {' to '.join(dict.fromkeys([days[0], days[-1]]))}, "
        f"at {', '.join(commits)});\n"
        f"{size:.1f} MB on disk."
    )


if __name__ == "__main__":
    main()
