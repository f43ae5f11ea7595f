"""Questions that tests ask of one namespace of the cluster."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from kubernetes import client

from tests.controlplane.waiting import eventually

if TYPE_CHECKING:
    from tests.controlplane.jobs import Job

_KEEP = "test.autotuner.dev/keep"


class Cluster:
    """The pods and jobs of one namespace, as the admin sees them.

    Pods have one container. Their values are the Kubernetes client's models.
    """

    def __init__(self, admin: client.ApiClient, namespace: str) -> None:
        self.admin, self.namespace = admin, namespace
        self.core = client.CoreV1Api(admin)

    def create(self, job: Job) -> None:
        """Create a job."""
        job.create(self.admin, self.namespace)

    def run(self, job: Job) -> None:
        """Create a job and wait until all its pods run."""
        self.create(job)
        eventually(lambda: all(self._phase(pod) == "Running" for pod in job.pods))

    def conditions(self, job: Job) -> dict[str, str]:
        """Return the job's conditions that hold, each with its reason."""
        return job.conditions(self.admin, self.namespace)

    def wait_until(self, job: Job, condition: str) -> None:
        """Wait until a condition of the job holds.

        Raises:
            AssertionError: the job has ended otherwise.
        """
        ended = {"Succeeded", "Failed"} - {condition}
        held = eventually(lambda: self.conditions(job).keys() & {condition, *ended})
        assert held == {condition}, "\n".join(f"{pod}:\n{self.log(pod)}" for pod in job.pods)

    def pod(self, name: str) -> Any:
        """Return a pod; None where there is none."""
        try:
            return self.core.read_namespaced_pod(name, self.namespace)
        except client.ApiException as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    def container(self, pod: str) -> Any:
        """Return the status of a pod's container, waiting until there is one."""
        statuses = eventually(lambda: (p := self.pod(pod)) and p.status.container_statuses)
        return statuses[0]

    def terminated(self, pod: str) -> Any:
        """Return the terminated state of a pod's container, waiting until it ends."""
        return eventually(lambda: self.container(pod).state.terminated)

    def condition(self, pod: str, kind: str) -> Any:
        """Return a condition of a pod, waiting until it is there."""

        def find() -> Any:
            found = self.pod(pod)
            conditions = (found and found.status.conditions) or ()
            return next((condition for condition in conditions if condition.type == kind), None)

        return eventually(find)

    def wait_until_waiting(self, pod: str, reason: str) -> None:
        """Wait until a pod's container waits for a reason."""
        eventually(lambda: (waiting := self.container(pod).state.waiting) and waiting.reason == reason)

    def log(self, pod: str, **options: Any) -> str:
        """Return the log of a pod's container."""
        return str(self.core.read_namespaced_pod_log(pod, self.namespace, **options))

    def keep(self, pod: str) -> None:
        """Keep a pod's object, which would else be gone as soon as its program has ended."""
        self._set_finalizers(pod, [_KEEP])

    def let_go(self, pod: str) -> None:
        """Keep a pod's object no longer."""
        self._set_finalizers(pod, None)

    def _set_finalizers(self, pod: str, finalizers: list[str] | None) -> None:
        self.core.patch_namespaced_pod(pod, self.namespace, {"metadata": {"finalizers": finalizers}})

    def _phase(self, pod: str) -> str | None:
        found = self.pod(pod)
        return None if found is None else str(found.status.phase)
