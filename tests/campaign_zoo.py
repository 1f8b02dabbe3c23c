"""Random faults while a zoo trains on a cluster of several nodes on this machine: nothing lost, nothing twice, the same
bytes.

    make campaign                      20 faults, some minutes; writes docs/campaigns/zoo-faults.md
    python tests/campaign_zoo.py --faults 3 --seed 7 --out /tmp/faults.md

Each trial trains the same small zoo into a new folder, and at a random moment takes a node away (its machine is gone),
kills a worker process (out of memory, say), or kills the driver; then it runs the same command until it ends well. The
zoo must hold what an undisturbed one holds, byte for byte, and nothing beside it.
"""

import argparse
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "campaigns" / "zoo-faults.md"
COMMAND = [
    *(sys.executable, "-m", "pipeline", "zoo", "--config", "configs/zoo/digits.yaml"),
    *("--spec.num_runs", "48", "--spec.runs_per_chunk", "4", "--out"),
]
NUM_CHUNKS = 12
LATEST = 5.0
"""Seconds after the first task began, after which no fault comes: all tasks take a little longer."""
TRIES = 4
"""Of the command, until it ends well."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One fault and what came of it."""

    fault: str
    after: float
    """Seconds after the first task began."""
    finished: int
    """Chunks that were there at that moment."""
    starts: int
    """Of the command, until it ended well."""
    chunks_trained: int
    """How many chunks were trained in all, those included that were trained again."""
    problem: str
    """Empty if the zoo is the undisturbed one."""


def main() -> None:
    """Run the campaign and write its page."""
    parser = argparse.ArgumentParser(prog="python tests/campaign_zoo.py")
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=PAGE)
    arguments = parser.parse_args()
    os.environ |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # its ports listen on 127.0.0.1 only, as in pipeline.cluster
        "OMP_NUM_THREADS": "1",
    }
    os.environ.pop("RAY_ADDRESS", None)
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        trials = run_trials(Path(folder), arguments.faults, rng)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(page(trials, arguments.seed), encoding="utf-8")
    bad = [trial for trial in trials if trial.problem]
    print(f"{len(trials)} faults, {len(bad)} with a problem; written to {arguments.out}")
    raise SystemExit(1 if bad else 0)


def run_trials(folder: Path, count: int, rng: random.Random) -> list[Trial]:
    """An undisturbed zoo, then one for each fault, on one cluster whose nodes come and go."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100_000_000}
    cluster: Any = Cluster(initialize_head=True, head_node_args=head)
    try:
        nodes = [add_node(cluster) for _ in range(2)]
        environment = {**os.environ, "RAY_ADDRESS": cluster.address}
        assert drive(folder / "undisturbed", environment).wait() == 0, "an undisturbed zoo does not train"
        expected = content(folder / "undisturbed")
        trials: list[Trial] = []
        for number in range(count):
            fault = rng.choice(["a node is lost", "a worker is killed", "the driver is killed"])
            trial = disturbed(folder / str(number), fault, rng, cluster, nodes, environment, expected)
            print(
                f"{number + 1:>3}  {trial.fault:<20}  after {trial.after:4.1f} s  {trial.problem or 'the same bytes'}"
            )
            trials.append(trial)
        return trials
    finally:
        cluster.shutdown()


def add_node(cluster: Any) -> Any:
    """One more machine of one processor."""
    return cluster.add_node(num_cpus=1, object_store_memory=100_000_000)


def drive(out: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start the job."""
    quiet = subprocess.DEVNULL
    return subprocess.Popen([*COMMAND, str(out)], cwd=ROOT, env=environment, stdout=quiet, stderr=quiet)


def disturbed(
    out: Path,
    fault: str,
    rng: random.Random,
    cluster: Any,
    nodes: list[Any],
    environment: dict[str, str],
    expected: dict[str, bytes],
) -> Trial:
    """Train a zoo, with one fault in the middle."""
    driver = drive(out, environment)
    delay = rng.uniform(0.0, LATEST)
    wait_for_a_task(driver)
    started = time.monotonic()
    with suppress(subprocess.TimeoutExpired):
        driver.wait(timeout=delay)
    wait_for_a_task(driver)
    after = time.monotonic() - started
    finished = len(list((out / "chunks").glob("[0-9]*"))) if (out / "chunks").exists() else 0
    match fault:
        case "a node is lost":
            cluster.remove_node(nodes.pop(rng.randrange(len(nodes))), allow_graceful=False)
            nodes.append(add_node(cluster))
        case "a worker is killed":
            if workers := task_processes():  # none if all is trained
                rng.choice(workers).kill()
        case "the driver is killed":
            driver.send_signal(signal.SIGKILL)
    starts = 1
    while driver.wait() != 0 and starts < TRIES:
        driver = drive(out, environment)
        starts += 1
    trained = sum(len(path.read_text().splitlines()) for path in (out / "log").glob("*.jsonl"))
    return Trial(
        fault=fault,
        after=after,
        finished=finished,
        starts=starts,
        chunks_trained=trained,
        problem=problem(driver.returncode, content(out), expected),
    )


def wait_for_a_task(driver: subprocess.Popen[bytes]) -> None:
    """Return when a task is at work, or the driver has ended. Processes are asked for: Ray tells nobody."""
    while not task_processes():
        with suppress(subprocess.TimeoutExpired):
            driver.wait(timeout=0.02)
            return


def task_processes() -> list[psutil.Process]:
    """The processes of this cluster, children of ours, that are at a task of the job."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "ray::train_and_write" in " ".join(cmdline(child))]


def cmdline(process: psutil.Process) -> list[str]:
    """What a process is called; nothing if it has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a zoo but its log, which is outside the format."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: path.read_bytes() for name, path in names.items() if not name.startswith("log/")}


def problem(code: int, found: dict[str, bytes], expected: dict[str, bytes]) -> str:
    """What is wrong; nothing if all is well."""
    if code != 0:
        return f"the command still ends with {code} after {TRIES} starts"
    if found.keys() != expected.keys():
        return f"files differ: {sorted(found.keys() ^ expected.keys())[:3]}"
    altered = [name for name in expected if found[name] != expected[name]]
    return f"bytes differ: {altered[:3]}" if altered else ""


def page(trials: list[Trial], seed: int) -> str:
    """The results, in Markdown."""
    bad = sum(bool(trial.problem) for trial in trials)
    lines = [
        "# Faults while a zoo trains\n",
        f"Written by `make campaign` (seed {seed}): {len(trials)} faults, {bad} with a problem. A cluster of a head",
        "and two nodes on one machine trains 48 networks in 12 chunks. A node that is lost is replaced by a new one; a",
        "job that ends badly is started again.\n",
        "| fault | after, s | chunks there | starts of the job | chunks trained in all | the zoo afterwards |",
        "|---|---|---|---|---|---|",
    ]
    for trial in trials:
        numbers = f"{trial.after:.1f} | {trial.finished} of {NUM_CHUNKS} | {trial.starts} | {trial.chunks_trained}"
        lines.append(f"| {trial.fault} | {numbers} | {trial.problem or 'the same bytes'} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
