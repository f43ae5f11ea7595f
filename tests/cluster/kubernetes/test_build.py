"""The programs of the control plane are found where the user or the build has put them."""

from pathlib import Path

import pytest

from tests.controlplane import build

NAMES = ("etcd", "kube-apiserver", "kube-controller-manager", "training-operator", "helm")


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return tmp_path / "cache" / "autotuner" / "controlplane"


def put_program(folder, name):
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    program.touch(mode=0o755)
    return program


def fill_cache(cache):
    for name in NAMES[:3]:
        put_program(cache / f"kubernetes-{build.KUBERNETES}", name)
    put_program(cache / f"training-operator-{build.TRAINING_OPERATOR}", "training-operator")
    (cache / f"training-operator-{build.TRAINING_OPERATOR}" / "manifests").mkdir()
    put_program(cache / f"helm-{build.HELM}", "helm")


def test_what_is_missing_is_named_with_its_remedy():
    with pytest.raises(build.BuildError, match=r"tests\.controlplane\.build") as missing:
        build.find()
    assert all(name in str(missing.value) for name in NAMES)


def test_a_full_cache_needs_no_build(empty_cache):
    fill_cache(empty_cache)
    reports = []

    programs = build.build(reports.append)

    assert programs.helm == empty_cache / f"helm-{build.HELM}" / "helm"
    assert reports == []


def test_programs_of_another_version_are_not_taken(empty_cache):
    fill_cache(empty_cache)
    (empty_cache / f"kubernetes-{build.KUBERNETES}").rename(empty_cache / "kubernetes-1.0.0")

    with pytest.raises(build.BuildError, match="lacks etcd, kube-apiserver, kube-controller-manager:"):
        build.find()


def test_the_users_own_programs_come_first(empty_cache, monkeypatch, tmp_path):
    fill_cache(empty_cache)
    own = put_program(tmp_path / "assets", "kube-apiserver")
    put_program(tmp_path / "assets", "etcd").chmod(0o644)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "assets"))

    programs = build.find()

    assert programs.kube_apiserver == own
    assert programs.etcd.parent == empty_cache / f"kubernetes-{build.KUBERNETES}", "not executable"


def test_without_go_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setenv("PATH", str(Path(__file__).parent))
    with pytest.raises(build.BuildError, match="install Go"):
        build.build(lambda _: None)
