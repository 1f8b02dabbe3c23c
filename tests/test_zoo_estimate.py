"""A dry run says what a zoo is and what it would take, and writes nothing."""

import sys
from pathlib import Path

import pytest

from pipeline import zoo_estimate
from pipeline.__main__ import read_command
from pipeline.images import Images, load_images
from pipeline.train_zoo import zoo
from pipeline.trainers import Trainer
from pipeline.zoo import expand, plan
from pipeline.zoo_estimate import Tried, estimate
from tiny_zoo import TINY, tiny_spec


@pytest.fixture(scope="module")
def images() -> Images:
    return load_images(TINY.images)


def test_costs_are_those_of_all_steps_and_all_images(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: runs of 25, 50 or 101 images take 1, 2 or 4 steps an epoch for 2 epochs, and are looked at twice,
    beside 1,696 test images."""
    monkeypatch.setattr(zoo_estimate, "tried_run", lambda *_: Tried(step=10.0, image=0.001, num_values=4970))
    found = estimate(TINY, plan(TINY), images, Trainer())
    costs = [{25: 2, 50: 4, 101: 8}[run.num_train] * 10 + 2 * (run.num_train + 1696) * 0.001 for run in expand(TINY)]
    assert found.seconds == pytest.approx(sum(costs))
    assert found.longest == pytest.approx(max(costs))
    assert found.num_values == (4970, 4970)


@pytest.mark.parametrize("trainer", [Trainer(), Trainer(name="stacked", stack=2)])
def test_some_runs_are_tried(images: Images, trainer: Trainer) -> None:
    found = estimate(TINY, plan(TINY), images, trainer)
    assert 0 < found.longest <= found.seconds
    assert found.num_bytes > 5 * 2 * 4970 * 4


def test_a_dry_run_writes_nothing_and_starts_no_cluster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it is an error
    zoo(tiny_spec(name="a tiny zoo"), tmp_path / "zoo", dry_run=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Zoo 'a tiny zoo', a dry run: nothing is written"
    assert all(len(line) <= 80 for line in lines)
    assert "  learning_rate     log-uniform: 0.001, 0.01" in lines
    assert "  runs              5 in 2 chunks of 3" in lines
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flag", ["--dry-run", "--dry_run", "--dry_run=true"])
def test_the_flag_is_written_with_either_dash(flag: str) -> None:
    settings = read_command(["zoo", "--config", "configs/zoo/digits.yaml", "--out", "x", flag])
    assert settings.keywords["dry_run"] is True  # pyright: ignore[reportFunctionMemberAccess]
