"""The chart's templates: what each value changes, and what no value changes."""

import pytest
import yaml
from typer.testing import CliRunner

from autotuner.cli import app
from autotuner.controller.settings import ControllerSettings
from tests.helm.chart import (
    FULLNAME,
    NAMESPACE,
    RELEASE,
    container,
    daemon_file,
    find,
    nested,
    one,
    pod_spec,
    refusal,
    render,
)

EVERYTHING = {
    "namespaces": ["team-a", "team-b"],
    "replicaCount": 2,
    "networkPolicy": {"enabled": True},
    "serviceMonitor": {"enabled": True},
    "prometheusRule": {"enabled": True},
    "dashboard": {"enabled": True},
}
CLUSTER_SCOPED = {"ClusterRole", "ClusterRoleBinding"}


def identities(documents):
    return {(d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"]) for d in documents}


def test_defaults_make_these_objects_and_no_others():
    assert identities(render()) == {
        ("ServiceAccount", NAMESPACE, FULLNAME),
        ("ConfigMap", NAMESPACE, FULLNAME),
        ("ClusterRole", None, FULLNAME),
        ("ClusterRoleBinding", None, FULLNAME),
        ("Role", NAMESPACE, f"{FULLNAME}-leader-election"),
        ("RoleBinding", NAMESPACE, f"{FULLNAME}-leader-election"),
        ("Service", NAMESPACE, FULLNAME),
        ("Deployment", NAMESPACE, FULLNAME),
        ("Pod", NAMESPACE, f"{FULLNAME}-test"),
    }


@pytest.mark.parametrize(
    ("on", "off", "kind", "name"),
    [
        ({}, {"serviceAccount": {"create": False}}, "ServiceAccount", FULLNAME),
        ({}, {"rbac": {"create": False}}, "ClusterRole", FULLNAME),
        ({}, {"rbac": {"create": False}}, "ClusterRoleBinding", FULLNAME),
        ({}, {"rbac": {"create": False}}, "Role", f"{FULLNAME}-leader-election"),
        ({}, {"namespaces": ["team-a"]}, "ClusterRole", FULLNAME),
        ({}, {"namespaces": ["team-a"]}, "ClusterRoleBinding", FULLNAME),
        ({"namespaces": ["team-a"]}, {}, "Role", FULLNAME),
        ({"namespaces": ["team-a"]}, {}, "RoleBinding", FULLNAME),
        ({}, {"leaderElection": {"enabled": False}}, "Role", f"{FULLNAME}-leader-election"),
        ({}, {"leaderElection": {"enabled": False}}, "RoleBinding", f"{FULLNAME}-leader-election"),
        ({"serviceMonitor": {"enabled": True}}, {}, "ServiceMonitor", FULLNAME),
        ({"prometheusRule": {"enabled": True}}, {}, "PrometheusRule", FULLNAME),
        ({"dashboard": {"enabled": True}}, {}, "ConfigMap", f"{FULLNAME}-dashboard"),
        ({"networkPolicy": {"enabled": True}}, {}, "NetworkPolicy", FULLNAME),
        ({"replicaCount": 2}, {"replicaCount": 1}, "PodDisruptionBudget", FULLNAME),
        (
            {"replicaCount": 2},
            {"replicaCount": 2, "podDisruptionBudget": {"enabled": False}},
            "PodDisruptionBudget",
            FULLNAME,
        ),
        ({}, {"test": {"enabled": False}}, "Pod", f"{FULLNAME}-test"),
    ],
)
def test_toggle_makes_an_object_and_unmakes_it(on, off, kind, name):
    assert len(find(render(**on), kind, name)) == 1
    assert find(render(**off), kind, name) == []


A_LIST = [{"name": "x"}]
A_MAP = {"disk": "ssd"}
OF_THE_POD = [
    ("imagePullSecrets", A_LIST, "imagePullSecrets"),
    ("nodeSelector", A_MAP, "nodeSelector"),
    ("tolerations", [{"key": "gpu", "operator": "Exists"}], "tolerations"),
    ("affinity", {"nodeAffinity": {}}, "affinity"),
    ("topologySpreadConstraints", [{"maxSkew": 1}], "topologySpreadConstraints"),
    ("priorityClassName", "high", "priorityClassName"),
    ("dnsPolicy", "None", "dnsPolicy"),
    ("dnsConfig", {"nameservers": ["192.0.2.1"]}, "dnsConfig"),
    ("initContainers", A_LIST, "initContainers"),
    ("podSecurityContext", {"runAsUser": 7}, "securityContext"),
    ("terminationGracePeriodSeconds", 7, "terminationGracePeriodSeconds"),
]
OF_THE_CONTAINER = [
    ("image.pullPolicy", "Always", "imagePullPolicy"),
    ("extraEnvFrom", [{"secretRef": {"name": "x"}}], "envFrom"),
    ("resources", {"limits": {"cpu": "9"}}, "resources"),
    ("securityContext", {"runAsUser": 7}, "securityContext"),
    ("startupProbe", {"failureThreshold": 7}, "startupProbe"),
    ("livenessProbe", {"failureThreshold": 7}, "livenessProbe"),
    ("readinessProbe", {"failureThreshold": 7}, "readinessProbe"),
]
WITHOUT_DEFAULT = {
    "imagePullSecrets",
    "nodeSelector",
    "tolerations",
    "affinity",
    "topologySpreadConstraints",
    "priorityClassName",
    "dnsPolicy",
    "dnsConfig",
    "initContainers",
    "envFrom",
}


def holds(actual, expected):
    """Whether every key of a mapping is there with its value; anything else must be equal."""
    if isinstance(expected, dict):
        return all(key in actual and holds(actual[key], value) for key, value in expected.items())
    return actual == expected


@pytest.mark.parametrize(
    ("value", "given", "field", "where"),
    [(*row, pod_spec) for row in OF_THE_POD] + [(*row, container) for row in OF_THE_CONTAINER],
)
def test_value_reaches_its_field_and_leaves_no_empty_one_behind(value, given, field, where):
    assert holds(where(render(**nested(value, given)))[field], given)
    assert (field in where(render())) == (field not in WITHOUT_DEFAULT)


@pytest.mark.parametrize(
    "value", ["startupProbe", "livenessProbe", "readinessProbe", "securityContext", "resources"]
)
def test_null_removes_a_default(value):
    assert value not in container(render(**{value: None}))


@pytest.mark.parametrize(
    ("value", "given", "where"),
    [
        ("extraEnv", {"name": "A", "value": "b"}, lambda d: container(d)["env"]),
        ("extraVolumeMounts", {"name": "a", "mountPath": "/a"}, lambda d: container(d)["volumeMounts"]),
        ("extraVolumes", {"name": "a", "emptyDir": {}}, lambda d: pod_spec(d)["volumes"]),
        ("extraContainers", {"name": "a", "image": "b"}, lambda d: pod_spec(d)["containers"]),
        ("extraArgs", "--threads=2", lambda d: container(d)["args"]),
        (
            "rbac.extraRules",
            {"apiGroups": ["a"], "resources": ["b"], "verbs": ["get"]},
            lambda d: one(d, "ClusterRole")["rules"],
        ),
        (
            "networkPolicy.extraEgress",
            {"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]},
            lambda d: one(d, "NetworkPolicy")["spec"]["egress"],
        ),
        (
            "prometheusRule.extraRules",
            {"alert": "Mine", "expr": "up == 0"},
            lambda d: one(d, "PrometheusRule")["spec"]["groups"][0]["rules"],
        ),
    ],
)
def test_extra_things_follow_the_charts_own(value, given, where):
    enabled = {"networkPolicy": {"enabled": True}, "prometheusRule": {"enabled": True}}
    section, _, key = value.partition(".")
    extra = {section: {**enabled.get(section, {}), key: [given]}} if key else {section: [given]}
    assert where(render(**{**enabled, **extra})) == [*where(render(**enabled)), given]


def test_service_is_as_the_values_say():
    service = one(
        render(service={"type": "NodePort", "port": 81, "annotations": {"a": "b"}}, httpPort=9), "Service"
    )
    assert service["spec"]["type"] == "NodePort"
    assert service["spec"]["ports"][0]["port"] == 81
    assert service["metadata"]["annotations"] == {"a": "b"}


def test_http_port_is_the_same_for_daemon_container_probes_and_service():
    documents = render(httpPort=9090)
    (port,) = container(documents)["ports"]
    assert (port["name"], port["containerPort"]) == ("http", 9090)
    assert one(documents, "Service")["spec"]["ports"][0]["targetPort"] == "http"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container(documents)[probe]["httpGet"]["port"] == "http"
    assert "http_port: 9090" in daemon_file(documents)


def test_pages_are_on_the_loopback_address_until_the_service_is_to_have_them():
    policy = {"networkPolicy": {"enabled": True}}
    documents = render(**policy)
    assert "pages_host: 127.0.0.1" in daemon_file(documents)
    assert "pages_port: 8081" in daemon_file(documents)
    for ports in (container(documents)["ports"], one(documents, "Service")["spec"]["ports"]):
        assert [port["name"] for port in ports] == ["http"]
    assert [p["port"] for p in one(documents, "NetworkPolicy")["spec"]["ingress"][0]["ports"]] == ["http"]

    documents = render(pages={"service": True, "port": 9091}, **policy)
    assert "pages_host: '::'" in daemon_file(documents)
    assert container(documents)["ports"][1] == {"name": "pages", "containerPort": 9091, "protocol": "TCP"}
    assert one(documents, "Service")["spec"]["ports"][1]["port"] == 9091
    ingress = one(documents, "NetworkPolicy")["spec"]["ingress"][0]["ports"]
    assert [port["port"] for port in ingress] == ["http", "pages"]


def test_pages_are_asked_for_under_the_names_of_the_service_and_those_given():
    def names(**values):
        return yaml.safe_load(daemon_file(render(pages=values)))["pages_hosts"]

    service = [FULLNAME, *(f"{FULLNAME}.{NAMESPACE}{rest}" for rest in ("", ".svc", ".svc.cluster.local"))]
    assert names() == []
    assert names(hosts=["tuner.example.com"]) == ["tuner.example.com"]
    assert names(service=True, hosts=["tuner.example.com"]) == [*service, "tuner.example.com"]
    # As after `helm upgrade --reuse-values` from a chart without this value.
    assert names(service=True, hosts=None) == service


def test_without_pages_the_controller_has_no_port_for_them():
    documents = render(pages={"enabled": False, "service": True})
    assert "pages" not in daemon_file(documents)
    assert [port["name"] for port in one(documents, "Service")["spec"]["ports"]] == ["http"]


def test_pages_and_probes_need_two_ports():
    assert "pages.port and httpPort are both 8081" in refusal(httpPort=8081)


@pytest.mark.parametrize("kind", ["ServiceMonitor", "PrometheusRule", "ConfigMap"])
def test_monitoring_objects_go_where_their_readers_look(kind):
    section = {
        "ServiceMonitor": "serviceMonitor",
        "PrometheusRule": "prometheusRule",
        "ConfigMap": "dashboard",
    }
    place = {"enabled": True, "namespace": "monitoring", "labels": {"l": "1"}, "annotations": {"a": "1"}}
    name = f"{FULLNAME}-{NAMESPACE}" + ("-dashboard" if kind == "ConfigMap" else "")
    metadata = one(render(**{section[kind]: place}), kind, name)["metadata"]
    assert metadata["namespace"] == "monitoring"
    assert metadata["labels"]["l"] == "1"
    assert metadata["annotations"] == {"a": "1"}


def test_releases_of_one_name_for_several_teams_have_no_object_in_common():
    def objects(team):
        elsewhere = {"enabled": True, "namespace": "monitoring"}
        return identities(
            render(
                "autotuner",
                at=team,
                namespaces=[team],
                rbac={"clusterTrainingRuntimes": True},
                serviceMonitor=elsewhere,
                prometheusRule=elsewhere,
                dashboard=elsewhere,
            )
        )

    assert len(objects("team-a")) > 10
    assert not objects("team-a") & objects("team-b")


def test_service_monitor_selects_the_service():
    documents = render(
        serviceMonitor={
            "enabled": True,
            "namespace": "monitoring",
            "interval": "5s",
            "scrapeTimeout": "4s",
            "relabelings": [{"action": "drop"}],
            "metricRelabelings": [{"action": "keep"}],
        }
    )
    spec = one(documents, "ServiceMonitor", f"{FULLNAME}-{NAMESPACE}")["spec"]
    labels = one(documents, "Service")["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    assert spec["namespaceSelector"] == {"matchNames": [NAMESPACE]}
    (endpoint,) = spec["endpoints"]
    assert endpoint == {
        "port": "http",
        "path": "/metrics",
        "interval": "5s",
        "scrapeTimeout": "4s",
        "relabelings": [{"action": "drop"}],
        "metricRelabelings": [{"action": "keep"}],
    }


def test_network_policy_admits_named_peers_and_the_test_pod():
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    documents = render(networkPolicy={"enabled": True, "ingressFrom": [peer], "apiServerPorts": [7443]})
    spec = one(documents, "NetworkPolicy")["spec"]
    (ingress,) = spec["ingress"]
    assert ingress["from"][0] == peer
    test_labels = one(documents, "Pod", f"{FULLNAME}-test")["metadata"]["labels"]
    assert ingress["from"][1]["podSelector"]["matchLabels"].items() <= test_labels.items()
    assert spec["egress"][1]["ports"] == [{"port": 7443, "protocol": "TCP"}]


def test_network_policy_without_peers_admits_all_to_the_one_port():
    spec = one(render(networkPolicy={"enabled": True}), "NetworkPolicy")["spec"]
    assert spec["ingress"] == [{"ports": [{"port": "http", "protocol": "TCP"}]}]
    assert sorted(port["port"] for rule in spec["egress"] for port in rule["ports"]) == [53, 53, 443, 6443]


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ({}, "ghcr.io/autotuner-dev/autotuner:0.1.0"),
        ({"tag": "1.2"}, "ghcr.io/autotuner-dev/autotuner:1.2"),
        ({"repository": "localhost:5000/a", "tag": "b"}, "localhost:5000/a:b"),
        (
            {"tag": "1.2", "digest": "sha256:" + "a" * 64},
            "ghcr.io/autotuner-dev/autotuner@sha256:" + "a" * 64,
        ),
    ],
)
def test_image_is_named_by_digest_else_tag_else_the_charts_version(image, reference):
    documents = render(image=image)
    assert container(documents)["image"] == reference
    assert one(documents, "Pod", f"{FULLNAME}-test")["spec"]["containers"][0]["image"] == reference


def test_two_replicas_get_a_budget_and_a_spread_over_nodes():
    documents = render(replicaCount=2)
    labels = one(documents, "Deployment")["spec"]["selector"]["matchLabels"]
    assert one(documents, "Deployment")["spec"]["replicas"] == 2
    (spread,) = pod_spec(documents)["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == labels
    assert one(documents, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert "topologySpreadConstraints" not in pod_spec(render())


def test_several_replicas_without_an_election_are_refused():
    message = refusal(replicaCount=2, leaderElection={"enabled": False})
    assert "leaderElection.enabled" in message
    assert "replicaCount" in message


def test_strategy_and_annotations_of_the_deployment():
    deployment = one(
        render(strategy={"type": "Recreate"}, deploymentAnnotations={"a": "b"}, revisionHistoryLimit=1),
        "Deployment",
    )
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert deployment["metadata"]["annotations"] == {"a": "b"}
    assert deployment["spec"]["revisionHistoryLimit"] == 1
    assert "strategy" not in one(render(), "Deployment")["spec"]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({}, {"valueFrom": {"resourceFieldRef": {"containerName": "controller", "resource": "limits.cpu"}}}),
        # Without a limit, the field is the number of CPUs of the node.
        ({"resources": {"limits": {"cpu": None}}}, {"value": "2"}),
        ({"resources": {"limits": None}}, {"value": "2"}),
        # A variable that is there twice is refused by the API server.
        ({"extraEnv": [{"name": "OMP_NUM_THREADS", "value": "8"}]}, {"value": "8"}),
    ],
)
def test_numerical_libraries_start_few_threads_whatever_the_limit(values, wanted):
    (container,) = one(render(**values), "Deployment")["spec"]["template"]["spec"]["containers"]
    (found,) = [each for each in container["env"] if each["name"] == "OMP_NUM_THREADS"]
    assert found == {"name": "OMP_NUM_THREADS", **wanted}


def test_without_leader_election_an_update_stops_the_old_pod_first():
    alone = {"leaderElection": {"enabled": False}}
    strategy = one(render(**alone), "Deployment")["spec"]["strategy"]
    assert strategy == {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    asked = {"type": "Recreate"}
    assert one(render(**alone, strategy=asked), "Deployment")["spec"]["strategy"] == asked


def test_every_object_carries_the_common_labels_and_annotations_in_its_namespace():
    documents = render(
        **EVERYTHING,
        commonLabels={"team": "ml"},
        commonAnnotations={"owner": "me"},
        podAnnotations={"a": "b"},
    )
    for document in documents:
        metadata = document["metadata"]
        assert (
            metadata["labels"].items()
            >= {
                "app.kubernetes.io/instance": RELEASE,
                "app.kubernetes.io/name": "autotuner",
                "app.kubernetes.io/managed-by": "Helm",
                "app.kubernetes.io/version": "0.1.0",
                "helm.sh/chart": "autotuner-0.1.0",
                "team": "ml",
            }.items()
        ), document["kind"]
        assert metadata["annotations"]["owner"] == "me", document["kind"]
        assert ("namespace" in metadata) == (document["kind"] not in CLUSTER_SCOPED)
    pod = one(documents, "Deployment")["spec"]["template"]["metadata"]
    assert pod["labels"]["team"] == "ml"
    assert {"owner": "me", "a": "b"}.items() <= pod["annotations"].items()


def test_selector_never_changes_and_labels_cannot_break_it():
    intruders = {"app.kubernetes.io/name": "x", "app.kubernetes.io/instance": "x", "team": "ml"}
    deployment = one(render(commonLabels=intruders, podLabels=intruders), "Deployment")
    selector = deployment["spec"]["selector"]["matchLabels"]
    assert selector == one(render(), "Deployment")["spec"]["selector"]["matchLabels"]
    assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize(
    ("release", "values", "expected"),
    [
        ("autotuner", {}, "autotuner"),
        ("my-autotuner", {}, "my-autotuner"),
        ("r", {}, "r-autotuner"),
        ("r", {"nameOverride": "n"}, "r-n"),
        ("r", {"fullnameOverride": "f"}, "f"),
        ("r" * 53, {}, "r" * 43),
        ("autotuner-" + "r" * 43, {}, "autotuner-" + "r" * 33),
        ("r", {"fullnameOverride": "f" * 63}, "f" * 43),
    ],
)
def test_names_follow_the_release_and_stay_short_enough(release, values, expected):
    documents = render(release, **EVERYTHING, **values)
    names = {document["metadata"]["name"] for document in documents}
    assert expected in names
    assert all(name.startswith(expected) and len(name) <= 63 for name in names)


def test_pod_is_restricted_without_being_asked():
    documents = render()
    for spec in (pod_spec(documents), one(documents, "Pod", f"{FULLNAME}-test")["spec"]):
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for each in spec["containers"]:
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert set(each["resources"]) == {"requests", "limits"}
        assert spec["enableServiceLinks"] is False


def test_change_of_the_settings_makes_new_pods_and_nothing_else_does():
    def checksum(**values):
        template = one(render(**values), "Deployment")["spec"]["template"]
        return template["metadata"]["annotations"]["checksum/config"]

    assert checksum() == checksum(image={"tag": "9"}, serviceMonitor={"enabled": True})
    changed = [{"config": {"threads": 9}}, {"namespaces": ["a"]}, {"leaderElection": {"enabled": False}}]
    assert len({checksum(), *(checksum(**values) for values in changed)}) == 4


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {},
            {"leader_election": True, "lease_name": FULLNAME, "lease_namespace": NAMESPACE, "namespaces": ()},
        ),
        ({"namespaces": ["a"], "httpPort": 99}, {"namespaces": ("a",), "http_port": 99}),
        # Helm turns numbers into floats: a large one must not arrive as 6.7e+07.
        ({"config": {"max_log_bytes": 67108864, "poll_seconds": 2.5}}, {"max_log_bytes": 67108864}),
        ({"config": {"max_parallel_trials": None, "log_level": "debug"}}, {"log_level": "debug"}),
        ({"leaderElection": {"enabled": False}}, {"leader_election": False, "lease_namespace": None}),
    ],
)
def test_daemon_accepts_the_file_that_the_chart_writes(tmp_path, values, expected):
    path = tmp_path / "config.yaml"
    path.write_text(daemon_file(render(**values)))
    assert ControllerSettings.load(config_file=path).model_dump().items() >= expected.items()


def test_daemon_is_told_where_its_file_is():
    documents = render()
    (variable,) = [e for e in container(documents)["env"] if e["name"] == "AUTOTUNER_CONTROLLER_CONFIG_FILE"]
    (mount,) = [m for m in container(documents)["volumeMounts"] if m["name"] == "config"]
    (volume,) = [v for v in pod_spec(documents)["volumes"] if v["name"] == "config"]
    assert variable["value"] == mount["mountPath"] + "/config.yaml"
    assert volume["configMap"]["name"] == one(documents, "ConfigMap")["metadata"]["name"]


def test_daemon_is_started_by_a_command_that_takes_the_settings_as_flags():
    command, *flags = container(render(extraArgs=["--threads=0"]))["args"]
    done = CliRunner().invoke(app, [command, *flags])
    assert done.exit_code == 2
    assert "--threads is '0'" in done.stderr


def test_extra_objects_may_be_maps_and_templates():
    an_object = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "{{ .Release.Name }}-a"}}
    a_text = 'apiVersion: v1\nkind: Secret\nmetadata:\n  name: {{ include "autotuner.fullname" . }}-b\n'
    documents = render(extraObjects=[an_object, a_text])
    assert one(documents, "Secret", f"{RELEASE}-a")
    assert one(documents, "Secret", f"{FULLNAME}-b")
