from tests.controlplane.fixtures import (
    admin,
    cluster,
    control_plane,
    namespace,
    nodes,
    user_with,
)

__all__ = ["admin", "cluster", "control_plane", "namespace", "nodes", "user_with"]
