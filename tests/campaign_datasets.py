"""Random kills while a dataset is made, or added to: run again, the same command gives the same bytes.

    make campaign                                50 kills, a quarter of an hour; writes docs/campaigns/dataset-kills.md
    PYTHONPATH=. python tests/campaign_datasets.py --kills 6 --seed 7 --out /tmp/kills.md

Reads   nothing: two zoos of random values are made anew
Writes  the page; zoos, datasets and Ray's files in a temporary folder

A trial makes a dataset (`python -m pipeline graphs`) or adds to one (`append`), each on a Ray cluster of its own. At
random moments the process group of the command is killed, or one of the cluster's workers, up to four times; a command
that was killed is run again until it ends well. Two thirds of the moments are drawn after the first part was recorded,
from the time that writing takes. The dataset must be the undisturbed one byte for byte, with nothing beside it; and
what is added to must be as it was, until it is replaced as a whole.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from typing import Literal

import psutil

from pipeline.checked_files import read_manifest
from pipeline.dataset_manifest import MANIFEST
from pipeline.distributions import Choice
from pipeline.families import FamilySpec
from pipeline.zoo import ZooSpec
from tiny_dataset import NUM_VALUES, content, write_zoo
from tiny_zoo import tiny_spec

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "campaigns" / "dataset-kills.md"
Command = Literal["graphs", "append"]
COMMANDS: tuple[Command, ...] = ("graphs", "append")
GRAPHS_PER_PART = 2
"""So few that there are hundreds of parts, which take seconds to write."""
MOST_KILLS = 4
"""Of one trial."""
TRIES = 12
"""Of a command, until it ends well."""
AT_A_TIME = 2
POLL_SECONDS = 0.01
SECONDS = 300
"""After which a command counts as hanging."""
LINGER_SECONDS = 30
"""That processes of a cluster may take to see that their command has ended."""
WRITING_SHARE = 2 / 3
"""Of the moments that are drawn after the first record."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What is made once, for all trials."""

    folder: Path
    zoos: dict[Command, Path]
    base: dict[str, bytes]
    """The dataset that is added to."""
    expected: dict[Command, dict[str, bytes]]
    """What comes out undisturbed."""
    num_parts: dict[Command, int]
    """That a command writes."""
    before: dict[Command, float]
    """Seconds from the start of a command to the first record of a part."""
    writing: dict[Command, float]
    """Seconds from there to the last record."""


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One kill, and what there was."""

    trial: int
    command: Command
    victim: str
    """The driver, a worker at work, or an idle one."""
    after: float
    """Seconds after the start of the command."""
    recorded: int
    """Parts that had a record at that moment: all of them where only tables or the manifest were left to be written."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A dataset that was written in spite of some kills."""

    number: int
    command: Command
    kills: list[Kill]
    starts: int
    problem: str
    """Empty if the dataset is the undisturbed one."""


@dataclass(kw_only=True)
class Job:
    """A command that is run again and again, and all processes it ever had."""

    arguments: list[str]
    out: Path
    log: Path
    starts: int = 0
    processes: list[psutil.Process] = field(default_factory=list)

    def start(self) -> subprocess.Popen[bytes]:
        """In a process group of its own, with a cluster of its own."""
        self.starts += 1
        with self.log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "pipeline", *self.arguments],
                cwd=ROOT,
                env=os.environ | {"TMPDIR": str(self.log.parent)},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def recorded(self) -> int:
        """How many parts have a record."""
        return len(list((self.out / ".building").glob("[0-9]*.json")))

    def remember(self, driver: subprocess.Popen[bytes]) -> None:
        """Note the processes that a command has started, which may outlive it."""
        with suppress(psutil.NoSuchProcess):
            found = psutil.Process(driver.pid).children(recursive=True)
            self.processes += [process for process in found if process not in self.processes]


def main() -> None:
    """Run the campaign and write its page."""
    parser = argparse.ArgumentParser(prog="python tests/campaign_datasets.py")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=PAGE)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.pop("RAY_ADDRESS", None)
    # A short name: Ray keeps unix sockets about 90 characters below it, and their paths end at 107.
    with tempfile.TemporaryDirectory(prefix="k-", ignore_cleanup_errors=True) as folder:
        inputs = make_inputs(Path(folder))
        trials = run_trials(inputs, arguments.kills, arguments.seed)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(page(trials, arguments.seed, inputs), encoding="utf-8")
    bad = [trial for trial in trials if trial.problem]
    num_kills = sum(len(trial.kills) for trial in trials)
    print(f"{num_kills} kills in {len(trials)} trials, {len(bad)} with a problem; written to {arguments.out}")
    raise SystemExit(1 if bad else 0)


def zoo_spec(seed: int) -> ZooSpec:
    """Of 480 networks of one architecture, two checkpoints each."""
    family = FamilySpec(family="small_cnn", activation=Choice(choice=("tanh",)))
    return tiny_spec(seed=seed, num_runs=480, runs_per_chunk=60, architecture=family)


def make_inputs(folder: Path) -> Inputs:
    """Two zoos, and what becomes of them undisturbed."""
    zoos: dict[Command, Path] = {command: folder / f"zoo-{command}" for command in COMMANDS}
    for seed, path in enumerate(zoos.values()):
        write_zoo(path, zoo_spec(seed))
    undisturbed = folder / "undisturbed.zarr"
    before: dict[Command, float] = {}
    writing: dict[Command, float] = {}
    expected: dict[Command, dict[str, bytes]] = {}
    num_parts: dict[Command, int] = {}
    for command in COMMANDS:
        there = len(read_manifest(undisturbed).parts) if undisturbed.exists() else 0
        job = Job(arguments=arguments_of(command, zoos[command], undisturbed), out=undisturbed, log=folder / "log")
        before[command], writing[command] = timed(job)
        expected[command] = content(undisturbed)
        num_parts[command] = len(read_manifest(undisturbed).parts) - there
        print(
            f"undisturbed: {command} of {num_parts[command]} parts takes {before[command]:.1f} s to the first record, "
            f"and {writing[command]:.1f} s from there to the last",
            flush=True,
        )
    return Inputs(
        folder=folder,
        zoos=zoos,
        base=expected["graphs"],
        expected=expected,
        num_parts=num_parts,
        before=before,
        writing=writing,
    )


def arguments_of(command: Command, zoo: Path, out: Path) -> list[str]:
    """What is asked of ``python -m pipeline``."""
    if command == "append":
        return ["append", str(out), "--zoo", str(zoo)]
    size = str(GRAPHS_PER_PART * NUM_VALUES)
    return ["graphs", "--zoo", str(zoo), "--out", str(out), "--dataset.floats_per_part", size]


def timed(job: Job) -> tuple[float, float]:
    """Run a command to its end: seconds to the first record, and from there to the last."""
    started = time.monotonic()
    process = job.start()
    moments: dict[int, float] = {}
    while process.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=POLL_SECONDS)
        moments.setdefault(job.recorded(), time.monotonic())
    assert process.returncode == 0, job.log.read_text(errors="replace")
    del moments[0]  # before the first
    first, last = min(moments.values()), moments[max(moments)]  # not later: then they are tidied up
    return first - started, last - first


def run_trials(inputs: Inputs, count: int, seed: int) -> list[Trial]:
    """Trials until so many kills are done, some at a time; each has random numbers of its own."""
    trials: list[Trial] = []
    planned: dict[Future[Trial], int] = {}
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        while True:
            left = count - sum(len(trial.kills) for trial in trials) - sum(planned.values())
            if left > 0 and len(planned) < AT_A_TIME:
                number = len(trials) + len(planned)
                kills = min(left, random.Random(f"{seed}/{number}").randint(1, MOST_KILLS))
                planned[pool.submit(disturbed, inputs, number, kills, seed)] = kills
                continue
            if not planned:
                return sorted(trials, key=lambda trial: trial.number)
            for future in wait(planned, return_when=FIRST_COMPLETED).done:
                del planned[future]
                trials.append(future.result())
                say(trials[-1])


def say(trial: Trial) -> None:
    """What became of a trial."""
    for kill in trial.kills:
        where = f"{kill.recorded:>3} parts recorded"
        print(
            f"{trial.number:>3}  {trial.command:<6}  {kill.victim:<15} after {kill.after:5.1f} s, {where}", flush=True
        )
    print(f"{trial.number:>3}  {trial.starts} starts: {trial.problem or 'the same bytes'}", flush=True)


def disturbed(inputs: Inputs, number: int, num_kills: int, seed: int) -> Trial:
    """Write a dataset, with some kills; fewer where the command ends before one."""
    rng, command = random.Random(f"{seed}/{number}/kills"), COMMANDS[number % len(COMMANDS)]
    folder = inputs.folder / f"t{number}"
    folder.mkdir()
    job = Job(
        arguments=arguments_of(command, inputs.zoos[command], folder / "graphs.zarr"),
        out=folder / "graphs.zarr",
        log=folder / "log",
    )
    if command == "append":
        write_content(job.out, inputs.base)
    kills: list[Kill] = []
    problems: list[str] = []
    code = -1
    while code != 0 and job.starts < TRIES:
        driver, started = job.start(), time.monotonic()
        while len(kills) < num_kills and wait_for_a_moment(driver, job, inputs, command, rng):
            recorded = job.recorded()
            after, victim = time.monotonic() - started, strike(driver, job, rng)
            kills.append(Kill(trial=number, command=command, victim=victim, after=after, recorded=recorded))
        code = end_of(driver, job)
        if command == "append":
            problems += wrong_base(job.out, inputs)
    problems += outlived(job.processes)
    problems += differences(code, content(job.out), inputs.expected[command])
    rmtree(folder / "graphs.zarr")
    return Trial(number=number, command=command, kills=kills, starts=job.starts, problem="; ".join(problems))


def wait_for_a_moment(
    driver: subprocess.Popen[bytes], job: Job, inputs: Inputs, command: Command, rng: random.Random
) -> bool:
    """Wait for a random moment, more often than not after a further part is recorded; whether the command still runs
    then."""
    recorded, wanted = job.recorded(), rng.random() < WRITING_SHARE
    share = 1 - recorded / inputs.num_parts[command]
    delay = rng.uniform(0.0, inputs.writing[command] * share if wanted else inputs.before[command])
    while wanted and job.recorded() == recorded and driver.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            driver.wait(timeout=POLL_SECONDS)
    with suppress(subprocess.TimeoutExpired):
        driver.wait(timeout=delay)
    return driver.poll() is None


def strike(driver: subprocess.Popen[bytes], job: Job, rng: random.Random) -> str:
    """Kill a worker of the command's cluster, or its own process group, always where there is no worker yet; says
    which."""
    job.remember(driver)
    workers = [(process, words) for process in job.processes if (words := command_line(process)).startswith("ray::")]
    if not workers or rng.random() < 0.5:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
        return "the driver"
    process, words = rng.choice(workers)
    with suppress(psutil.NoSuchProcess):
        process.kill()
    return "a worker at work" if "write_part" in words else "an idle worker"


def command_line(process: psutil.Process) -> str:
    """What it says it does; nothing if it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def end_of(driver: subprocess.Popen[bytes], job: Job) -> int:
    """The code that the command ends with."""
    job.remember(driver)
    try:
        return driver.wait(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(driver.pid, signal.SIGKILL)
        return driver.wait()


def outlived(processes: Sequence[psutil.Process]) -> list[str]:
    """What is still there of a cluster whose command has ended, a while later; it is ended."""
    _, alive = psutil.wait_procs(processes, timeout=LINGER_SECONDS)
    names = [command_line(process)[:60] for process in alive]
    for process in alive:
        with suppress(psutil.NoSuchProcess):  # psutil compares start times first, so a reused process id is safe
            process.kill()
    return [f"it outlived the command: {name}" for name in names]


def write_content(folder: Path, files: dict[str, bytes]) -> None:
    """The files of a folder, as `content` has them."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def wrong_base(out: Path, inputs: Inputs) -> list[str]:
    """What is not as it was in a dataset that is added to; its manifest may be the new one, whole."""
    wrong = [name for name, data in inputs.base.items() if name != MANIFEST and (out / name).read_bytes() != data]
    if (out / MANIFEST).read_bytes() not in (inputs.base[MANIFEST], inputs.expected["append"][MANIFEST]):
        wrong.append(MANIFEST)
    return [f"altered while it was added to: {wrong[:3]}"] if wrong else []


def differences(code: int, found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """What is wrong; nothing if all is well."""
    if code != 0:
        return [f"the command still ends with {code} after {TRIES} starts"]
    if found.keys() != expected.keys():
        return [f"files differ: {sorted(found.keys() ^ expected.keys())[:3]}"]
    altered = [name for name in expected if found[name] != expected[name]]
    return [f"bytes differ: {altered[:3]}"] if altered else []


def page(trials: Sequence[Trial], seed: int, inputs: Inputs) -> str:
    """The results, in Markdown."""
    bad = sum(bool(trial.problem) for trial in trials)
    kills = [kill for trial in trials for kill in trial.kills]
    middle = sum(0 < kill.recorded < inputs.num_parts[kill.command] for kill in kills)
    parts = " and ".join(f"{inputs.num_parts[command]} ({command})" for command in COMMANDS)
    lines = [
        "# Kills while a dataset is written\n",
        f"Written by `make campaign` (seed {seed}): {len(kills)} kills in {len(trials)} trials, {bad} trials with a",
        f"problem. Each writes parts, {parts}, on a cluster of its own; {middle} kills came when",
        "some parts were recorded and others not. A command that was killed is run again.\n",
        "| trial | command | killed | after, s | parts recorded | starts in all | the dataset afterwards |",
        "|---|---|---|---|---|---|---|",
    ]
    for trial in trials:
        for place, kill in enumerate(trial.kills):
            last = place == len(trial.kills) - 1
            came = f"{trial.starts} | {trial.problem or 'the same bytes'}" if last else " | "
            recorded = f"{kill.recorded} of {inputs.num_parts[kill.command]}"
            lines.append(
                f"| {trial.number} | {trial.command} | {kill.victim} | {kill.after:.1f} | {recorded} | {came} |"
            )
    if bad:
        lines += [
            "",
            *(f"- Trial {trial.number}, {trial.command}: {trial.problem}" for trial in trials if trial.problem),
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
