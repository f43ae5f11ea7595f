"""The control plane as pytest fixtures. A conftest imports by name those that its tests use."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from kubernetes import client

from tests.controlplane import build, rbac
from tests.controlplane.cluster import Cluster
from tests.controlplane.kueue import Kueue, Queue
from tests.controlplane.plane import ControlPlane
from tests.controlplane.trainer import Trainer
from tests.controlplane.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.controlplane.nodes import Nodes

_PLANE = pytest.StashKey[ControlPlane]()
_TRAINER = pytest.StashKey[Trainer]()
_KUEUE = pytest.StashKey[Kueue]()
_COUNT = itertools.count()


@pytest.fixture(scope="session")
def control_plane(pytestconfig: pytest.Config) -> ControlPlane:
    """The running control plane, one for the whole session whoever imports this fixture."""
    if _PLANE not in pytestconfig.stash:
        plane = ControlPlane.start(build.find())
        pytestconfig.stash[_PLANE] = plane
        pytestconfig.add_cleanup(plane.close)
    return pytestconfig.stash[_PLANE]


@pytest.fixture(scope="session")
def trainer(pytestconfig: pytest.Config, control_plane: ControlPlane) -> Trainer:
    """Trainer and JobSet on the control plane: installed when a test first asks, and from then on there."""
    if _TRAINER not in pytestconfig.stash:
        pytestconfig.stash[_TRAINER] = Trainer.start(control_plane)
    return pytestconfig.stash[_TRAINER]


@pytest.fixture(scope="session")
def kueue(pytestconfig: pytest.Config, control_plane: ControlPlane) -> Kueue:
    """Kueue on the control plane: installed when a test first asks, and from then on there."""
    if _KUEUE not in pytestconfig.stash:
        pytestconfig.stash[_KUEUE] = Kueue.start(control_plane)
    return pytestconfig.stash[_KUEUE]


@pytest.fixture
def new_queue(kueue: Kueue, admin: client.ApiClient, namespace: str) -> Iterator[Callable[..., Queue]]:
    """Return a function that makes a LocalQueue with a ClusterQueue of its own, gone after the test."""
    made: list[Queue] = []

    def make(name: str = "gpus", gpus: int = 2) -> Queue:
        made.append(Queue(admin, namespace, name, gpus))
        return made[-1]

    yield make
    for queue in made:
        queue.close()


@pytest.fixture(scope="session")
def admin(control_plane: ControlPlane) -> Iterator[client.ApiClient]:
    """A client that may do everything: for what a test prepares and checks."""
    with client.ApiClient(control_plane.configuration()) as api:
        yield api


@pytest.fixture
def namespace(admin: client.ApiClient, nodes: Nodes) -> Iterator[str]:
    """A fresh namespace, deleted after the test with all that is in it."""
    core = client.CoreV1Api(admin)
    name = f"test-{next(_COUNT)}"
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=name)))
    # Pods are refused until the controller manager has made their service account.
    eventually(lambda: core.list_namespaced_service_account(name).items)
    yield name
    core.delete_namespace(name)
    # Where the stand-in itself has failed, the test may have been silently wrong.
    assert nodes.take_failures() == []


@pytest.fixture
def cluster(admin: client.ApiClient, namespace: str) -> Cluster:
    """The fresh namespace, with the questions that tests ask of it."""
    return Cluster(admin, namespace)


@pytest.fixture
def nodes(control_plane: ControlPlane) -> Iterator[Nodes]:
    """The stand-in for scheduler and kubelets, healthy again after the test."""
    yield control_plane.nodes
    control_plane.nodes.heal()


@pytest.fixture
def user_with(
    control_plane: ControlPlane, admin: client.ApiClient, namespace: str
) -> Iterator[Callable[[Sequence[Mapping[str, Any]]], client.Configuration]]:
    """Return a function from RBAC manifests to the configuration of a user with just those rights.

    The manifests are such as a chart renders; see `rbac.create_user`, and `rbac.manifests_of_rules`
    for making some of bare rules.
    """
    created: list[Mapping[str, Any]] = []

    def create(manifests: Sequence[Mapping[str, Any]]) -> client.Configuration:
        created.extend(manifests)
        return control_plane.configuration(rbac.create_user(admin, manifests, namespace))

    yield create
    rbac.delete_user(admin, created)
