"""Nodes on which pods run as processes: a stand-in for kube-scheduler and kubelets.

`Nodes` registers Node objects, watches all pods once for all nodes, binds the pending ones, leads
each bound one by a `PodWorker`, and serves logs to the API server. All of that runs on one event
loop in a thread of its own; requests to the API server go through a small pool of threads. So
hundreds of pods cost what their programs cost, and next to nothing where those are scripts.

Tests use it in two ways: they say what an image's name stands for (`add_image`), and they make pods
fail in each way in which a cluster does (`kill_for_memory` and what follows it). Both may be done
from any thread; a failure's method returns once it has been inflicted, which the pod's status shows
a moment later.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from tests.controlplane import failures, scheduler
from tests.controlplane.images import Image
from tests.controlplane.kubelet import Fate, PodWorker
from tests.controlplane.logs import ContainerLog, LogServer, NoLogError
from tests.controlplane.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from pathlib import Path

    from tests.controlplane.pod import Pod
    from tests.controlplane.pod_api import PodApi
    from tests.controlplane.status import JSON, ContainerStatus

NODE_NAMES = ("node-0", "node-1")
GPUS_A_NODE = 64

_API_THREADS = 8
_CALL_SECONDS = 60.0

_Result = TypeVar("_Result")
_logger = logging.getLogger(__name__)


class Nodes:
    """Scheduler, kubelets and failures of a few nodes."""

    retry_seconds = 0.5
    """How long until a container is tried again; a kubelet takes 10 s, then twice as long, ..."""

    def __init__(
        self,
        api: PodApi,
        *,
        certificate: Path,
        key: Path,
        folder: Path,
        environment: Mapping[str, str],
    ) -> None:
        """Register the nodes and take up pods.

        Args:
            api: of a user who may do all this; it is closed with the nodes.
            certificate: what the log server shows; the API server does not check it.
            key: the certificate's.
            folder: where pods get folders.
            environment: variables that every program gets.
        """
        self.environment = environment
        self._failures: list[BaseException] = []
        self._folder = folder
        self._images: dict[str, Image] = {}
        self._broken_images: set[str] = set()
        self._nodes = {
            name: scheduler.Node(name, GPUS_A_NODE, {"kubernetes.io/hostname": name}) for name in NODE_NAMES
        }
        self._pending: dict[str, Pod] = {}  # by UID, oldest first
        self._complaints: dict[str, str] = {}  # what was last said of a pod that has no place
        self._workers: dict[str, PodWorker] = {}  # by UID
        self._masters: dict[str, PodWorker] = {}  # by their pods' group
        self._lost: dict[str, Pod] = {}  # pods of lost nodes, by UID
        self._job_ports: dict[str, int] = {}  # by the pods' group
        self._tasks: set[asyncio.Task[None]] = set()
        self._api = api
        self._api_threads = ThreadPoolExecutor(_API_THREADS, thread_name_prefix="nodes-api")
        self._log_server = LogServer(self._find_log)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="nodes", daemon=True)
        self._thread.start()
        port = self._call(self._log_server.start(certificate, key))
        for node in self._nodes.values():
            self._api.register_node(node.name, node.labels, node.gpus, port)
            self._api.patch_node_status(node.name, failures.readiness("True", "KubeletReady"))
        threading.Thread(
            target=self._api.follow_pods,
            args=(self._on_loop(self._take_up), self._on_loop(self._follow)),
            name="nodes-watch",
            daemon=True,
        ).start()

    def close(self) -> None:
        """End all pods at once; their objects stay. Closing twice is harmless."""
        if self._loop.is_closed():
            return
        self._api.close()
        self._call(self._end_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._api_threads.shutdown(wait=False, cancel_futures=True)

    def take_failures(self) -> list[BaseException]:
        """Return the stand-in's own errors since this was last asked, so that each fails one test."""
        taken, self._failures = self._failures, []
        return taken

    # What tests do: images and failures

    def add_image(self, name: str, image: Image) -> None:
        """Say what an image's name stands for, from the next container on."""
        self._images[name] = image

    def break_image(self, name: str) -> None:
        """Let pulls of an image fail: its pods stay pending with ImagePullBackOff."""
        self._broken_images.add(name)

    def mend_image(self, name: str) -> None:
        """Let pulls of an image succeed again; pods that wait for it then start."""
        self._broken_images.discard(name)

    def kill_for_memory(self, namespace: str, pod: str, container: str | None = None) -> None:
        """Kill a container as the kernel does when it exceeds its memory limit."""
        self._end_container(namespace, pod, container, Fate(137, "OOMKilled"))

    def fail_for_cuda_memory(self, namespace: str, pod: str, container: str | None = None) -> None:
        """Fail a container as PyTorch does when the GPU's memory does not suffice."""
        self.crash(namespace, pod, 1, failures.CUDA_OUT_OF_MEMORY, container)

    def crash(
        self,
        namespace: str,
        pod: str,
        exit_code: int,
        last_words: str,
        container: str | None = None,
    ) -> None:
        """End a container with an exit code, after some last words in its log."""
        self._end_container(namespace, pod, container, Fate(exit_code, "Error", last_words))

    def lose_log(self, namespace: str, pod: str, container: str | None = None) -> None:
        """Lose a container's log, as when its node cleans up: asking for it then is an error."""
        self._call(self._lose_log(namespace, pod, container))

    def rotate_log(self, namespace: str, pod: str, lines: int, container: str | None = None) -> None:
        """Cut a container's log down to its newest lines, as a kubelet does with one of 10 MiB."""
        self._call(self._rotate_log(namespace, pod, lines, container))

    def evict(self, namespace: str, pod: str, message: str = "The node was low on resource: memory.") -> None:
        """End a pod as a kubelet does when its node runs out of something."""
        self._call(self._evict(namespace, pod, message))

    def preempt(self, namespace: str, pod: str) -> None:
        """Delete a pod as kube-scheduler does to make room for one of higher priority."""
        found = self._call(self._find_pod(namespace, pod))
        self._api.patch_status(found, {"conditions": [failures.preempted()]})
        self._api.delete(found)

    def lose(self, node: str) -> None:
        """Lose a node: its pods' processes are gone, and it no longer answers.

        The control plane gives the node up and deletes its pods, which therefore stay terminating,
        as after the five minutes that it usually takes: the default of ``tolerationSeconds``.
        """
        pods = self._call(self._lose(node))
        self._api.patch_node_status(node, failures.readiness("Unknown", "NodeStatusUnknown"))
        self._api.patch_node(node, {"taints": [failures.UNREACHABLE]})
        for pod in pods:
            self._api.patch_status(pod, {"conditions": failures.lost()})
            self._api.delete(pod)

    def recover(self, node: str) -> None:
        """Bring a lost node back: its kubelet removes the pods that were deleted meanwhile."""
        self._api.patch_node(node, {"taints": None})
        self._api.patch_node_status(node, failures.readiness("True", "KubeletReady"))
        for pod in self._call(self._recover(node)):
            self._api.delete(pod, grace_seconds=0)

    def cordon(self) -> None:
        """Make every node unschedulable: new pods stay pending, PodScheduled being false."""
        self._set_cordon(True)

    def uncordon(self) -> None:
        """Make every node schedulable again; pods that wait for one then start."""
        self._set_cordon(False)

    def heal(self) -> None:
        """Take back every failure that outlasts a pod, and every image."""
        self._broken_images.clear()
        self._images.clear()
        for node in self._nodes.values():
            if node.is_lost:
                self.recover(node.name)
            if node.is_cordoned:
                self.uncordon()

    # What pod workers need

    def image(self, name: str) -> Image | None:
        if name in self._broken_images:
            return None
        return self._images.get(name, _THE_MACHINE)

    def job_port(self, pod: Pod) -> int | None:
        if pod.job_name is None or pod.group is None:
            return None
        while pod.group not in self._job_ports:
            port = free_port()
            if port not in self._job_ports.values():
                self._job_ports[pod.group] = port
        return self._job_ports[pod.group]

    def master_runs(self, pod: Pod) -> bool:
        master = self._masters.get(pod.group or "")
        return master is not None and master.status.phase != "Pending"

    def folder(self, pod: Pod) -> Path:
        return self._folder / pod.uid

    def read_object(self, kind: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        return self._api.read_object(kind, namespace, name)

    def request_token(self, pod: Pod, audience: str | None, seconds: int) -> str | None:
        return self._api.request_token(pod, audience, seconds)

    async def patch_status(self, pod: Pod, status: JSON) -> None:
        await self._request(self._api.patch_status, pod, status)

    async def remove(self, pod: Pod) -> None:
        await self._request(self._api.delete, pod, 0)

    # Pods come, change and go

    def _take_up(self, pods: list[Pod]) -> None:
        for uid in {*self._pending, *self._workers, *self._lost} - {pod.uid for pod in pods}:
            self._forget(uid)
        for pod in pods:
            self._follow("ADDED", pod)

    def _follow(self, change: str, pod: Pod) -> None:
        if change == "DELETED":
            self._forget(pod.uid)
        elif pod.node is None:
            is_being_bound = any(pod.uid in node.pods for node in self._nodes.values())
            if not is_being_bound:
                self._pending[pod.uid] = pod
        elif pod.uid not in self._lost and (node := self._nodes.get(pod.node)) and not node.is_lost:
            self._lead(pod, node)
        self._schedule()

    def _lead(self, pod: Pod, node: scheduler.Node) -> None:
        worker = self._workers.get(pod.uid)
        if pod.is_over:
            node.pods.pop(pod.uid, None)
        elif worker is None:
            node.pods[pod.uid] = pod
            worker = self._workers[pod.uid] = PodWorker(pod, self)
            worker.life.add_done_callback(self._note_failure)
            if pod.is_master and pod.group is not None:
                self._masters[pod.group] = worker
        if worker is not None and pod.grace_seconds is not None:
            worker.delete(pod.grace_seconds)

    def _forget(self, uid: str) -> None:
        self._pending.pop(uid, None)
        self._complaints.pop(uid, None)
        self._lost.pop(uid, None)
        for node in self._nodes.values():
            node.pods.pop(uid, None)
        worker = self._workers.pop(uid, None)
        if worker is None:
            return
        self._spawn(worker.vanish())
        group = worker.pod.group
        if group is not None and not any(w.pod.group == group for w in self._workers.values()):
            self._job_ports.pop(group, None)
            self._masters.pop(group, None)

    def _schedule(self) -> None:
        for pod in list(self._pending.values()):
            choice = scheduler.choose(pod, self._nodes.values())
            if isinstance(choice, scheduler.Node):
                del self._pending[pod.uid]
                choice.pods[pod.uid] = pod
                self._spawn(self._bind(pod, choice))
            elif self._complaints.get(pod.uid) != choice:
                self._complaints[pod.uid] = choice
                self._spawn(self.patch_status(pod, {"conditions": [failures.unschedulable(choice)]}))

    async def _bind(self, pod: Pod, node: scheduler.Node) -> None:
        if not await self._request(self._api.bind, pod, node.name):
            node.pods.pop(pod.uid, None)

    # On the loop

    def _end_container(self, namespace: str, pod: str, container: str | None, fate: Fate) -> None:
        async def end() -> None:
            worker = self._worker(namespace, pod)
            worker.end_container(container or worker.pod.containers[0].name, fate)

        self._call(end())

    async def _evict(self, namespace: str, pod: str, message: str) -> None:
        self._worker(namespace, pod).evict(message)

    async def _lose_log(self, namespace: str, pod: str, container: str | None) -> None:
        self._logged(namespace, pod, container)[0].has_lost_log = True

    async def _rotate_log(self, namespace: str, pod: str, lines: int, container: str | None) -> None:
        self._logged(namespace, pod, container)[1].rotate(lines)

    def _logged(
        self, namespace: str, pod: str, container: str | None
    ) -> tuple[ContainerStatus, ContainerLog]:
        worker = self._worker(namespace, pod)
        status = worker.status.find(container or worker.pod.containers[0].name)
        if status is None or status.log is None:
            raise ValueError(f"container {container} of pod {namespace}/{pod} has no log yet")
        return status, status.log

    async def _find_pod(self, namespace: str, name: str) -> Pod:
        return self._worker(namespace, name).pod

    async def _lose(self, name: str) -> list[Pod]:
        self._nodes[name].is_lost = True
        on_node = [worker for worker in self._workers.values() if worker.pod.node == name]
        for worker in on_node:
            worker.break_logs()
        # Pods that are over have nothing to lose: their logs are back with the node.
        workers = [worker for worker in on_node if worker.status.phase in ("Pending", "Running")]
        for worker in workers:
            del self._workers[worker.pod.uid]
            self._lost[worker.pod.uid] = worker.pod
        await asyncio.gather(*(worker.vanish() for worker in workers))
        return [worker.pod for worker in workers]

    async def _recover(self, name: str) -> list[Pod]:
        self._nodes[name].is_lost = False
        self._schedule()
        return [pod for pod in self._lost.values() if pod.node == name]

    def _set_cordon(self, is_cordoned: bool) -> None:
        async def set_on_loop() -> None:
            for node in self._nodes.values():
                node.is_cordoned = is_cordoned
            self._schedule()

        for name in NODE_NAMES:
            self._api.patch_node(name, {"unschedulable": is_cordoned})
        self._call(set_on_loop())

    # Logs

    def _find_log(self, namespace: str, pod: str, container: str, previous: bool) -> ContainerLog:
        if any((lost.namespace, lost.name) == (namespace, pod) for lost in self._lost.values()):
            raise ConnectionAbortedError(f"the node of pod {pod} is lost")
        try:
            worker = self._worker(namespace, pod)
        except ValueError as error:
            raise NoLogError(HTTPStatus.NOT_FOUND, str(error)) from error
        if self._nodes[worker.pod.node or ""].is_lost:
            raise ConnectionAbortedError(f"the node of pod {pod} is lost")
        return worker.find_log(container, previous)

    def _worker(self, namespace: str, name: str) -> PodWorker:
        for worker in self._workers.values():
            if (worker.pod.namespace, worker.pod.name) == (namespace, name):
                return worker
        raise ValueError(f"no pod {namespace}/{name} on any node: wait until it is bound")

    def _call(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL_SECONDS)

    def _on_loop(self, function: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: object) -> None:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(function, *arguments)

        return call

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self._note_failure)

    def _note_failure(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failures.append(error)
            _logger.error("the node stand-in failed", exc_info=error)

    async def _request(self, function: Callable[..., _Result], *arguments: object) -> _Result:
        return await self._loop.run_in_executor(self._api_threads, function, *arguments)

    async def _end_all(self) -> None:
        self._log_server.close()
        workers = list(self._workers.values())
        self._workers.clear()
        await asyncio.gather(*(worker.vanish() for worker in workers))
        for task in self._tasks:
            task.cancel()


_THE_MACHINE = Image()
