"""Random faults while a zoo trains on a cluster of several nodes on this machine: nothing lost, nothing twice, the same
bytes.

    make campaign                      20 faults, some minutes; writes docs/campaigns/zoo-faults.md
    python tests/campaign_zoo.py --faults 3 --seed 7 --out /tmp/faults.md

Each trial trains the same small zoo into a new folder, and at a random moment takes a node away (its machine is gone),
kills a worker process (out of memory, say), kills the driver, or lets a small disk run full, where a user may mount one
(`unshare -Urm`); then it runs the same command until it ends well. The zoo must hold what an undisturbed one holds,
byte for byte, and nothing beside it.
"""

import argparse
import os
import random
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fault_clusters import add_node, content, nodes, task_processes, wait_for_a_task

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
MOUNT = ["unshare", "-Urm", "bash", "-c"]
"""Runs a script in which a user may mount; what it mounts only the script's own processes see."""
FULL_DISK = """
mount -t tmpfs -o size="$1" tmpfs "$2" || exit 9
"${@:4}" "$2/zoo" && exit 8
cp -r "$2/zoo" "$3.full"
mount -o remount,size=1g "$2"
"${@:4}" "$2/zoo"
code=$?
cp -r "$2/zoo" "$3"
exit $code
"""
"""Its arguments: bytes of the disk, where it is mounted, where the zoo is copied to, and the command."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One fault and what came of it."""

    fault: str
    after: float
    """Seconds after the first task began; of a full disk 0."""
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
        os.environ["RAY_TMPDIR"] = folder
        trials = run_trials(Path(folder), arguments.faults, rng)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(page(trials, arguments.seed), encoding="utf-8")
    bad = [trial for trial in trials if trial.problem]
    print(f"{len(trials)} faults, {len(bad)} with a problem; written to {arguments.out}")
    raise SystemExit(1 if bad else 0)


def run_trials(folder: Path, count: int, rng: random.Random) -> list[Trial]:
    """An undisturbed zoo, then one for each fault, on one cluster whose nodes come and go."""
    faults = ["a node is lost", "a worker is killed", "the driver is killed"]
    if can_mount(folder):
        faults.append("the disk is full")
    with nodes(2) as (cluster, others):
        environment = {**os.environ, "RAY_ADDRESS": cluster.address}
        assert drive(folder / "undisturbed", environment).wait() == 0, "an undisturbed zoo does not train"
        expected = content(folder / "undisturbed")
        trials: list[Trial] = []
        for number in range(count):
            fault = rng.choice(faults)
            if fault == "the disk is full":
                trial = without_room(folder / str(number), rng, expected)
            else:
                trial = disturbed(folder / str(number), fault, rng, cluster, others, environment, expected)
            print(
                f"{number + 1:>3}  {trial.fault:<20}  after {trial.after:4.1f} s  {trial.problem or 'the same bytes'}"
            )
            trials.append(trial)
        return trials


def can_mount(folder: Path) -> bool:
    """Whether this user may mount a disk of memory, in a namespace of its own."""
    mount = [*MOUNT, 'mount -t tmpfs tmpfs "$0"', str(folder)]
    return (
        shutil.which("unshare") is not None and subprocess.run(mount, check=False, capture_output=True).returncode == 0
    )


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
    return Trial(
        fault=fault,
        after=after,
        finished=finished,
        starts=starts,
        chunks_trained=num_trained(out),
        problem=problem(driver.returncode, content(out), expected),
    )


def without_room(out: Path, rng: random.Random, expected: dict[str, bytes]) -> Trial:
    """Train a zoo on a disk of its own that has room for a part of it, and after that for all of it. The mount is seen
    by its own processes only, so the job starts a cluster of its own."""
    disk = out.with_suffix(".disk")
    disk.mkdir()
    size = round(rng.uniform(0.1, 0.9) * sum(map(len, expected.values())))
    environment = {name: text for name, text in os.environ.items() if name != "RAY_ADDRESS"}
    script = [*MOUNT, FULL_DISK, "bash", str(size), str(disk), str(out), *COMMAND]
    code = subprocess.run(script, cwd=ROOT, env=environment, check=False, capture_output=True).returncode
    full = content(out.with_suffix(".full"))
    chunks = {name for name in full if re.match(r"chunks/\d+/", name)}
    halves = sorted(name for name in chunks if full[name] != expected[name])
    return Trial(
        fault="the disk is full",
        after=0.0,
        finished=len({name.split("/")[1] for name in chunks}),
        starts=2,
        chunks_trained=num_trained(out),
        problem=f"chunks of a full disk: {halves[:3]}" if halves else problem(code, content(out), expected),
    )


def num_trained(out: Path) -> int:
    """How many chunks were trained in all, by the log."""
    return sum(len(path.read_text().splitlines()) for path in (out / "log").glob("*.jsonl"))


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
        "job that ends badly is started again. A disk that is full has more room then.\n",
        "| fault | after, s | chunks there | starts of the job | chunks trained in all | the zoo afterwards |",
        "|---|---|---|---|---|---|",
    ]
    for trial in trials:
        numbers = f"{trial.after:.1f} | {trial.finished} of {NUM_CHUNKS} | {trial.starts} | {trial.chunks_trained}"
        lines.append(f"| {trial.fault} | {numbers} | {trial.problem or 'the same bytes'} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
