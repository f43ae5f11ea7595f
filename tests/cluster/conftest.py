import pytest

from tests.cluster.controllers import RULES, Controller
from tests.controlplane import rbac
from tests.controlplane.fixtures import admin, cluster, control_plane, namespace, nodes, user_with

__all__ = ["admin", "cluster", "control_plane", "namespace", "new_controller", "nodes", "user_with"]


@pytest.fixture
def new_controller(control_plane, user_with, namespace, tmp_path):
    """Return a function that makes a controller with the rights of the role, of one namespace."""
    rights = rbac.manifests_of_rules(RULES, namespace, name=f"autotuner-{namespace}", cluster_wide=False)
    token = user_with(rights).api_key["authorization"]
    kubeconfig = control_plane.write_kubeconfig(tmp_path / "kubeconfig", token, namespace)
    made = []

    def make(**settings):
        settings.setdefault("namespaces", namespace)
        controller = Controller(kubeconfig, tmp_path / f"controller-{len(made)}.log", **settings)
        made.append(controller)
        return controller

    yield make
    for controller in made:
        controller.kill()
