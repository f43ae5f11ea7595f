"""The Kubernetes backend keeps the contract."""

import pytest
from kubernetes import client

from autotuner.backends.kubernetes import Api, KubernetesBackend
from autotuner.backends.kubernetes.api import jobs_path
from autotuner.job.job import Job
from tests.cluster.controllers import RULES
from tests.cluster.tuned_jobs import API, PLURAL
from tests.contract.suite import BackendContract
from tests.controlplane import rbac


class KubernetesHarness:
    def __init__(self, admin, configuration, namespace):
        self._admin = admin
        self._configuration = configuration
        self._namespace = namespace
        self.restart()

    def restart(self):
        self.api = Api(self._configuration)
        self.backend = KubernetesBackend(self.api, max_log_bytes=300_000)

    def register(self, manifest):
        client.CustomObjectsApi(self._admin).create_namespaced_custom_object(
            *API, self._namespace, PLURAL, manifest
        )
        return Job.from_manifest(self.api.get(jobs_path(self._namespace, manifest["metadata"]["name"])))

    def reread(self, job):
        return Job.from_manifest(self.api.get(jobs_path(job.namespace, job.name)))


class TestKubernetes(BackendContract):
    @pytest.fixture
    def harness(self, admin, namespace, user_with):
        manifests = rbac.manifests_of_rules(
            RULES, namespace, name=f"contract-{namespace}", cluster_wide=False
        )
        return KubernetesHarness(admin, user_with(manifests), namespace)
