"""Kills while `python -m pipeline graphs` and `append` write: run again, the same command gives the same bytes.
`campaign_datasets.py` kills at random."""

import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import RayHead
from pipeline import build_graphs, graph_plan
from pipeline.graph_plan import DatasetSpec
from pipeline.verify_graphs import verify
from tiny_dataset import NUM_VALUES, content, in_this_process, known_templates, make_tiny_dataset, write_zoo
from tiny_zoo import tiny_spec

ROOT = Path(__file__).parents[1]
ROWS_PER_TABLE = graph_plan.ROWS_PER_TABLE
SPEC = DatasetSpec(floats_per_part=2 * NUM_VALUES)
"""Two graphs a part, so that there are many."""
NUM_PARTS = 45
POLL_SECONDS = 0.01
POLLS = 12_000
SECONDS = 180


@dataclass(frozen=True, kw_only=True)
class Undisturbed:
    """Two zoos, and what becomes of them when nothing is killed."""

    zoo: Path
    other: Path
    made: dict[str, bytes]
    """The dataset of the zoo."""
    grown: dict[str, bytes]
    """The same with the other zoo added."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Made without a cluster; the tiny dataset knows the templates."""
    folder = tmp_path_factory.mktemp("undisturbed")
    tiny = make_tiny_dataset(tmp_path_factory.getbasetemp())
    for seed, name in enumerate(("zoo", "other")):
        write_zoo(folder / name, tiny_spec(seed=seed, num_runs=NUM_PARTS, runs_per_chunk=NUM_PARTS))
    out = folder / "graphs.zarr"
    with pytest.MonkeyPatch.context() as monkeypatch:
        known_templates(tiny, monkeypatch)
        in_this_process(monkeypatch)
        monkeypatch.setattr(graph_plan, "ROWS_PER_TABLE", ROWS_PER_TABLE)  # as in the processes that are killed
        build_graphs.graphs(folder / "zoo", out, SPEC)
        made = content(out)
        build_graphs.append(out, folder / "other")
    return Undisturbed(zoo=folder / "zoo", other=folder / "other", made=made, grown=content(out))


def pipeline(arguments: list[str], head: RayHead, log: Path) -> subprocess.Popen[bytes]:
    """Start a command as a job of the shared cluster."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline", *arguments],
            cwd=ROOT,
            env=head.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def kill_while_it_writes(arguments: list[str], head: RayHead, out: Path, log: Path) -> None:
    """Start a command, and end it with SIGKILL when the first part has a record, and before all have."""
    records = out / ".building"
    process = pipeline(arguments, head, log)
    try:
        for _ in range(POLLS):
            if any(records.glob("[0-9]*.json")):
                break
            with suppress(subprocess.TimeoutExpired):
                pytest.fail(f"it ended with {process.wait(timeout=POLL_SECONDS)}:\n{log.read_text()}")
    finally:
        process.kill()
        process.wait()
    assert 1 <= len(list(records.glob("[0-9]*.json"))) < NUM_PARTS


def run(arguments: list[str], head: RayHead, log: Path) -> None:
    """Run a command to its end, which must be a good one."""
    process = pipeline(arguments, head, log)
    try:
        assert process.wait(timeout=SECONDS) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def test_a_dataset_killed_while_parts_are_written_and_run_again_is_the_undisturbed_one(
    undisturbed: Undisturbed, ray_head: RayHead, tmp_path: Path
) -> None:
    out, log = tmp_path / "graphs.zarr", tmp_path / "log"
    command = ["graphs", "--zoo", str(undisturbed.zoo), "--out", str(out)]
    command += ["--dataset.floats_per_part", str(SPEC.floats_per_part)]
    kill_while_it_writes(command, ray_head, out, log)
    assert not (out / "manifest.json").exists()
    run(command, ray_head, log)
    assert content(out) == undisturbed.made


def test_an_append_killed_while_parts_are_written_leaves_the_dataset_as_it_was_and_is_finished_by_another(
    undisturbed: Undisturbed, ray_head: RayHead, tmp_path: Path
) -> None:
    out, log = tmp_path / "graphs.zarr", tmp_path / "log"
    for name, data in undisturbed.made.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(data)
    command = ["append", str(out), "--zoo", str(undisturbed.other)]
    kill_while_it_writes(command, ray_head, out, log)
    assert {name: (out / name).read_bytes() for name in undisturbed.made} == undisturbed.made
    run(command, ray_head, log)
    assert content(out) == undisturbed.grown
    verify(out)
