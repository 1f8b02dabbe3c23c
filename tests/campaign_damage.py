"""Random damage to a dataset of networks that were really trained: ``verify`` finds it, and readers refuse it or give
what they gave before, whatever it is.

    make campaign                            500 damages, some minutes; writes docs/campaigns/dataset-damage.md
    PYTHONPATH=. python tests/campaign_damage.py --damages 50 --seed 7 --out /tmp/damage.md

Reads   nothing: the dataset is made anew
Writes  the page, and a dataset and its copies in a temporary folder

Each damage (tests/random_damage.py) is done to a copy, which is verified and read to the end in a process of its own,
with a limit of memory and time: what it may take, a crash included, is part of the result.
"""

import argparse
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from pipeline import build_graphs
from pipeline.checked_files import read_manifest
from pipeline.distributions import Choice
from pipeline.families import FamilySpec
from pipeline.graph_plan import DatasetSpec
from pipeline.graph_sources import Selection
from pipeline.images import ImageSpec, load_images
from pipeline.split_rules import Condition, SplitRule
from pipeline.verify_graphs import verify
from pipeline.zoo import ZooSpec
from pipeline.zoo_job import train_and_write
from pipeline.zoo_store import create_zoo
from random_damage import KINDS, Kind, Outcome, Reading, draw, judge, read_everything
from tiny_dataset import NUM_VALUES, in_this_process
from tiny_zoo import tiny_spec

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "campaigns" / "dataset-damage.md"
MEMORY = 4 * 2**30
"""Bytes of address space that a process may take besides what it has when it starts."""
SECONDS = 180
"""After which one is ended; it takes about one."""
AT_A_TIME = 2
LINE_EVERY = 25
SPEC = DatasetSpec(
    floats_per_part=3 * NUM_VALUES,
    further_splits={"split_tanh": SplitRule(test=Condition(column="config.activation", among=["tanh"]))},
)
SMALL_CNNS = tiny_spec(num_runs=7, checkpoint_epochs=(0, 1, 2))
MLPS = tiny_spec(
    name="mlps",
    num_runs=5,
    images=ImageSpec(name="digits", size=16, num_train=101),
    architecture=FamilySpec(
        family="mlp",
        activation=Choice(choice=("relu", "tanh")),
        width=Choice(choice=(3, 5)),
        depth=Choice(choice=(1, 2)),
        pool=Choice(choice=(4,)),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One damage and what came of it."""

    kind: str
    what: str
    outcome: Outcome


@dataclass(frozen=True, kw_only=True)
class Running:
    """A damage that is being looked at."""

    number: int
    kind: str
    process: BaseProcess
    answer: Connection


def main() -> None:
    """Run the campaign and write its page."""
    parser = argparse.ArgumentParser(prog="python tests/campaign_damage.py")
    parser.add_argument("--damages", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=PAGE)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="damage-") as folder:
        made = FORK.Process(target=quietly_make, args=(Path(folder),))
        made.start()  # elsewhere, so that this process has no threads when it forks
        made.join()
        assert made.exitcode == 0, "the dataset could not be made"
        trials = run_trials(Path(folder) / "graphs.zarr", Path(folder), arguments.damages, arguments.seed)
        described = description(Path(folder) / "graphs.zarr")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(page(trials, arguments.seed, described), encoding="utf-8")
    bad = [trial for trial in trials if trial.outcome.problem]
    print(f"{len(trials)} damages, {len(bad)} with a problem; written to {arguments.out}")
    raise SystemExit(1 if bad else 0)


FORK = multiprocessing.get_context("fork")


def quietly_make(folder: Path) -> None:
    """`make_dataset`, whose progress nobody needs."""
    say_nothing()
    make_dataset(folder)


def make_dataset(folder: Path) -> Path:
    """Train two zoos of different families, make a dataset of one and append the other: two additions, several tables,
    each with parts, templates that come late, graphs left out, and a split out of distribution."""
    for spec in (SMALL_CNNS, MLPS):
        train(folder / spec.name, spec)
    with pytest.MonkeyPatch.context() as monkeypatch:
        in_this_process(monkeypatch)
        out = folder / "graphs.zarr"
        build_graphs.graphs(folder / SMALL_CNNS.name, out, SPEC, Selection(epochs=[1, 2]))
        build_graphs.append(out, folder / MLPS.name, Selection(last=True))
    verify(out)
    return out


def train(path: Path, spec: ZooSpec) -> None:
    """A zoo, chunk by chunk in this process."""
    store, images = create_zoo(path, spec), load_images(spec.images)
    for index in range(spec.num_chunks):
        train_and_write(index, store, images)


def description(dataset: Path) -> str:
    """What the dataset has."""
    manifest = read_manifest(dataset)
    return (
        f"{manifest.num_graphs} graphs in {len(manifest.parts)} parts, {len(manifest.tables)} tables and "
        f"{len(manifest.additions)} additions; {manifest.num_left_out} left out; {len(manifest.files) + 1} files"
    )


def run_trials(dataset: Path, folder: Path, count: int, seed: int) -> list[Trial]:
    """Damages of all kinds in turn, each in a process of its own, some at a time; in their order."""
    sound_answer, answer = FORK.Pipe(duplex=False)
    reader = FORK.Process(target=read_sound, args=(dataset, answer))
    reader.start()
    answer.close()
    sound: Reading = sound_answer.recv()
    reader.join()
    assert not sound.errors, sound.errors
    names = kinds_in_turn(count, seed)
    running: list[Running] = []
    trials: dict[int, Trial] = {}
    waiting = list(enumerate(names))
    while waiting or running:
        while waiting and len(running) < AT_A_TIME:
            number, name = waiting.pop(0)
            running.append(start(number, name, dataset, folder / f"copy-{number}", sound, seed))
        done = wait([trial.process.sentinel for trial in running])
        for trial in [trial for trial in running if trial.process.sentinel in done]:
            running.remove(trial)
            trials[trial.number] = result(trial)
            say(trials, trial.number, count)
    return [trials[number] for number in range(count)]


def kinds_in_turn(count: int, seed: int) -> list[str]:
    """Every kind about as often as every other, shuffled."""
    names = [name for _, name in zip(range(count), list(KINDS) * (count // len(KINDS) + 1), strict=False)]
    random.Random(f"{seed}/kinds").shuffle(names)
    return names


def say(trials: dict[int, Trial], number: int, count: int) -> None:
    """A line for a problem, and one every some damages."""
    trial = trials[number]
    if trial.outcome.problem:
        print(f"{number:>4}  {trial.kind}: {trial.what}: {trial.outcome.problem}", flush=True)
    if len(trials) % LINE_EVERY == 0 or len(trials) == count:
        found = sum(trial.outcome.found for trial in trials.values())
        print(f"{len(trials):>4} of {count} damages, {found} found by verify", flush=True)


def read_sound(dataset: Path, answer: Connection) -> None:
    """Send what is read of the dataset before anything is done to it."""
    answer.send(read_everything(dataset))


def start(number: int, kind: str, dataset: Path, copy: Path, sound: Reading, seed: int) -> Running:
    """Begin with a damage; each has random numbers of its own."""
    here, there = FORK.Pipe(duplex=False)
    rng = random.Random(f"{seed}/{number}")
    process = FORK.Process(target=look, args=(KINDS[kind], dataset, copy, rng, sound, there))
    process.start()
    there.close()
    return Running(number=number, kind=kind, process=process, answer=here)


def look(kind: Kind, dataset: Path, copy: Path, rng: random.Random, sound: Reading, answer: Connection) -> None:
    """Damage a copy, say what was done, judge it within the limits, and say what came of it."""
    say_nothing()
    what = draw(kind, dataset, copy, rng)
    answer.send(what)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    signal.alarm(SECONDS)  # which ends this process
    answer.send(judge(kind, copy, sound))


def say_nothing() -> None:
    """Send what is printed, by libraries in C too, nowhere."""
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
        os.dup2(nowhere.fileno(), sys.stderr.fileno())


def result(running: Running) -> Trial:
    """What a process that has ended says, or that it did not come to say it."""
    running.process.join()
    what, outcome = "", None
    with suppress(EOFError):
        what = running.answer.recv()
        outcome = running.answer.recv()
    running.answer.close()
    if outcome is None:
        code = running.process.exitcode
        how = f"not done after {SECONDS} s" if code == -signal.SIGALRM else f"the process ended with {code}"
        outcome = Outcome(found=False, reader="otherwise", problem=how)
    return Trial(kind=running.kind, what=what, outcome=outcome)


def page(trials: Sequence[Trial], seed: int, dataset: str) -> str:
    """The results, in Markdown."""
    bad = [trial for trial in trials if trial.outcome.problem]
    lines = [
        "# Damage to a dataset\n",
        f"Written by `make campaign` (seed {seed}): {len(trials)} damages, {len(bad)} with a problem. The dataset is",
        f"of trained networks of two families: {dataset}.",
        "Each damage is done to a copy, which is verified and read to the end in a process of its own, with 4 GiB of",
        "memory.\n",
        "`verify` must find what breaks a law. A reader raises an error of one line, or gives what it gave before; but",
        "where all digests were mended after the damage (forged data), it may give what was forged.\n",
    ]
    sorts = {
        "Files alone": [name for name, kind in KINDS.items() if not kind.mended],
        "Digests mended, a law broken": [name for name, kind in KINDS.items() if kind.mended and kind.broken],
        "Digests mended, perhaps lawful": [name for name, kind in KINDS.items() if not kind.broken],
    }
    for sort, names in sorts.items():
        lines += [
            f"## {sort}\n",
            "| damage | number | found by verify | refused by the reader | read as before | read changed | problems |",
            "|---|---|---|---|---|---|---|",
            *(row(name, [trial for trial in trials if trial.kind == name]) for name in names),
            row("**all**", [trial for trial in trials if trial.kind in names]),
            "",
        ]
    if bad:
        lines += ["## Problems\n"]
        lines += [f"- {trial.kind}, `{trial.what}`: `{trial.outcome.problem:.500}`" for trial in bad]
    return "\n".join(lines).rstrip() + "\n"


def row(name: str, trials: Sequence[Trial]) -> str:
    """A line of the table."""
    readers = [trial.outcome.reader for trial in trials]
    numbers = [
        len(trials),
        sum(trial.outcome.found for trial in trials),
        *(readers.count(reader) for reader in ("refused", "the same", "otherwise")),
        sum(bool(trial.outcome.problem) for trial in trials),
    ]
    return f"| {name} | {' | '.join(map(str, numbers))} |"


if __name__ == "__main__":
    main()
