"""The life of one bound pod, as a kubelet leads it.

A `PodWorker` pulls images, creates containers from the pod's specification, runs the init
containers one after the other and then the containers side by side, restarts what its policy says,
reports each change in the pod's status, and at a deletion ends everything within the grace period,
reports the end, and only then removes the Pod object. It is one task on the event loop; a hundred
of them cost what their processes cost.

One init container is not run but understood: ``init-pytorch``, which the training operator puts
before each worker, waits until the master's name resolves. No name resolves here, so the worker
asks whether the master's pod runs.

What a kubelet does and this does not: most volumes (see `tests.controlplane.volumes`), probes, life-cycle
hooks, resource limits, sidecars (init containers that go on), and a message from ``terminationMessagePath``.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import shutil
import uuid
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tests.controlplane.environment import ConfigurationError, command_line, environment
from tests.controlplane.execution import ProcessExecution, ScriptExecution, StartError
from tests.controlplane.images import Image, Invocation, machine_environment
from tests.controlplane.logs import ContainerLog, NoLogError
from tests.controlplane.status import PodStatus
from tests.controlplane.volumes import Mounts

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from tests.controlplane.execution import Execution
    from tests.controlplane.pod import Container, Pod
    from tests.controlplane.status import JSON, ContainerStatus

_WAITS_FOR_MASTER = "init-pytorch"
_MASTER_WAIT_SECONDS = 200.0  # the operator's 100 tries, two seconds apart
_MASTER_POLL_SECONDS = 0.1
_START_FAILED = 128
_PULL_FAILURES = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}


class Host(Protocol):
    """What a pod's worker needs of the machine and the cluster."""

    environment: Mapping[str, str]
    """Variables that every program gets."""
    retry_seconds: float
    """How long until a container that failed, or could not be created, is tried again."""

    def image(self, name: str) -> Image | None:
        """Return what an image's name stands for; None while it cannot be pulled."""

    def job_port(self, pod: Pod) -> int | None:
        """Return the port on which the master of the pod's job listens."""

    def master_runs(self, pod: Pod) -> bool:
        """Say whether the master of the pod's job is running."""

    def folder(self, pod: Pod) -> Path:
        """Return a folder that only this pod uses, not necessarily existing."""

    def read_object(self, kind: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        """Read a ConfigMap or Secret. It blocks."""

    def request_token(self, pod: Pod, audience: str | None, seconds: int) -> str | None:
        """Request a token of the pod's service account; None if one is gone. It blocks."""

    async def patch_status(self, pod: Pod, status: JSON) -> None:
        """Write a pod's status, unless the pod is gone."""

    async def remove(self, pod: Pod) -> None:
        """Remove the Pod object, its containers having ended."""


@dataclass(frozen=True)
class Fate:
    """An end that is forced upon a container."""

    exit_code: int
    reason: str
    last_words: str = ""
    """What it writes to its log before."""


class PodWorker:
    """Leads one pod from its binding to its removal. To be used on one event loop only."""

    def __init__(self, pod: Pod, host: Host) -> None:
        self.pod = pod
        self.status = PodStatus(pod)
        self._host = host
        self._executions: dict[str, Execution] = {}
        self._fates: dict[str, Fate] = {}
        self._grace_seconds = 0.0
        self._is_stopped = asyncio.Event()
        self._is_deleted = asyncio.Event()
        self._reporting = asyncio.Lock()
        self._reported: JSON = {}
        self.life = asyncio.create_task(self._live(), name=f"{pod.namespace}/{pod.name}")

    def delete(self, grace_seconds: float) -> None:
        """End the pod within ``grace_seconds``, then remove it; again is harmless."""
        if not self._is_deleted.is_set():
            self.status.is_ending = True
            self._grace_seconds = grace_seconds
            self._is_deleted.set()
            self._is_stopped.set()

    def evict(self, message: str) -> None:
        """End the pod at once as failed, and leave its object."""
        self.status.evict(message)
        self._is_stopped.set()

    def end_container(self, container: str, fate: Fate) -> None:
        """Force an end upon a running container.

        Raises:
            ValueError: it is not running.
        """
        status = self.status.find(container)
        if container not in self._executions or status is None or status.log is None:
            raise ValueError(
                f"container {container} of pod {self.pod.name} is not running, it is in state "
                f"{status and status.state}: wait until it runs"
            )
        status.log.append(fate.last_words.encode())
        self._fates[container] = fate
        self._executions[container].kill()

    def find_log(self, container: str, previous: bool) -> ContainerLog:
        """Return the log of a container's last run, or of the one before.

        Raises:
            NoLogError: there is none; a kubelet's ``validateContainerLogStatus`` words it so.
        """
        place = f'container "{container}" in pod "{self.pod.name}"'
        status = self.status.find(container)
        if status is None:
            raise NoLogError(HTTPStatus.NOT_FOUND, f"{place} is not available")
        if previous:
            if status.previous_log is None:
                raise NoLogError(HTTPStatus.BAD_REQUEST, f"previous terminated {place} not found")
            return status.previous_log
        if status.log is None:
            reason = status.waiting_reason or ""
            explained = _PULL_FAILURES.get(reason, reason)
            raise NoLogError(HTTPStatus.BAD_REQUEST, f"{place} is waiting to start: {explained}")
        if status.has_lost_log:
            raise NoLogError(
                HTTPStatus.BAD_REQUEST, f"unable to retrieve container logs for {status.container_id}"
            )
        return status.log

    def break_logs(self) -> None:
        """Break off every answer that follows a log of the pod, as its node is lost."""
        for status in (*self.status.init_containers, *self.status.containers):
            if status.log is not None and status.is_running:
                status.log.break_off()

    async def vanish(self) -> None:
        """End everything without a word to the API server: the object or the node is gone."""
        self.life.cancel()
        for execution in self._executions.values():
            execution.kill()
        await asyncio.gather(*(execution.wait() for execution in self._executions.values()))
        for status in (*self.status.init_containers, *self.status.containers):
            if status.log is not None:
                status.log.end()
        await asyncio.to_thread(shutil.rmtree, self._host.folder(self.pod), ignore_errors=True)

    async def _live(self) -> None:
        await self._report()
        running = asyncio.create_task(self._run_all())
        stopped = asyncio.create_task(self._is_stopped.wait())
        try:
            await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                await self._stop(running)
            await running
            await self._report()
            await self._is_deleted.wait()
            await self._host.remove(self.pod)
        finally:
            running.cancel()
            stopped.cancel()

    async def _stop(self, running: asyncio.Task[None]) -> None:
        for execution in self._executions.values():
            execution.terminate()
        await asyncio.wait({running}, timeout=self._grace_seconds)
        for execution in self._executions.values():
            execution.kill()

    async def _run_all(self) -> None:
        for status in self.status.init_containers:
            await self._run(status)
            if status.exit_code != 0:
                return
        await asyncio.gather(*(self._run(status) for status in self.status.containers))

    async def _run(self, status: ContainerStatus) -> None:
        """Run a container again and again, as the pod's restart policy says."""
        while not self._is_stopped.is_set():
            await self._run_once(status)
            await self._report()
            if status.exit_code is not None and not self.status.restarts(status):
                return
            if status.exit_code is not None:
                status.wait_for("CrashLoopBackOff", "back-off restarting failed container")
                await self._report()
            await self._pause()

    async def _run_once(self, status: ContainerStatus) -> None:
        """Run a container to its end; or leave it waiting, if it cannot be created."""
        container = status.container
        image = self._host.image(container.image)
        if image is None:
            # A kubelet says ErrImagePull after each try, and ImagePullBackOff between them.
            failed_before = status.waiting_reason == "ErrImagePull"
            status.wait_for(
                "ImagePullBackOff" if failed_before else "ErrImagePull",
                f'Back-off pulling image "{container.image}"',
            )
            return
        log = ContainerLog()
        container_id = uuid.uuid4().hex
        try:
            execution = await self._execute(container, image, log, container_id)
        except ConfigurationError as error:
            status.wait_for("CreateContainerConfigError", str(error))
            return
        except StartError as error:
            log.end()
            status.run(f"local://{container_id}", log)
            status.terminate(_START_FAILED, "StartError", str(error))
            return
        self._executions[container.name] = execution
        if self._is_stopped.is_set():  # told so while the container was being created
            execution.terminate()
        status.run(f"local://{container_id}", log)
        await self._report()
        exit_code = await execution.wait()
        del self._executions[container.name]
        log.end()
        usual = Fate(exit_code, "Error" if exit_code else "Completed")
        fate = self._fates.pop(container.name, usual)
        shows_log = container.falls_back_to_logs and fate.exit_code != 0
        status.terminate(fate.exit_code, fate.reason, log.last_words() if shows_log else "")

    async def _execute(
        self, container: Container, image: Image, log: ContainerLog, container_id: str
    ) -> Execution:
        if container.name == _WAITS_FOR_MASTER:
            return ScriptExecution(Image(script=self._wait_for_master), Invocation((), {}), log)
        port = self._host.job_port(self.pod)
        variables = await asyncio.to_thread(environment, container, self.pod, self._host.read_object, port)
        command = command_line(image.command_of(container), variables, self.pod, port)
        mounts = Mounts(container, self.pod, self._host)
        variables = await asyncio.to_thread(mounts.localise_variables, variables)
        command = await asyncio.to_thread(mounts.localise_command, command)
        if image.script is not None:
            return ScriptExecution(image, Invocation(command, variables), log)
        if not command:
            raise StartError(f"image {container.image} has no entry point: give a command")
        return ProcessExecution(
            image.localise_command(command),
            {
                **machine_environment(self._host.folder(self.pod), self.pod.host_name),
                **self._host.environment,
                **image.environment,
                **variables,
            },
            self._working_dir(container, image),
            log,
            container_id,
        )

    def _working_dir(self, container: Container, image: Image) -> Path:
        """Return where to run: the place named, or a new one in the pod's folder."""
        folder = self._host.folder(self.pod)
        found = Path(image.localise(container.working_dir) or folder)
        if container.working_dir and not found.is_dir():
            # A container runtime creates what the image lacks, but not on the machine itself.
            found = folder / found.relative_to("/")
        found.mkdir(parents=True, exist_ok=True)
        return found

    def _wait_for_master(self, _: Invocation) -> Generator[tuple[float, str], None, int]:
        for _try in range(round(_MASTER_WAIT_SECONDS / _MASTER_POLL_SECONDS)):
            if self._host.master_runs(self.pod):
                return 0
            yield _MASTER_POLL_SECONDS, "waiting for master"
        return 1

    async def _pause(self) -> None:
        """Wait before a next try, but no longer than until the pod is to stop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_stopped.wait(), self._host.retry_seconds)

    async def _report(self) -> None:
        async with self._reporting:
            manifest = self.status.manifest()
            if manifest != self._reported:
                await self._host.patch_status(self.pod, manifest)
                self._reported = copy.deepcopy(manifest)
