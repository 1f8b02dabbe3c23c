"""The commands that are Ray jobs, on a real cluster: submitted, refused, killed in the middle and run again."""

import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import RayHead

ROOT = Path(__file__).parents[1]

NUM_CHUNKS = 11
SPEC = f"""
spec:
  name: tiny
  images: {{name: digits, size: 16, num_train: 256}}
  architecture: {{family: small_cnn, activation: {{choice: [tanh]}}}}
  hyperparameters:
    optimizer: {{choice: [sgd, adam, rmsprop]}}
    learning_rate: {{log_uniform: [1.0e-3, 5.0e-2]}}
    momentum: {{choice: [0.9]}}
    l2: {{log_uniform: [1.0e-8, 1.0e-2]}}
    dropout: {{uniform: [0.0, 0.5]}}
    initialisation: {{choice: [glorot, he]}}
    init_std: {{choice: [0.1]}}
    train_fraction: {{choice: [0.5, 1.0]}}
  num_runs: {3 * NUM_CHUNKS}
  seed: 5
  epochs: 7
  batch_size: 32
  checkpoint_epochs: [0, 2, 7]
  runs_per_chunk: 3
"""


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180, check=False, errors="replace"
    )


def submit(job: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """``ray job submit --working-dir . -- job``, which waits for the end of the job and prints what it printed."""
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    return run([*ray, "job", "submit", "--working-dir", ".", "--", *job], environment)


def content(folder: Path, outside: str = "") -> dict[str, bytes]:
    """Every file below a folder by its relative path, without those below the folder that is outside the format."""
    files = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name.as_posix(): path.read_bytes() for name, path in files.items() if name.parts[0] != outside}


def kill_when(condition: Callable[[], bool], command: list[str], environment: dict[str, str], log: Path) -> None:
    """Start a command and end it with SIGKILL as soon as the condition holds."""
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        for _ in range(6000):
            if condition():
                return
            try:
                code = process.wait(timeout=0.01)
            except subprocess.TimeoutExpired:
                continue
            pytest.fail(f"it ended by itself, with {code}, before the moment to kill it:\n{log.read_text()}")
        pytest.fail(f"the moment to kill it never came:\n{log.read_text()}")
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture(scope="module")
def submitted_zoo(ray_head: RayHead, config: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A zoo trained by a submitted job, undisturbed, and what the submission printed."""
    out = tmp_path_factory.mktemp("submitted") / "zoo"
    result = submit(
        ["python", "-m", "pipeline", "zoo", "--config", str(config), "--out", str(out)], ray_head.environment
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return out, result.stdout


def test_a_submitted_job_trains_the_whole_zoo(submitted_zoo: tuple[Path, str]) -> None:
    zoo, printed = submitted_zoo
    assert sorted(path.name for path in (zoo / "chunks").iterdir()) == [f"{index:05d}" for index in range(NUM_CHUNKS)]
    assert re.search(rf"chunks +{NUM_CHUNKS} of {NUM_CHUNKS}", printed)


def test_a_second_submission_says_that_there_is_nothing_to_do(
    ray_head: RayHead, config: Path, submitted_zoo: tuple[Path, str]
) -> None:
    zoo, _ = submitted_zoo
    before = content(zoo)
    result = submit(
        ["python", "-m", "pipeline", "zoo", "--config", str(config), "--out", str(zoo)], ray_head.environment
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"Nothing to do: all {NUM_CHUNKS} chunks of {zoo} are trained." in result.stdout
    assert content(zoo) == before


def test_a_submission_without_the_token_is_refused_and_runs_nothing(
    ray_head: RayHead, config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "zoo"
    environment = ray_head.environment | {"RAY_AUTH_MODE": "disabled"}
    result = submit(["python", "-m", "pipeline", "zoo", "--config", str(config), "--out", str(out)], environment)
    assert result.returncode != 0
    assert "Unauthorized: Missing authentication token" in result.stderr
    assert not out.exists()


@pytest.mark.parametrize(("headers", "status"), [({}, 401), ({"Authorization": f"Bearer {'0' * 64}"}, 403)])
def test_the_job_api_refuses_whoever_does_not_know_the_token(
    ray_head: RayHead, headers: dict[str, str], status: int
) -> None:
    request = urllib.request.Request(f"{ray_head.dashboard_url}/api/jobs/", headers=headers)
    with pytest.raises(urllib.error.HTTPError, match=str(status)) as error:
        urllib.request.urlopen(request, timeout=30)
    error.value.close()


def test_a_zoo_killed_in_the_middle_and_run_again_is_the_undisturbed_one(
    ray_head: RayHead, config: Path, submitted_zoo: tuple[Path, str], tmp_path: Path
) -> None:
    undisturbed, _ = submitted_zoo
    out, chunks = tmp_path / "zoo", tmp_path / "zoo" / "chunks"
    command = [sys.executable, "-m", "pipeline", "zoo", "--config", str(config), "--out", str(out)]

    kill_when(lambda: any(chunks.glob("0*")), command, ray_head.environment, tmp_path / "killed.log")
    assert 1 <= len(list(chunks.glob("0*"))) < NUM_CHUNKS
    result = run(command, ray_head.environment)

    assert result.returncode == 0, result.stderr
    assert content(out, outside="log") == content(undisturbed, outside="log")


def test_a_dataset_killed_in_the_middle_and_built_again_is_the_undisturbed_one(
    ray_head: RayHead, submitted_zoo: tuple[Path, str], tmp_path: Path
) -> None:
    def command(out: Path) -> list[str]:
        """With three graphs a part, so that there is a middle."""
        settings = ["--zoo", str(submitted_zoo[0]), "--out", str(out), "--dataset.floats_per_part", "15000"]
        return [sys.executable, "-m", "pipeline", "graphs", *settings]

    undisturbed, out = tmp_path / "undisturbed.zarr", tmp_path / "killed.zarr"
    result = run(command(undisturbed), ray_head.environment)
    assert result.returncode == 0, result.stderr
    assert (undisturbed / "manifest.json").is_file()

    records = out / ".building"
    kill_when(lambda: any(records.glob("*.json")), command(out), ray_head.environment, tmp_path / "killed.log")
    assert any(records.glob("*.json"))
    assert not (out / "manifest.json").exists()
    result = run(command(out), ray_head.environment)

    assert result.returncode == 0, result.stderr
    assert content(out) == content(undisturbed)
