import pytest

from tests.cluster.controllers import controllers
from tests.controlplane.fixtures import admin, cluster, control_plane, namespace, nodes, user_with

__all__ = ["admin", "cluster", "control_plane", "namespace", "new_controller", "nodes", "user_with"]


@pytest.fixture
def new_controller(control_plane, user_with, namespace, tmp_path):
    """Return a function that makes a controller with the rights of the role, of one namespace."""
    with controllers(control_plane, user_with, namespace, tmp_path, cluster_wide=False) as make:
        yield make
