from tests.cluster.trainer.conftest import new_controller
from tests.controlplane.fixtures import admin, control_plane, namespace, nodes, trainer, user_with

__all__ = ["admin", "control_plane", "namespace", "new_controller", "nodes", "trainer", "user_with"]
