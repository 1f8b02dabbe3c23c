"""``ray_cluster.yaml`` is what Ray's launcher accepts, and keeps its promises about cost and safety.

``ray up`` has no dry run. Its schema check needs no credentials but is private to Ray, so one function here calls it.
"""

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture
def cluster() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())


def validate(cluster: dict[str, Any]) -> dict[str, Any]:
    """The configuration with Ray's defaults, accepted by Ray's schema."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(cluster)
    validate_config(prepared)
    return prepared


def start_commands(cluster: dict[str, Any]) -> list[str]:
    commands = cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"]
    return [command for command in commands if "ray start" in command]


def test_ray_accepts_the_cluster_file(cluster: dict[str, Any]) -> None:
    prepared = validate(cluster)
    assert prepared["available_node_types"]["head"]["max_workers"] == 0


def test_ray_rejects_a_key_it_does_not_know(cluster: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError, match="'idle_timeout_hours' was unexpected"):
        validate(cluster | {"idle_timeout_hours": 1})


def test_ray_rejects_a_head_that_is_no_node_type(cluster: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="`head_node_type` must be one of `available_node_types`"):
        validate(cluster | {"head_node_type": "leader"})


def test_the_head_offers_no_cpu_and_only_workers_are_spot(cluster: dict[str, Any]) -> None:
    node_types = dict(cluster["available_node_types"])
    head = node_types.pop(cluster["head_node_type"])
    assert head["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]
    assert [node["node_config"]["InstanceMarketOptions"]["MarketType"] for node in node_types.values()] == ["spot"] * 2
    assert sorted(node["resources"].get("GPU", 0) for node in node_types.values()) == [0, 1]


def test_idle_workers_cost_nothing_and_their_number_is_bounded(cluster: dict[str, Any]) -> None:
    workers = [node for name, node in cluster["available_node_types"].items() if name != cluster["head_node_type"]]
    assert all(node["min_workers"] == 0 for node in workers)
    assert sum(node["max_workers"] for node in workers) == cluster["max_workers"]
    assert cluster["idle_timeout_minutes"] > 0


def test_every_node_asks_for_the_token_and_reports_no_usage(cluster: dict[str, Any]) -> None:
    commands = start_commands(cluster)
    assert len(commands) == 2
    for command in commands:
        assert "RAY_AUTH_MODE=token ray start" in command
        assert "--disable-usage-stats" in command
    assert cluster["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"


def test_the_dashboard_stays_on_loopback(cluster: dict[str, Any]) -> None:
    hosts = re.findall(r"--dashboard-host[= ](\S+)", " ".join(start_commands(cluster)))
    assert hosts == ["127.0.0.1"]


def test_nodes_install_the_pinned_versions_and_run_the_pinned_ray(cluster: dict[str, Any]) -> None:
    mounts = cluster["file_mounts"]
    local = {Path(remote).name: source for remote, source in mounts.items() if not source.startswith("~")}
    assert local == {"pyproject.toml": "pyproject.toml", "constraints.txt": "constraints.txt"}
    assert any("--constraint /home/ray/metazoo/constraints.txt" in command for command in cluster["setup_commands"])

    [pinned] = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    images = [cluster["docker"]["image"]]
    images += [node["docker"]["worker_image"] for node in cluster["available_node_types"].values() if "docker" in node]
    assert [image.partition("-")[0] for image in images] == [f"rayproject/ray:{pinned}"] * 2
