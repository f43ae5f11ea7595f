"""The Kubernetes backend keeps the contract with TrainJobs, whatever their runtime does about failures."""

import pytest
from kubernetes import client

from autotuner.backends.kubernetes import Api, KubernetesBackend
from autotuner.backends.kubernetes.api import jobs_path
from autotuner.backends.kubernetes.readers import job_of
from autotuner.job.kinds import TRAINJOB
from tests.cluster.controllers import RULES
from tests.contract.suite import BackendContract
from tests.controlplane import rbac
from tests.controlplane.train_jobs import API, PLURAL, Runtime

pytestmark = pytest.mark.usefixtures("trainer")


def as_train_job(manifest, reference):
    """Return the TrainJob that runs what the one kind of replica of a PyTorchJob does, on as many nodes."""
    (replica,) = manifest["spec"]["pytorchReplicaSpecs"].values()
    (container,) = replica["template"]["spec"]["containers"]
    trainer = {key: value for key, value in container.items() if key != "name"}
    trainer["numNodes"] = replica["replicas"]
    return {
        "apiVersion": "/".join(API),
        "kind": "TrainJob",
        "metadata": manifest["metadata"],
        "spec": {"runtimeRef": reference, "suspend": True, "trainer": trainer},
    }


class TrainJobHarness:
    def __init__(self, admin, configuration, namespace, reference):
        self._admin = admin
        self._configuration = configuration
        self._namespace = namespace
        self._reference = reference
        self.restart()

    def restart(self):
        self.api = Api(self._configuration)
        self.backend = KubernetesBackend(self.api, max_log_bytes=300_000)

    def register(self, manifest):
        made = as_train_job(manifest, self._reference)
        client.CustomObjectsApi(self._admin).create_namespaced_custom_object(
            *API, self._namespace, PLURAL, made
        )
        return self._read(made["metadata"]["name"])

    def reread(self, job):
        return self._read(job.name)

    def _read(self, name):
        path = jobs_path(self._namespace, name, TRAINJOB)
        return job_of(self.api, self.api.get(path), self._namespace)


class TestTrainJobs(BackendContract):
    @pytest.fixture(params=["the released runtime", "a runtime without retries"])
    def harness(self, request, admin, namespace, user_with):
        manifests = rbac.manifests_of_rules(RULES, namespace, name=f"contract-{namespace}", cluster_wide=True)
        is_released = request.param == "the released runtime"
        reference = (
            {"name": "torch-distributed"} if is_released else Runtime().create(admin, namespace).reference
        )
        return TrainJobHarness(admin, user_with(manifests), namespace, reference)
