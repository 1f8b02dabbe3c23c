"""How fast stacks of runs are trained on a GPU, against the loop on one thread of its machine's processor.

    python -m benchmarks.zoo_gpu [--quick]

Needs neither Ray nor zarr. Prints a table, and writes it as JSON to benchmarks/results/, if quick only where ``--out``
says; without a GPU it says so and measures nothing. Not run yet: no GPU has been at hand.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from benchmarks.measuring import GB, Row, circumstances, show
from benchmarks.zoo_runs import FAMILIES, matmul_rate, spec, step_flops
from pipeline.images import load_images
from pipeline.trainers import Trainer
from pipeline.zoo import expand

STACKS = (16, 64, 256, 1024)
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo_gpu")
    parser.add_argument("--out", type=Path, help="the JSON; <date>-zoo-gpu.json in benchmarks/results")
    parser.add_argument("--quick", action="store_true", help="to see that it works; figures mean little")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("No GPU here (torch.cuda.is_available() is false): nothing is measured.")
        return
    result: Row = {"benchmark": "zoo_gpu", **circumstances(), "gpu": torch.cuda.get_device_name()}
    result["matmul TFLOP/s"] = round(matmul_rate("cuda") / 1e12, 1)
    result["rows"] = [
        row
        for family in FAMILIES
        for row in measured(family, STACKS[:1] if arguments.quick else STACKS, 1 if arguments.quick else 3)
    ]
    show(f"Training on {result['gpu']}: images of all runs a second", result["rows"])
    out = arguments.out or (None if arguments.quick else RESULTS / f"{result['date'][:10]}-zoo-gpu.json")
    if out:
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"\nwritten to {out}")


def measured(family: str, sizes: tuple[int, ...], rounds: int) -> list[Row]:
    """The loop on the processor, then stacks on the GPU, each after a round that does not count."""
    zoo = spec(family, num_runs=max(sizes), runs_per_chunk=max(sizes))
    images, runs = load_images(zoo.images), expand(zoo)
    flops, rate = step_flops(runs[0], images), matmul_rate("cuda")
    rows: list[Row] = []
    for trainer in (Trainer(), *(Trainer(name="stacked", stack=size, device="cuda") for size in sizes)):
        some = runs[: trainer.stack or 2]
        torch.cuda.reset_peak_memory_stats()
        speeds: list[float] = []
        for number in range(rounds + 1):
            started = time.perf_counter()
            trainer.train(some, images)
            torch.cuda.synchronize()
            if number:
                steps = sum(run.num_steps for run in some)
                speeds.append(steps * zoo.batch_size / (time.perf_counter() - started))
        speed = statistics.median(speeds)
        rows.append(
            {
                "family": family,
                "trainer": "loop, 1 thread" if trainer.stack is None else f"stack of {trainer.stack}",
                "images/s": round(speed),
                "times the loop": 1.0 if not rows else round(speed / rows[0]["images/s"], 1),
                "of matmul": "" if not rows else f"{speed / zoo.batch_size * flops / rate:.1%}",
                "GB": round(torch.cuda.max_memory_allocated() / GB, 1),
            }
        )
    return rows


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
