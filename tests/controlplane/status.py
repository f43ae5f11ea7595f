"""The status of a pod, as a kubelet writes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tests.controlplane.environment import LOOPBACK

if TYPE_CHECKING:
    from tests.controlplane.logs import ContainerLog
    from tests.controlplane.pod import Container, Pod

JSON = dict[str, Any]


@dataclass
class ContainerStatus:
    """The states and logs of one container, through its restarts."""

    container: Container
    state: JSON
    previous_state: JSON = field(default_factory=dict)
    restarts: int = 0
    container_id: str = ""
    log: ContainerLog | None = None
    previous_log: ContainerLog | None = None
    has_lost_log: bool = False

    @property
    def is_running(self) -> bool:
        return "running" in self.state

    @property
    def has_run(self) -> bool:
        """Whether it runs or has run before."""
        return "waiting" not in self.state or bool(self.previous_state)

    @property
    def exit_code(self) -> int | None:
        """The exit code of the last run, if that was the last; else None."""
        terminated = self.state.get("terminated")
        return None if terminated is None else terminated["exitCode"]

    @property
    def waiting_reason(self) -> str | None:
        waiting: JSON = self.state.get("waiting", {})
        return waiting.get("reason")

    def wait_for(self, reason: str, message: str = "") -> None:
        """Enter the waiting state; a run that has ended becomes the previous one."""
        if "terminated" in self.state:
            self.previous_state, self.previous_log = self.state, self.log
        self.state = {"waiting": {"reason": reason} | ({"message": message} if message else {})}

    def run(self, container_id: str, log: ContainerLog) -> None:
        """Enter the running state."""
        self.restarts += bool(self.container_id)
        self.container_id, self.log, self.has_lost_log = container_id, log, False
        self.state = {"running": {"startedAt": now()}}

    def terminate(self, exit_code: int, reason: str, message: str = "") -> None:
        """Enter the terminated state."""
        started = self.state.get("running", {}).get("startedAt")
        terminated = {
            "exitCode": exit_code,
            "reason": reason,
            "startedAt": started or now(),
            "finishedAt": now(),
            "containerID": self.container_id,
        }
        self.state = {"terminated": terminated | ({"message": message} if message else {})}

    def manifest(self) -> JSON:
        return {
            "name": self.container.name,
            "image": self.container.image,
            "imageID": self.container.image,
            "containerID": self.container_id,
            "state": self.state,
            "lastState": self.previous_state,
            "restartCount": self.restarts,
            "ready": self.is_running,
            "started": self.is_running,
        }


class PodStatus:
    """The status of one pod: changed as it lives, and rendered whole for each patch."""

    def __init__(self, pod: Pod) -> None:
        creating = "PodInitializing" if pod.init_containers else "ContainerCreating"
        self.init_containers = [
            ContainerStatus(container, {"waiting": {"reason": "PodInitializing"}})
            for container in pod.init_containers
        ]
        self.containers = [
            ContainerStatus(container, {"waiting": {"reason": creating}}) for container in pod.containers
        ]
        self.is_ending = False
        """Nothing is restarted any more: the pod is being deleted, or evicted."""
        self._restart_policy = pod.restart_policy
        self._reason = ""
        self._message = ""
        self._disruption: JSON | None = None
        self._started = now()
        self._condition_since: dict[str, tuple[bool, str]] = {}

    def find(self, container: str) -> ContainerStatus | None:
        """Return the status of a container by its name."""
        every = (*self.init_containers, *self.containers)
        return next((status for status in every if status.container.name == container), None)

    def evict(self, message: str) -> None:
        """Say that the kubelet ends the pod because its node runs out of something."""
        self.is_ending = True
        self._reason, self._message = "Evicted", message
        self._disruption = disruption("TerminationByKubelet", message)

    def restarts(self, status: ContainerStatus) -> bool:
        """Say whether a container that has ended is to be started again."""
        if self.is_ending or self._restart_policy == "Never":
            return False
        if self._restart_policy == "OnFailure" or status in self.init_containers:
            return status.exit_code != 0
        return True

    @property
    def phase(self) -> str:
        """Derive the phase from the containers' states: a kubelet's ``getPhase``."""
        if any(status.is_running for status in self.containers):
            is_complete = all(status.has_run for status in self.containers)
            return "Running" if is_complete else "Pending"
        if self.is_ending:
            succeeded = all(status.exit_code == 0 for status in self.containers)
            return "Succeeded" if succeeded else "Failed"
        if any(s.exit_code not in (None, 0) and not self.restarts(s) for s in self.init_containers):
            return "Failed"
        if not all(status.has_run for status in self.containers):
            return "Pending"
        if any(s.exit_code is None or self.restarts(s) for s in self.containers):
            return "Running"
        return "Failed" if any(status.exit_code for status in self.containers) else "Succeeded"

    def manifest(self) -> JSON:
        is_initialised = all(status.exit_code == 0 for status in self.init_containers)
        phase = self.phase
        is_ready = phase == "Running" and all(c.is_running for c in self.containers)
        conditions = [
            self._condition("PodReadyToStartContainers", phase in ("Pending", "Running")),
            self._condition("Initialized", is_initialised),
            self._condition("ContainersReady", is_ready),
            self._condition("Ready", is_ready),
        ]
        if self._disruption is not None:
            conditions.append(self._disruption)
        texts = {"reason": self._reason, "message": self._message}
        return {
            "phase": phase,
            **{name: text for name, text in texts.items() if text},
            "conditions": conditions,
            "startTime": self._started,
            "hostIP": LOOPBACK,
            "hostIPs": [{"ip": LOOPBACK}],
            "podIP": LOOPBACK,
            "podIPs": [{"ip": LOOPBACK}],
            "initContainerStatuses": [status.manifest() for status in self.init_containers],
            "containerStatuses": [status.manifest() for status in self.containers],
        }

    def _condition(self, kind: str, is_true: bool) -> JSON:
        was_true, since = self._condition_since.get(kind, (None, ""))
        if was_true is not is_true:
            since = now()
            self._condition_since[kind] = (is_true, since)
        return {"type": kind, "status": str(is_true), "lastTransitionTime": since}


def disruption(reason: str, message: str) -> JSON:
    """Return the condition that tells a disruption from a failure of the program."""
    return {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": now(),
    }


def now() -> str:
    """Return the present time as the API writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
