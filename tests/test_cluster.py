"""Joining a cluster and running tasks on it; starting one is what every command does without RAY_ADDRESS."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import pipeline.cluster
from conftest import RayHead
from pipeline.cluster import Machine, cluster, run_tasks, termination_interrupts


@pytest.fixture
def joined(ray_head: RayHead, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RAY_ADDRESS", ray_head.address)
    with cluster():
        yield


@pytest.mark.parametrize("tasks_in_flight", [1, 3, 100])
@pytest.mark.usefixtures("joined")
def test_every_item_is_done_once_whatever_the_number_in_flight(tasks_in_flight: int) -> None:
    def add(item: int, first: int, second: int) -> int:
        return item + first + second

    results = list(run_tasks(add, range(7), (100, 1000), Machine(tasks_in_flight=tasks_in_flight), noun="sum"))
    assert sorted(results) == [(item, item + 1100) for item in range(7)]


@pytest.mark.usefixtures("joined")
def test_a_task_that_fails_names_its_item_and_those_before_it_are_done() -> None:
    def fail_at_five(item: int) -> None:
        if item == 5:
            raise KeyError("five")

    finished: list[int] = []
    tasks = run_tasks(fail_at_five, range(11), (), Machine(tasks_in_flight=1), noun="part")
    with pytest.raises(RuntimeError, match="part 5 failed: KeyError: 'five'. What is finished is kept; when the cause"):
        finished.extend(item for item, _ in tasks)
    assert finished == [0, 1, 2, 3, 4]


@pytest.mark.usefixtures("joined")
def test_bad_input_that_a_task_finds_is_still_bad_input() -> None:
    def refuse(item: int) -> None:
        raise ValueError("values.npy: not finite")

    with pytest.raises(ValueError, match="part 3 failed: ValueError: values.npy: not finite. What is finished is kept"):
        list(run_tasks(refuse, [3], (), Machine(), noun="part"))


@pytest.mark.usefixtures("joined")
def test_a_task_whose_process_is_lost_is_tried_again(tmp_path: Path) -> None:
    def die_the_first_time(item: int, folder: Path) -> int:
        try:
            (folder / str(item)).mkdir()
        except FileExistsError:
            return item
        os._exit(1)

    tasks = run_tasks(die_the_first_time, [3], (tmp_path,), Machine(retries=1), noun="part")
    assert list(tasks) == [(3, 3)]


@pytest.mark.usefixtures("joined")
def test_a_task_whose_process_is_lost_too_often_is_named_in_one_line() -> None:
    tasks = run_tasks(lambda item: os._exit(item), [3], (), Machine(retries=0), noun="part")
    with pytest.raises(
        ValueError, match=r"part 3 failed: WorkerCrashedError: The worker died .* this task. What is fin"
    ):
        list(tasks)


@pytest.mark.usefixtures("joined")
def test_nothing_to_do_is_done_at_once() -> None:
    assert list(run_tasks(lambda item: item, [], (), Machine(), noun="item")) == []


def test_a_cluster_that_was_joined_is_left_and_can_be_joined_again(
    ray_head: RayHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setenv("RAY_ADDRESS", ray_head.address)
    for _ in range(2):
        with cluster():
            assert ray.is_initialized()
            with cluster():  # the connection is the outer one's
                assert ray.is_initialized()
            assert ray.is_initialized()
        assert not ray.is_initialized()


def test_tasks_larger_than_every_machine_wait_in_a_cluster_that_was_joined_and_that_is_said(
    ray_head: RayHead, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_head.address)
    message = "Waiting for a machine of 3 processors (machine.cpus_per_task); the largest of the cluster has 2 now.\n"
    with cluster(Machine(cpus_per_task=3)):
        assert capsys.readouterr().err == message
        with cluster(Machine(cpus_per_task=3)):  # the connection is the outer one's
            assert capsys.readouterr().err == message
    with cluster(Machine(cpus_per_task=2)):
        assert capsys.readouterr().err == ""


def test_tasks_larger_than_this_machine_are_refused_where_the_cluster_is_our_own(
    ray_head: RayHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head stands for the cluster that would be started."""
    import ray

    start = ray.init
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(pipeline.cluster, "protect", lambda: None)
    monkeypatch.setattr(ray, "init", lambda address, **_: start(address=ray_head.address))
    with (
        pytest.raises(ValueError, match="cpus_per_task is 3, and this machine has 2 processors.* ask for at most 2"),
        cluster(Machine(cpus_per_task=3)),
    ):
        pass
    assert not ray.is_initialized()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpus_per_task": float("nan")}, "machine: gpus_per_task is nan; expected a fraction up to 1, or a whole"),
        ({"gpus_per_task": -0.5}, "machine: gpus_per_task is -0.5; expected"),
        ({"gpus_per_task": 1.5}, "machine: gpus_per_task is 1.5; expected"),
        ({"cpus_per_task": 0}, "machine: cpus_per_task is 0; expected at least 1"),
        ({"tasks_in_flight": 0}, "machine: tasks_in_flight is 0; expected at least 1"),
        ({"retries": -1}, "machine: retries is -1; expected at least 0"),
    ],
)
def test_an_impossible_machine_is_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Machine(**changes)


def test_an_address_where_nothing_answers_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:  # bound, so that nobody else listens there, and not listening itself
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ValueError, match=f"RAY_ADDRESS is {address}, where nothing answers"), cluster():
            pass


def test_termination_is_an_interrupt_while_a_job_runs() -> None:
    def terminate() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(5)  # until the handler has run

    with pytest.raises(KeyboardInterrupt), termination_interrupts():
        terminate()


@pytest.mark.usefixtures("joined")
def test_a_task_has_the_part_of_a_gpu_that_it_asked_for() -> None:
    """The head says it has one, which Ray believes; half of it for each of two tasks, none where none is asked for."""

    def gpus_of(item: int) -> list[int]:
        import ray

        return [int(gpu) for gpu in ray.get_gpu_ids()]

    assert list(run_tasks(gpus_of, [0], (), Machine(), noun="item")) == [(0, [])]
    halves = run_tasks(gpus_of, [0, 1], (), Machine(gpus_per_task=0.5), noun="item")
    assert sorted(halves) == [(0, [0]), (1, [0])]
