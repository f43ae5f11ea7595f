"""The programs of the control plane are found where the user or the build has put them."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.controlplane import build, golang, releases

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
    for release in releases.RELEASES:
        put_program(cache / release.folder, release.name)
        (cache / release.folder / "manifests").mkdir()


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


def test_a_controller_that_only_some_tests_need_is_asked_for_by_itself(empty_cache):
    fill_cache(empty_cache)
    assert build.find_release(releases.KUEUE).program == empty_cache / releases.KUEUE.folder / "kueue"

    (empty_cache / releases.KUEUE.folder).rename(empty_cache / "kueue-0.0.1")

    assert build.find()
    with pytest.raises(build.BuildError, match=rf"kueue {releases.KUEUE.version} is missing: run"):
        build.find_release(releases.KUEUE)


def test_what_a_kubelet_would_mount_is_led_elsewhere_in_a_controllers_source(tmp_path):
    file = tmp_path / "main.go"
    release = replace(releases.KUEUE, mounts=(("main.go", "/etc/certs"),))
    file.write_text('import "os"\npath := "/etc/certs"\n')

    releases._lead_mounts_elsewhere(release, tmp_path)

    assert file.read_text() == 'import "os"\npath := os.Getenv("CONTROLPLANE_ROOT")+"/etc/certs"\n'


def test_a_controller_whose_source_has_changed_is_not_built_wrong(tmp_path):
    (tmp_path / "main.go").write_text('import "os"\npath := "/etc/other"\n')
    release = replace(releases.KUEUE, mounts=(("main.go", "/etc/certs"),))

    with pytest.raises(golang.BuildError, match="does not name /etc/certs once"):
        releases._lead_mounts_elsewhere(release, tmp_path)
