"""What the tests share: the Hypothesis profiles, and one local Ray head for the few tests that need a cluster.

    pytest --hypothesis-profile=thorough      twenty times as many generated examples

No test joins a cluster of its user's: ``RAY_ADDRESS`` is removed, and whatever starts Ray from here (this process or a
subprocess) uses token authentication with a token made for this run, so nothing is read from or written to ``~/.ray``.
"""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings

QUICK = settings(
    derandomize=True,  # the same examples every time: a failure seen once is seen again
    database=None,
    deadline=None,  # a time limit on a busy machine fails for no reason
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("quick", QUICK)
settings.register_profile("thorough", QUICK, derandomize=False, max_examples=500)
settings.load_profile("quick")

os.environ["OMP_NUM_THREADS"] = "1"  # tensors this small only wait for a second thread; also for subprocesses
os.environ.pop("RAY_ADDRESS", None)
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

WORKER_PORTS = range(10002, 20000)  # Ray refuses to give these to anything but its workers
START_TRIES, TRY_SECONDS = 240, 0.5
STOP_SECONDS = 20  # gcs_server was seen to outlive SIGTERM by minutes


@dataclass(frozen=True, kw_only=True)
class RayHead:
    """A running one-node cluster of two CPUs."""

    address: str
    """Of the control service, ``host:port``: what ``RAY_ADDRESS`` and ``ray.init(address=...)`` take."""
    dashboard_url: str
    """Of the job API, ``http://127.0.0.1:port``: what ``ray job submit --address`` takes."""
    environment: dict[str, str]
    """For subprocesses that use the cluster: this one's, with the two addresses, the token and a private home."""


@pytest.fixture(scope="session")
def ray_head() -> Iterator[RayHead]:
    """One Ray head for the whole run, started when the first test asks for it and ended with everything it started."""
    # Not tmp_path: Ray keeps unix sockets about 70 characters below its folder, and their paths end at 107.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        gcs, dashboard, agent, client = free_ports(4)
        head = RayHead(
            address=f"127.0.0.1:{gcs}",
            dashboard_url=f"http://127.0.0.1:{dashboard}",
            environment=os.environ
            | {
                "HOME": folder,
                "TMPDIR": folder,  # what a killed process leaves goes with the head
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # `python` is this one
                "RAY_ADDRESS": f"127.0.0.1:{gcs}",
                "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
                "PYTHONUNBUFFERED": "1",
            },
        )
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
            *(f"--port={gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
            # Every cluster on a machine would take the same ports for these two.
            *(f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"),
            *("--min-worker-port=0", "--max-worker-port=0"),  # any free one
            *("--num-cpus=2", "--num-gpus=1", "--object-store-memory=200000000", f"--temp-dir={folder}"),
        ]
        log = Path(folder, "start.log")
        without_address = {name: text for name, text in head.environment.items() if name != "RAY_ADDRESS"}
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, env=without_address, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            wait_until_it_answers(head, process, log)
            yield head
        finally:
            end(process)


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, all different, outside the range of Ray's workers."""
    ports: list[int] = []
    sockets: list[socket.socket] = []
    while len(ports) < count:
        sockets.append(socket.socket())
        sockets[-1].bind(("127.0.0.1", 0))
        port = sockets[-1].getsockname()[1]
        if port not in WORKER_PORTS:
            ports.append(port)
    for held in sockets:
        held.close()
    return ports


def wait_until_it_answers(head: RayHead, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the job API answers; the head's own log is the error if it ends or never does."""
    request = urllib.request.Request(
        f"{head.dashboard_url}/api/jobs/", headers={"Authorization": f"Bearer {head.environment['RAY_AUTH_TOKEN']}"}
    )
    for _ in range(START_TRIES):
        try:
            with urllib.request.urlopen(request, timeout=TRY_SECONDS):
                return
        except (urllib.error.URLError, OSError):
            pass
        try:
            process.wait(timeout=TRY_SECONDS)
            break
        except subprocess.TimeoutExpired:
            pass
    raise RuntimeError(f"the Ray head did not start:\n{log.read_text(errors='replace')}")


def end(process: subprocess.Popen[bytes]) -> None:
    """End the head and its descendants and nothing else: ``ray stop`` would end every Ray process of the machine.

    Only the head is asked to: it then ends its own children in the right order, in seconds. Asked all at once, the
    raylet waits for a control service that is gone.
    """
    descendants = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    try:
        process.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(descendants, timeout=1)
    for survivor in alive:
        survivor.kill()  # psutil compares start times first, so a reused process id is safe
    psutil.wait_procs(alive, timeout=STOP_SECONDS)
