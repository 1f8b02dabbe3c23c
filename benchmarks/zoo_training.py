"""How fast zoos are trained, planned and resumed.

    python -m benchmarks.zoo_training [--quick]

Six measurements: (1) runs of one architecture trained one after another and in stacks of K, on one thread; (2)
implicit networks fitted with torch's own layers and optimizer, and in stacks; (3) what a task of Ray costs beside its
work; (4) a process for each network, as users of one trial per network have it, against one process for several; (5)
planning a specification of many runs; (6) finding the finished chunks of a zoo. What stands side by side runs in turn.
Prints tables, and writes medians as JSON to benchmarks/results/, if quick only where ``--out`` says.
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
from functools import partial
from pathlib import Path

import torch

from benchmarks.measuring import MB, Row, circumstances, in_child, interleaved, resident, show
from benchmarks.zoo_runs import FAMILIES, matmul_rate, one, spec, step_flops
from pipeline.cluster import Machine, cluster, run_tasks
from pipeline.distributions import Distribution
from pipeline.images import Images, ImageSpec, load_images
from pipeline.inr_zoo import InrRun, InrSpec, resolve_inr
from pipeline.siren import pixel_coordinates
from pipeline.siren_trainer import decibels, started
from pipeline.trainers import SirenTrainer, Trainer
from pipeline.zoo import expand, plan
from pipeline.zoo_store import create_zoo, finished_chunks

STACKS = (1, 2, 4, 8, 16)
SIRENS, SIREN_STEPS, SIREN_STACKS = 128, 20, (1, 8, 32, 128)
RESULTS = Path(__file__).parent / "results"


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
        ("sirens", "Implicit networks: steps of all networks a second", partial(in_child, partial(sirens, rounds))),
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
        images, runs = load_images(zoo.images), expand(zoo)
        trainers = {"loop": Trainer(), **{f"stacks of {size}": Trainer(name="stacked", stack=size) for size in STACKS}}
        steps: list[Callable[[], object]] = [partial(each.train, runs, images) for each in trainers.values()]
        seconds = dict(zip(trainers, interleaved(steps, rounds), strict=True))
        steps_of_all = sum(run.num_steps for run in runs)
        flops, rate = step_flops(runs[0], images), matmul_rate("cpu")
        for name, times in seconds.items():
            ratios = [loop / own for loop, own in zip(seconds["loop"], times, strict=True)]
            steps_a_second = steps_of_all / statistics.median(times)
            rows.append(
                {
                    "family": family,
                    "trainer": name,
                    "images/s": round(steps_a_second * zoo.batch_size),
                    "times the loop": round(statistics.median(ratios), 2),
                    "of matmul": f"{steps_a_second * flops / rate:.0%}",
                }
            )
    return rows


def sirens(rounds: int) -> list[Row]:
    """Steps on images of 28x28 pixels: each network by itself in plain PyTorch, and stacks of K."""
    zoo = InrSpec(
        name="benchmark",
        images=ImageSpec(name="digits", size=28, num_train=SIRENS, num_test=1),
        width=one(32),
        depth=one(2),
        omega=one(30.0),
        initialisation=one("independent"),
        learning_rate=Distribution(choice=(1e-3,)),
        psnr=Distribution(choice=(300.0,)),
        most_steps=SIREN_STEPS,
        seed=0,
        runs_per_chunk=SIRENS,
    )
    images, runs = load_images(zoo.images), [resolve_inr(zoo, index) for index in range(SIRENS)]
    ways: dict[str, Callable[[], object]] = {"torch, one by one": partial(fitted_by_torch, runs, images)}
    ways |= {f"stacks of {size}": partial(SirenTrainer(stack=size).train, runs, images) for size in SIREN_STACKS}
    seconds = dict(zip(ways, interleaved(list(ways.values()), rounds), strict=True))
    first = seconds["torch, one by one"]
    return [
        {
            "way": way,
            "steps/s": round(SIRENS * SIREN_STEPS / statistics.median(times)),
            "times torch": round(statistics.median(one / own for one, own in zip(first, times, strict=True)), 2),
        }
        for way, times in seconds.items()
    ]


def fitted_by_torch(runs: list[InrRun], images: Images) -> None:
    """What `pipeline.siren_trainer` does, as one would write it for one network."""
    coordinates = pixel_coordinates(28, 28)
    for run in runs:
        network, image = started(run), torch.tensor(images.train_images[run.image]).reshape(-1, 1)
        stepper = torch.optim.Adam(network.parameters(), lr=run.config.learning_rate)
        for _ in range(SIREN_STEPS):
            stepper.zero_grad()
            error = (network(coordinates) - image).square().mean()
            if decibels(error.detach()) >= run.config.psnr:
                break
            error.backward()
            stepper.step()


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
        "import sys; from benchmarks.zoo_runs import spec; from pipeline.zoo import resolve; "
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
