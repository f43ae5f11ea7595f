"""What the chart makes, as a real API server takes it; and a release's whole life with Helm."""

import copy
import json
from collections.abc import Generator, Mapping
from typing import Any

import pytest
import yaml
from kubernetes import client, dynamic

from tests.controlplane.images import Image, Invocation
from tests.controlplane.waiting import eventually
from tests.helm.chart import CHART, FULLNAME, RELEASE, ROOT, find, helm, one, render

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
WATCHED = {
    "serviceMonitor": {
        "enabled": True,
        "labels": {"release": "prometheus"},
        "relabelings": [{"action": "labeldrop", "regex": "pod"}],
        "metricRelabelings": [{"action": "drop", "sourceLabels": ["__name__"], "regex": "python_.*"}],
    },
    "prometheusRule": {"enabled": True, "extraRules": [{"alert": "Mine", "expr": "up == 0"}]},
    "dashboard": {"enabled": True},
    "networkPolicy": {"enabled": True, "ingressFrom": [{"namespaceSelector": {}}]},
}
LADEN = {
    "commonLabels": {"team": "ml"},
    "commonAnnotations": {"owner": "me"},
    "imagePullSecrets": [{"name": "registry"}],
    "service": {"annotations": {"a": "b"}},
    "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
    "podLabels": {"sidecar.example.com/inject": "false"},
    "podAnnotations": {"a": "b"},
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "cpu", "operator": "Exists"}],
    "dnsPolicy": "None",
    "dnsConfig": {"nameservers": ["192.0.2.1"]},
    "extraArgs": ["--threads=2"],
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://192.0.2.1"}],
    "extraEnvFrom": [{"secretRef": {"name": "more", "optional": True}}],
    "extraVolumes": [{"name": "cache", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "cache", "mountPath": "/cache"}],
    "extraObjects": ["apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-extra\n"],
    "rbac": {"extraRules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]},
}
MODES: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "highly available": {"replicaCount": 3},
    "watched": WATCHED,
    "laden": LADEN,
    "bare": {
        "serviceAccount": {"create": False},
        "rbac": {"create": False},
        "leaderElection": {"enabled": False},
        "test": {"enabled": False},
    },
}


def dry_run(admin: client.ApiClient, document: Mapping[str, Any], namespace: str) -> None:
    """Have the server do all but store the object, and refuse fields that it does not know."""
    resource = dynamic.DynamicClient(admin).resources.get(
        api_version=document["apiVersion"], kind=document["kind"]
    )
    where = {"namespace": document["metadata"].get("namespace", namespace)} if resource.namespaced else {}
    resource.create(body=document, dry_run="All", query_params=[("fieldValidation", "Strict")], **where)


@pytest.fixture
def restricted(admin, namespace):
    """A namespace that admits only pods that Pod Security calls restricted."""
    client.CoreV1Api(admin).patch_namespace(namespace, {"metadata": {"labels": RESTRICTED}})
    return namespace


@pytest.mark.parametrize("values", MODES.values(), ids=MODES)
@pytest.mark.usefixtures("monitoring_kinds")
def test_server_takes_every_object_of_each_mode(admin, restricted, values):
    for document in render(at=restricted, **values):
        dry_run(admin, document, restricted)


def test_server_takes_every_object_of_the_namespaced_mode(admin, restricted):
    for document in render(at=restricted, namespaces=[restricted, "default"]):
        dry_run(admin, document, restricted)


@pytest.mark.parametrize("name", ["autotuner.yaml", "autotuner-namespaced.yaml"])
def test_server_takes_the_plain_manifests(admin, namespace, name):
    home, *others = yaml.safe_load_all((ROOT / "deploy" / name).read_text())
    core = client.CoreV1Api(admin)
    dry_run(admin, home, namespace)
    assert home["metadata"]["labels"] == RESTRICTED
    for document in others:
        # As if the first had been applied; one that is deleted cannot be made again at once.
        placed = copy.deepcopy(document)
        if placed["metadata"].get("namespace") == home["metadata"]["name"]:
            placed["metadata"]["namespace"] = namespace
        dry_run(admin, placed, namespace)
    assert core.read_namespace(namespace)


def test_restricted_namespace_refuses_what_the_chart_would_not_make(admin, restricted):
    template = one(render(at=restricted), "Deployment")["spec"]["template"]
    # The account does not exist, which is not what this is about.
    spec = {**template["spec"], "serviceAccountName": "default"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "controller"}, "spec": spec}
    dry_run(admin, pod, restricted)
    for where, field in (
        (("securityContext",), "runAsNonRoot"),
        (("securityContext",), "seccompProfile"),
        (("containers", 0, "securityContext"), "allowPrivilegeEscalation"),
        (("containers", 0, "securityContext"), "capabilities"),
    ):
        loosened = copy.deepcopy(pod)
        part = loosened["spec"]
        for step in where:
            part = part[step]
        del part[field]
        with pytest.raises(client.ApiException) as refused:
            dry_run(admin, loosened, restricted)
        assert refused.value.status == 403
        assert field in str(refused.value.body)


def _waits(_: Invocation) -> Generator[tuple[float, str]]:
    while True:
        yield 3600.0, "still here"


@pytest.fixture
def on_cluster(control_plane, tmp_path, restricted):
    """Helm with this control plane and namespace."""
    kubeconfig = str(control_plane.write_kubeconfig(tmp_path / "kubeconfig"))

    def run(*arguments: str, **values: Any) -> str:
        options = (
            ("-n", restricted, "-f", "-") if arguments[0] in {"install", "upgrade"} else ("-n", restricted)
        )
        done = helm(*arguments, *options, stdin=json.dumps(values), kubeconfig=kubeconfig)
        assert done.returncode == 0, done.stderr
        return done.stdout

    yield run
    # A test that failed half-way leaves cluster-wide objects, over which the next would stumble.
    run("uninstall", RELEASE, "--ignore-not-found")


def exists(admin: client.ApiClient, document: Mapping[str, Any], namespace: str) -> bool:
    """Whether an object stands in the cluster."""
    resource = dynamic.DynamicClient(admin).resources.get(
        api_version=document["apiVersion"], kind=document["kind"]
    )
    where = {"namespace": document["metadata"].get("namespace", namespace)} if resource.namespaced else {}
    try:
        resource.get(name=document["metadata"]["name"], **where)
    except dynamic.exceptions.NotFoundError:
        return False
    return True


def without_tests(documents):
    return [d for d in documents if "helm.sh/hook" not in d["metadata"].get("annotations", {})]


def test_release_is_installed_upgraded_rolled_back_and_removed_without_a_trace(
    admin, nodes, on_cluster, restricted
):
    single = without_tests(render(at=restricted))
    double = without_tests(
        render(at=restricted, replicaCount=2, namespaces=[restricted], config={"threads": 2})
    )
    (image,) = {d["spec"]["template"]["spec"]["containers"][0]["image"] for d in find(single, "Deployment")}
    nodes.add_image(image, Image(script=_waits))

    told = on_cluster("install", RELEASE, str(CHART), "--wait", "--timeout", "2m")
    assert "WARNING" not in told  # the cluster serves PyTorchJobs, and the notes can tell
    assert all(exists(admin, document, restricted) for document in single)

    on_cluster(
        "upgrade",
        RELEASE,
        str(CHART),
        "--wait",
        "--timeout",
        "2m",
        replicaCount=2,
        namespaces=[restricted],
        config={"threads": 2},
    )
    assert all(exists(admin, document, restricted) for document in double)
    left_over = [d for d in single if d["kind"] in {"ClusterRole", "ClusterRoleBinding"}]
    assert not any(exists(admin, document, restricted) for document in left_over)

    on_cluster("rollback", RELEASE, "1")
    assert all(exists(admin, document, restricted) for document in left_over)

    on_cluster("uninstall", RELEASE)
    for document in (*single, *double):
        eventually(lambda document=document: not exists(admin, document, restricted))


def test_installed_pod_runs_as_the_account_that_has_the_rights(admin, nodes, on_cluster, restricted):
    documents = render(at=restricted)
    nodes.add_image(
        one(documents, "Deployment")["spec"]["template"]["spec"]["containers"][0]["image"],
        Image(script=_waits),
    )
    on_cluster("install", RELEASE, str(CHART), "--wait", "--timeout", "2m")
    (pod,) = client.CoreV1Api(admin).list_namespaced_pod(restricted).items
    assert pod.spec.service_account_name == FULLNAME
    subject = f"system:serviceaccount:{restricted}:{FULLNAME}"
    assert may(admin, subject, "watch", "pytorchjobs", "default", group="kubeflow.org")
    on_cluster("uninstall", RELEASE)
    eventually(lambda: not may(admin, subject, "watch", "pytorchjobs", "default", group="kubeflow.org"))


def may(
    admin: client.ApiClient,
    subject: str,
    verb: str,
    resource: str,
    namespace: str | None,
    *,
    group: str = "",
    name: str | None = None,
) -> bool:
    """Ask the API server whether it would let a user do something."""
    plural, _, part = resource.partition("/")
    attributes = client.V1ResourceAttributes(
        verb=verb, group=group, resource=plural, subresource=part or None, namespace=namespace, name=name
    )
    review = client.V1SubjectAccessReview(
        spec=client.V1SubjectAccessReviewSpec(user=subject, resource_attributes=attributes)
    )
    answer = client.AuthorizationV1Api(admin).create_subject_access_review(review)
    return bool(answer.status.allowed)


@pytest.mark.parametrize("is_namespaced", [False, True])
def test_account_may_do_its_work_and_nothing_beside_it(admin, user_with, namespace, is_namespaced):
    values = {"namespaces": [namespace]} if is_namespaced else {}
    user_with(render(at=namespace, **values))
    subject = f"system:serviceaccount:{namespace}:{FULLNAME}"
    jobs = {"group": "kubeflow.org"}
    leases = {"group": "coordination.k8s.io"}
    elsewhere = "default"
    eventually(lambda: may(admin, subject, "get", "pytorchjobs", namespace, **jobs))
    eventually(lambda: may(admin, subject, "create", "leases", namespace, **leases))
    assert may(admin, subject, "update", "leases", namespace, name=FULLNAME, **leases)
    assert may(admin, subject, "get", "pods/log", namespace)
    assert may(admin, subject, "get", "pytorchjobs", elsewhere, **jobs) is not is_namespaced
    for verb, resource, where, more in (
        ("get", "secrets", namespace, {}),
        ("list", "secrets", namespace, {}),
        ("list", "configmaps", namespace, {}),
        ("delete", "configmaps", namespace, {}),
        ("create", "pods", namespace, {}),
        ("delete", "pods", namespace, {}),
        ("create", "pods/exec", namespace, {}),
        ("update", "pytorchjobs", namespace, jobs),
        ("deletecollection", "pytorchjobs", namespace, jobs),
        ("patch", "pytorchjobs/status", namespace, jobs),
        ("get", "leases", namespace, {"name": "another", **leases}),
        ("create", "leases", elsewhere, leases),
        ("delete", "leases", namespace, {"name": FULLNAME, **leases}),
        ("get", "nodes", None, {}),
        ("get", "customresourcedefinitions", None, {"group": "apiextensions.k8s.io"}),
        ("create", "rolebindings", namespace, {"group": "rbac.authorization.k8s.io"}),
    ):
        assert not may(admin, subject, verb, resource, where, **more), (verb, resource)
