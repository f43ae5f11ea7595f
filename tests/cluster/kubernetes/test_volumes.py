"""Paths into a pod's volumes lead to folders that stand for them, filled when they are first met."""

from pathlib import Path

import pytest

from tests.controlplane.environment import ConfigurationError
from tests.controlplane.pod import Pod
from tests.controlplane.volumes import Mounts

TOKEN = {"serviceAccountToken": {"audience": "trainer", "expirationSeconds": 60, "path": "token"}}
CERTIFICATE = {"configMap": {"name": "tls", "items": [{"key": "ca.crt", "path": "certs/ca.crt"}]}}
NAMESPACE = {
    "downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}
}
POD = Pod.from_manifest(
    {
        "metadata": {"namespace": "team", "name": "pod", "uid": "1234"},
        "spec": {
            "containers": [
                {
                    "name": "node",
                    "volumeMounts": [
                        {"name": "secrets", "mountPath": "/var/run/secrets"},
                        {"name": "out", "mountPath": "/out/"},
                        {"name": "data", "mountPath": "/data"},
                    ],
                }
            ],
            "volumes": [
                {"name": "secrets", "projected": {"sources": [TOKEN, CERTIFICATE, NAMESPACE]}},
                {"name": "out", "emptyDir": {}},
                {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
            ],
        },
    }
)


class Source:
    def __init__(self, folder, objects):
        self._folder, self._objects = folder, objects
        self.token = "a token"
        self.tokens = []

    def folder(self, pod):
        return self._folder / pod.uid

    def read_object(self, kind, namespace, name):
        return self._objects.get((kind, namespace, name))

    def request_token(self, pod, audience, seconds):
        self.tokens.append((pod.name, audience, seconds))
        return self.token


@pytest.fixture
def source(tmp_path):
    return Source(tmp_path, {("ConfigMap", "team", "tls"): {"data": {"ca.crt": "trust me", "other": "x"}}})


@pytest.fixture
def mounts(source):
    return Mounts(POD.containers[0], POD, source)


def test_variables_that_are_paths_into_a_volume_lead_to_its_files(mounts, source, tmp_path):
    found = mounts.localise_variables(
        {
            "TOKEN": "/var/run/secrets/token",
            "CA": "/var/run/secrets/certs/ca.crt",
            "N": "/var/run/secrets/namespace",
        }
    )

    folder = tmp_path / "1234" / "volumes" / "secrets"
    assert found == {
        "TOKEN": f"{folder}/token",
        "CA": f"{folder}/certs/ca.crt",
        "N": f"{folder}/namespace",
    }
    assert (folder / "token").read_text() == "a token"
    assert (folder / "certs" / "ca.crt").read_text() == "trust me"
    assert (folder / "namespace").read_text() == "team"
    assert source.tokens == [("pod", "trainer", 60)]


def test_words_of_a_command_lead_there_too(mounts, tmp_path):
    out = tmp_path / "1234" / "volumes" / "out"
    command = mounts.localise_command(("train", "--output=/out/run", "/out", "/outside", "--n=3"))
    assert command == ("train", f"--output={out}/run", str(out), "/outside", "--n=3")
    assert out.is_dir()


def test_a_volume_that_nobody_asks_for_is_not_filled(mounts, source, tmp_path):
    mounts.localise_variables({"A": "/elsewhere"})
    assert source.tokens == []
    assert list(tmp_path.iterdir()) == []


def test_paths_into_other_volumes_stay(mounts):
    assert mounts.localise_variables({"DATA": "/data/train"}) == {"DATA": "/data/train"}


def test_a_missing_config_map_keeps_the_container_from_starting(tmp_path):
    mounts = Mounts(POD.containers[0], POD, Source(tmp_path, {}))
    with pytest.raises(ConfigurationError, match='configmap "tls" not found'):
        mounts.localise_variables({"CA": "/var/run/secrets/certs/ca.crt"})


def test_a_volume_that_could_not_be_filled_is_filled_at_the_next_try(mounts, source, tmp_path):
    token, source.token = source.token, None
    with pytest.raises(ConfigurationError, match='serviceaccount "default" not found'):
        mounts.localise_variables({"TOKEN": "/var/run/secrets/token"})

    source.token = token
    found = mounts.localise_variables({"TOKEN": "/var/run/secrets/token"})

    assert Path(found["TOKEN"]).read_text() == "a token"
