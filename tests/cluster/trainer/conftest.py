import pytest

from tests.cluster.controllers import RULES, Controller
from tests.controlplane import rbac
from tests.controlplane.fixtures import kueue, new_queue, trainer

__all__ = ["kueue", "new_controller", "new_queue", "trainer"]


@pytest.fixture
def new_controller(control_plane, user_with, namespace, tmp_path):
    """Return a function that makes a controller for one namespace with the ClusterRole of the chart.

    A Role cannot read ClusterTrainingRuntimes.
    """
    rights = rbac.manifests_of_rules(RULES, namespace, name=f"autotuner-{namespace}", cluster_wide=True)
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
