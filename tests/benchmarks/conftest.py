from tests.cluster.conftest import new_controller
from tests.controlplane.fixtures import admin, control_plane, namespace, nodes, user_with

__all__ = ["admin", "control_plane", "namespace", "new_controller", "nodes", "user_with"]
