"""``deploy/kuberay-job.yaml`` keeps its promises. There is no schema of KubeRay's here: it has not been run."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.__main__ import read_command

ROOT = Path(__file__).parents[1]


@pytest.fixture
def job() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "deploy" / "kuberay-job.yaml").read_text())


def groups(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The head's and the workers'."""
    cluster = job["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def pinned(package: str) -> str:
    """The version in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    [version] = [line.partition("==")[2] for line in lines if line.startswith(f"{package}==")]
    return version


def test_it_runs_a_command_that_there_is(job: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    python, module_flag, package, *arguments = shlex.split(job["spec"]["entrypoint"])
    assert (python, module_flag, package) == ("python", "-m", "pipeline")
    read_command(arguments)


def test_ray_is_the_pinned_one_and_asks_for_a_token(job: dict[str, Any]) -> None:
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == pinned("ray")
    assert cluster["authOptions"] == {"mode": "token"}
    assert f"FROM rayproject/ray:{pinned('ray')}-py311-cpu" in (ROOT / "deploy" / "Dockerfile").read_text()


def test_the_head_does_no_work_and_the_cluster_goes_with_the_job(job: dict[str, Any]) -> None:
    head, *workers = groups(job)
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    assert all(worker["minReplicas"] == 0 < worker["maxReplicas"] for worker in workers)


def test_every_container_sees_the_folder_that_is_written(job: dict[str, Any]) -> None:
    out = shlex.split(job["spec"]["entrypoint"])[-1]
    for group in groups(job):
        pod = group["template"]["spec"]
        [container] = pod["containers"]
        [mount] = container["volumeMounts"]
        assert Path(out).is_relative_to(mount["mountPath"])
        assert mount["name"] in [volume["name"] for volume in pod["volumes"]]
