"""The chart's schema: what it takes, what it refuses, and that nothing generated is stale."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from autotuner import __version__
from autotuner.controller.settings import ControllerSettings, settings
from autotuner.errors import InvalidConfiguration
from tests.helm.chart import CHART, ROOT, daemon_file, helm, helm_program, nested, refusal, render

MODES = {
    "default": {},
    "namespaced": {"namespaces": ["team-a"]},
    "highly available": {"replicaCount": 3},
    "watched": {
        "serviceMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "dashboard": {"enabled": True},
        "networkPolicy": {"enabled": True},
    },
    "bare": {
        "serviceAccount": {"create": False},
        "rbac": {"create": False},
        "leaderElection": {"enabled": False},
        "test": {"enabled": False},
    },
}


@pytest.mark.parametrize("values", MODES.values(), ids=MODES)
def test_lint_finds_nothing_in_any_mode(values):
    done = helm("lint", "--strict", str(CHART), "-f", "-", stdin=json.dumps(values))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("namespaces", ["a", "b-2"]),
        ("replicaCount", 0),
        ("config", {"threads": 64, "poll_seconds": 0.5, "log_format": "json", "max_parallel_trials": None}),
        ("image", {"repository": "localhost:5000/team/autotuner", "tag": "v1.2_3"}),
        ("image.digest", "sha256:" + "0" * 64),
        ("podDisruptionBudget.maxUnavailable", "50%"),
        ("serviceMonitor.interval", "1m30s"),
        ("extraEnv", [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
        ("extraObjects", ["a: b", {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "x"}}]),
        ("podSecurityContext", {"runAsUser": None}),
        ("strategy", {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}),
        ("global", {"anything": {"at": "all"}}),
    ],
)
def test_schema_takes(path, value):
    render(**nested(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("replicas", 2),
        ("image.tags", "x"),
        ("rbac.enabled", True),
        ("leaderElection.enable", True),
        ("serviceMonitor.intervall", "30s"),
        ("networkPolicy.ingress", []),
        ("config.thread", 2),
        ("config.threads", 0),
        ("config.threads", 65),
        ("config.threads", "4"),
        ("config.poll_seconds", 0),
        ("config.log_level", "loud"),
        ("config.max_parallel_trials", 0),
        ("config.namespaces", ["a"]),
        ("config.lease_name", "a"),
        ("config.http_port", 1),
        ("namespaces", "team-a"),
        ("namespaces", ["Team_A"]),
        ("namespaces", ["a", "a"]),
        ("namespaces", [""]),
        ("replicaCount", -1),
        ("replicaCount", "2"),
        ("image.repository", ""),
        ("image.repository", "a:b"),
        ("image.repository", "a b"),
        ("image.tag", "-x"),
        ("image.digest", "sha256:abc"),
        ("image.digest", "a" * 64),
        ("image.pullPolicy", "Sometimes"),
        ("imagePullSecrets", ["registry"]),
        ("fullnameOverride", "A_b"),
        ("commonLabels", {"a": 1}),
        ("httpPort", 0),
        ("httpPort", 65536),
        ("pages.port", 0),
        ("pages.service", "yes"),
        ("pages.hosts", ["https://tuner.example.com"]),
        ("pages.hosts", ["tuner.example.com:443"]),
        ("config.pages_hosts", ["tuner.example.com"]),
        ("config.pages_port", 1),
        ("service.type", "ExternalName"),
        ("serviceMonitor.interval", "often"),
        ("dashboard.enabled", "yes"),
        ("podDisruptionBudget.maxUnavailable", "all"),
        ("networkPolicy.apiServerPorts", []),
        ("resources.limit", {}),
        ("strategy.type", "Rolling"),
        ("extraEnv", [{"value": "a"}]),
        ("extraArgs", "--threads=2"),
        ("extraObjects", [1]),
        ("tolerations", {"key": "a"}),
        ("dnsPolicy", "Never"),
    ],
)
def test_schema_refuses(path, value):
    message = refusal(**nested(path, value))
    assert "values don't meet the specifications of the schema" in message
    assert path.split(".")[0] in message


@pytest.mark.parametrize(
    ("times", "is_taken"),
    [
        ({"lease_seconds": 5}, True),
        ({"lease_seconds": 15, "renew_seconds": 10, "retry_seconds": 2}, True),
        ({"lease_seconds": 5, "renew_seconds": 10}, False),
        ({"renew_seconds": 6, "retry_seconds": 5.0}, False),
        ({"lease_seconds": 6, "retry_seconds": 5}, False),
    ],
)
def test_the_chart_refuses_the_times_of_a_lease_that_the_controller_refuses(times, is_taken, tmp_path):
    if not is_taken:
        assert "must be well below" in refusal(config=times)
        with pytest.raises(InvalidConfiguration):
            ControllerSettings.load(**times)
        return
    path = tmp_path / "config.yaml"
    path.write_text(daemon_file(render(config=times)))
    ControllerSettings.load(config_file=path)


def test_every_value_has_a_row_of_its_own_in_the_schema():
    schema = json.loads((CHART / "values.schema.json").read_text())

    def compare(values, properties, path):
        for key, value in values.items():
            assert key in properties, f"{path}{key} is in values.yaml and not in the schema"
            if "properties" in properties[key] and isinstance(value, dict) and key != "config":
                compare(value, properties[key]["properties"], f"{path}{key}.")

    values = yaml.safe_load((CHART / "values.yaml").read_text())
    compare(values, schema["properties"], "")
    assert set(schema["properties"]) - set(values) == {"global", "enabled"}


def test_every_object_of_the_schema_is_closed():
    schema = json.loads((CHART / "values.schema.json").read_text())
    open_ones = [
        name
        for name, prop in {"": schema, **schema["properties"]}.items()
        if "properties" in prop and prop.get("additionalProperties") is not False
    ]
    assert open_ones == []


@pytest.mark.parametrize("is_enabled", [True, False])
def test_a_parent_chart_switches_it_by_its_condition(tmp_path, is_enabled):
    dependency = {"name": "autotuner", "version": __version__, "condition": "autotuner.enabled"}
    parent = {"apiVersion": "v2", "name": "platform", "version": "1.0.0", "dependencies": [dependency]}
    (tmp_path / "Chart.yaml").write_text(yaml.safe_dump(parent))
    shutil.copytree(CHART, tmp_path / "charts" / "autotuner")
    values = {"global": {"imageRegistry": "registry.example"}, "autotuner": {"enabled": is_enabled}}
    done = helm("template", "r", str(tmp_path), "-f", "-", stdin=json.dumps(values))
    assert done.returncode == 0, done.stderr
    assert ("kind: Deployment" in done.stdout) is is_enabled


def test_every_value_is_used_by_a_template():
    templates = "".join(path.read_text() for path in CHART.rglob("templates/**/*") if path.is_file())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for key in values:
        assert re.search(rf"\.Values\.{key}\b", templates), key


def test_generated_files_are_as_their_sources_would_make_them():
    done = subprocess.run(
        [sys.executable, str(ROOT / "helm" / "generate.py"), "--check"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "HELM": helm_program()},
        timeout=60,
    )
    assert done.returncode == 0, f"run `python helm/generate.py`: {done.stdout}{done.stderr}"


def test_chart_and_program_have_one_version():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__


def test_settings_that_the_chart_writes_itself_are_not_in_config():
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]["config"]["properties"]
    lease = ("leader_election", "lease_name", "lease_namespace")
    written = ("namespaces", "kinds", *lease, "http_port", "pages_host", "pages_port", "pages_hosts")
    derived = {*written, "config_file"}
    assert set(schema) == {setting.name for setting in settings()} - derived


def test_package_holds_what_the_templates_read(tmp_path):
    done = helm("package", str(CHART), "-d", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("autotuner-*.tgz")
    shown = helm("template", "r", str(archive), "--set=dashboard.enabled=true,prometheusRule.enabled=true")
    assert shown.returncode == 0, shown.stderr
    assert "AutotunerAbsent" in shown.stdout
