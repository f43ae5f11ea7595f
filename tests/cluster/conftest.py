from tests.controlplane.fixtures import admin, control_plane, namespace, nodes, user_with

__all__ = ["admin", "control_plane", "namespace", "nodes", "user_with"]
