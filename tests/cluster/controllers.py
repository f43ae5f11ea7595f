"""The controller as users run it: a process of its own, with the rights of its role and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.controlplane import rbac
from tests.controlplane.processes import free_port
from tests.controlplane.waiting import eventually

_CHECKOUT = Path(__file__).parents[2]

_MANIFESTS = yaml.safe_load_all((_CHECKOUT / "deploy" / "autotuner.yaml").read_text())
RULES = [rule for each in _MANIFESTS if each["kind"] in {"ClusterRole", "Role"} for rule in each["rules"]]
"""What the chart lets the controller do, its lease included, and nothing else."""


class Controller:
    """One controller process; `stop`, `kill` and `start` may follow each other."""

    def __init__(self, kubeconfig: Path, log: Path, **settings: object) -> None:
        self.log = log
        self.port, self.pages_port = free_port(), free_port()
        given = {
            "poll_seconds": 0.3,
            "resync_seconds": 30,
            "log_level": "debug",
            "http_host": "127.0.0.1",
            "http_port": self.port,
            "pages_port": self.pages_port,
            **settings,
        }
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("KUBERNETES_")},
            **{f"AUTOTUNER_CONTROLLER_{name.upper()}": str(value) for name, value in given.items()},
            "KUBECONFIG": str(kubeconfig),
            "PYTHONPATH": str(_CHECKOUT),
            "OMP_NUM_THREADS": "1",
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        assert self._process is not None
        return self._process.poll()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "autotuner", "controller"],
                env=self._environment,
                cwd=self.log.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_until_ready(self) -> None:
        eventually(lambda: self.get("/readyz")[0] == 200)

    def terminate(self, seconds: float = 30) -> tuple[int, float]:
        """Ask it to end; return its exit code and how long that took."""
        assert self._process is not None
        began = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(seconds), time.monotonic() - began

    def kill(self) -> None:
        """End it as a crash does; one that has ended is passed over."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """Stop its time, as a frozen machine does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def wait(self, seconds: float = 60) -> int:
        assert self._process is not None
        return self._process.wait(seconds)

    def page(self, path: str, host: str | None = None) -> tuple[int, str]:
        """Return what is shown at a path of its web pages, asked for under a host name."""
        return self.get(path, self.pages_port, host)

    def get(self, path: str, port: int | None = None, host: str | None = None) -> tuple[int, str]:
        url = f"http://127.0.0.1:{port or self.port}{path}"
        asked = urllib.request.Request(url, headers={} if host is None else {"Host": host})
        try:
            with urllib.request.urlopen(asked, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def metrics(self) -> dict[str, float]:
        """Return every sample by its name and labels as in the exposition; none until it serves."""
        code, text = self.get("/metrics")
        lines = text.splitlines() if code == 200 else []
        return {
            name: float(value)
            for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))
        }

    def lines(self) -> list[dict[str, Any]]:
        """Return its log."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


@contextmanager
def controllers(
    control_plane: Any, user_with: Callable[[Any], Any], namespace: str, folder: Path, *, cluster_wide: bool
) -> Iterator[Callable[..., Controller]]:
    """Give a function that makes a controller for one namespace, with the chart's rights; kill all at last.

    Args:
        control_plane: The control plane that they work on.
        user_with: Makes a user of the rights.
        namespace: The namespace.
        folder: Where their logs are.
        cluster_wide: Whether the rights are those of a ClusterRole.
    """
    rights = rbac.manifests_of_rules(
        RULES, namespace, name=f"autotuner-{namespace}", cluster_wide=cluster_wide
    )
    token = user_with(rights).api_key["authorization"]
    kubeconfig = control_plane.write_kubeconfig(folder / "kubeconfig", token, namespace)
    made: list[Controller] = []

    def make(**settings: object) -> Controller:
        settings.setdefault("namespaces", namespace)
        controller = Controller(kubeconfig, folder / f"controller-{len(made)}.log", **settings)
        made.append(controller)
        return controller

    try:
        yield make
    finally:
        for controller in made:
            controller.kill()


@contextmanager
def running(controller: Controller) -> Iterator[Controller]:
    """Run a controller for the length of a block."""
    controller.start()
    try:
        yield controller
    finally:
        controller.kill()
