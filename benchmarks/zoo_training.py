"""How fast zoos are trained, planned and resumed.

    python -m benchmarks.zoo_training [--quick]

Five measurements: (1) runs of one architecture trained one after another and in stacks of K, on one thread; (2) what a
task of Ray costs beside its work; (3) a process for each network, as users of one trial per network have it, against
one process for several; (4) planning a specification of many runs; (5) finding the finished chunks of a zoo. What
stands side by side runs in turn. Prints tables, and writes medians as JSON to benchmarks/results/, if quick only where
``--out`` says.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.measuring import MB, Row, circumstances, in_child, interleaved, resident, show
from pipeline.cluster import Machine, cluster, run_tasks
from pipeline.distributions import Choice, Distribution
from pipeline.families import FamilySpec
from pipeline.images import Images, ImageSpec, load_images
from pipeline.trainers import Trainer
from pipeline.zoo import Hyperparameters, ZooSpec, expand, plan
from pipeline.zoo_store import create_zoo, finished_chunks

STACKS = (1, 2, 4, 8, 16)
RESULTS = Path(__file__).parent / "results"


def one(value: object) -> Choice:
    """A choice of one."""
    return Choice(choice=(value,))


FAMILIES = {
    "small_cnn": FamilySpec(family="small_cnn", activation=one("relu")),
    "varying_cnn": FamilySpec(
        family="varying_cnn",
        activation=one("relu"),
        width=one(16),
        depth=one(3),
        kernel_size=one(3),
        stride=one(2),
        norm=one("batch"),
        pooling=one("mean"),
        num_linear=one(1),
    ),
    "mlp": FamilySpec(family="mlp", activation=one("relu"), width=one(32), depth=one(2), pool=one(2)),
}


def spec(family: str, **changes: int) -> ZooSpec:
    """Runs of one architecture that differ in learning rates and seeds, on digits of 28x28 pixels."""
    whole = ZooSpec(
        name="benchmark",
        images=ImageSpec(name="digits", size=28, num_train=1024, num_test=64),
        architecture=FAMILIES[family],
        hyperparameters=Hyperparameters(
            optimizer=one("sgd"),
            learning_rate=Distribution(log_uniform=(1e-3, 1e-2)),
            momentum=Distribution(choice=(0.9,)),
            l2=Distribution(choice=(1e-4,)),
            dropout=Distribution(choice=(0.0,)),
            initialisation=one("he"),
            init_std=Distribution(choice=(0.1,)),
            train_fraction=Distribution(choice=(1.0,)),
        ),
        num_runs=16,
        seed=0,
        epochs=4,
        batch_size=128,
        checkpoint_epochs=(4,),
        runs_per_chunk=16,
    )
    return replace(whole, **changes)


def main() -> None:
    """Run all, print their tables, write their rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo_training")
    parser.add_argument("--out", type=Path, help="the JSON; <date>-zoo-training.json in benchmarks/results")
    parser.add_argument("--quick", action="store_true", help="to see that it works; figures mean little")
    arguments = parser.parse_args()
    rounds, epochs, planned, chunks = (1, 1, 1000, 100) if arguments.quick else (3, 4, 1_000_000, 10_000)
    result: Row = {"benchmark": "zoo_training", "quick": arguments.quick, **circumstances()}
    print(f"{result['processor']}, {result['cores']} cores, load {result['load']}, torch {result['torch']}")
    for name, title, measured in (
        ("stacks", "Training: images a second on one thread", partial(in_child, partial(stacks, rounds, epochs))),
        ("tasks", "A task of Ray", partial(tasks, 20 if arguments.quick else 500)),
        ("processes", "A process for each network", partial(processes, rounds)),
        ("planning", f"Planning {planned:,} runs", partial(in_child, partial(planning, planned))),
        ("resuming", f"Finding {chunks:,} finished chunks", partial(resuming, chunks)),
    ):
        result[name] = measured()
        show(title, result[name])
    out = arguments.out or (None if arguments.quick else RESULTS / f"{result['date'][:10]}-zoo-training.json")
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"\nwritten to {out}")


def stacks(rounds: int, epochs: int) -> list[Row]:
    """The same runs by the loop and in stacks; a run is looked at once, at its end, in all of them."""
    rows: list[Row] = []
    for family in FAMILIES:
        zoo = spec(family, epochs=epochs)
        zoo = replace(zoo, checkpoint_epochs=(epochs,))
        images, runs = load_images(zoo.images), expand(zoo)
        trainers = {"loop": Trainer(), **{f"stacks of {size}": Trainer(name="stacked", stack=size) for size in STACKS}}
        steps: list[Callable[[], object]] = [partial(each.train, runs, images) for each in trainers.values()]
        seconds = dict(zip(trainers, interleaved(steps, rounds), strict=True))
        trained = sum(run.num_steps * run.config.batch_size for run in runs)
        for name, times in seconds.items():
            ratios = [loop / own for loop, own in zip(seconds["loop"], times, strict=True)]
            row: Row = {"family": family, "trainer": name, "images/s": round(trained / statistics.median(times))}
            rows.append(row | {"times the loop": round(statistics.median(ratios), 2)})
    return rows


def nothing(item: int, images: Images) -> int:
    """What a task does that does nothing."""
    return item + len(images.test_labels)


def tasks(count: int) -> list[Row]:
    """Empty tasks, handed over and awaited as those of chunks are; the first waits for a process to start."""
    images = load_images(spec("small_cnn").images)
    with cluster():
        for _ in run_tasks(nothing, range(2), (images,), Machine(), noun="item"):
            pass
        started = time.perf_counter()
        for _ in run_tasks(nothing, range(count), (images,), Machine(), noun="item"):
            pass
        seconds = time.perf_counter() - started
    return [{"what": "an empty task", "milliseconds": round(seconds / count * 1e3, 2)}]


def processes(rounds: int) -> list[Row]:
    """Four networks: a fresh process for each, and one process for all; with the imports they need."""
    commands = {
        "a process each": [[number] for number in range(4)],
        "one process": [[0, 1, 2, 3]],
    }
    seconds = dict(
        zip(
            commands, interleaved([partial(trained_apart, groups) for groups in commands.values()], rounds), strict=True
        )
    )
    return [
        {"way": way, "seconds for 4": round(statistics.median(times), 2)} | ({"ratio": ratio_to_last(seconds, way)})
        for way, times in seconds.items()
    ]


def ratio_to_last(seconds: dict[str, list[float]], way: str) -> float:
    """The median of the ratios to the last way."""
    last = list(seconds.values())[-1]
    return round(statistics.median(own / other for own, other in zip(seconds[way], last, strict=True)), 2)


def trained_apart(groups: list[list[int]]) -> None:
    """Train the runs of each group in a process of its own, one process after another."""
    code = (
        "import sys; from benchmarks.zoo_training import spec; from pipeline.zoo import resolve; "
        "from pipeline.images import load_images; from pipeline.trainers import Trainer; zoo = spec('small_cnn'); "
        "Trainer().train([resolve(zoo, int(number)) for number in sys.argv[1:]], load_images(zoo.images))"
    )
    for group in groups:
        command = [sys.executable, "-W", "ignore", "-c", code, *map(str, group)]
        subprocess.run(command, check=True, cwd=Path(__file__).parents[1], env={**os.environ, "OMP_NUM_THREADS": "1"})


def planning(num_runs: int) -> list[Row]:
    """Every run of a large specification resolved, as the job does before it starts."""
    plan(spec("varying_cnn"))
    gc.collect()
    before, started = resident(), time.perf_counter()
    planned = plan(spec("varying_cnn", num_runs=num_runs))
    seconds = time.perf_counter() - started
    return [
        {
            "runs": len(planned.num_steps),
            "seconds": round(seconds, 2),
            "microseconds a run": round(seconds / num_runs * 1e6, 1),
            "MB": round((resident() - before) / MB, 1),
        }
    ]


def resuming(count: int) -> list[Row]:
    """The listing of a zoo with so many finished chunks."""
    with tempfile.TemporaryDirectory() as folder:
        zoo = create_zoo(Path(folder, "zoo"), spec("small_cnn", num_runs=count, runs_per_chunk=1))
        for index in range(count):
            zoo.chunk_path(index).mkdir(parents=True)
        started = time.perf_counter()
        found = finished_chunks(zoo)
        seconds = time.perf_counter() - started
    return [{"chunks": len(found), "milliseconds": round(seconds * 1e3, 1)}]


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
