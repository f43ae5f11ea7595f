"""Find the control plane's programs, or build them, once a machine.

Run it as ``python -m tests.controlplane.build`` before the cluster tests. It needs the standard
library alone and, where something is missing, Go; building everything takes about twenty minutes on
two cores.

Where a program comes from, in this order:

1. The folder named by ``KUBEBUILDER_ASSETS``, the convention of controller-runtime's envtest. That
   holds etcd and kube-apiserver; whatever else of ours lies there is taken too.
2. The cache, ``$XDG_CACHE_HOME/autotuner/controlplane`` (``~/.cache`` where unset), a folder a
   product and version. A program is renamed into it when it is whole, so what is there is good.
3. A build from the released Go modules, which Go checks against its checksum database.

Versions are pinned in `tests.controlplane.versions`. The Go module that builds etcd and Kubernetes is
written from them: the go.mod of that Kubernetes release says which modules it must replace, and which
etcd belongs to it. JobSet, Trainer and Kueue, which only some tests need, are built into the
cache always; see `tests.controlplane.releases`.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.controlplane import releases
from tests.controlplane.golang import (
    LINKER_FLAGS,
    BuildError,
    compile_program,
    copy_files,
    download,
    whole_or_absent,
)
from tests.controlplane.versions import HELM, KUBERNETES, TRAINING_OPERATOR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.controlplane.golang import Report
    from tests.controlplane.releases import Built, Release

_GO_SOURCES = Path(__file__).parent / "go"
_OPERATOR_MODULE = f"github.com/kubeflow/training-operator@v{TRAINING_OPERATOR}"


@dataclass(frozen=True)
class Programs:
    """Every program that the cluster and chart tests run, and the operator's manifests."""

    etcd: Path
    kube_apiserver: Path
    kube_controller_manager: Path
    training_operator: Path
    operator_manifests: Path
    helm: Path


def find() -> Programs:
    """Return all programs without building any.

    Raises:
        BuildError: one is missing; the message lists which.
    """
    manifests = _operator_folder() / "manifests"
    names = (*_KUBERNETES_PROGRAMS, "training-operator", "helm")
    places = {name: _locate(name) for name in names}
    missing = [name for name, place in places.items() if not place.exists()]
    if not manifests.is_dir():
        missing.append("the training operator's manifests")
    if missing:
        raise BuildError(
            f"the control plane lacks {', '.join(missing)}: run "
            f"`python -m tests.controlplane.build` (ten minutes the first time), or let "
            f"KUBEBUILDER_ASSETS name a folder with them"
        )
    return Programs(
        etcd=places["etcd"],
        kube_apiserver=places["kube-apiserver"],
        kube_controller_manager=places["kube-controller-manager"],
        training_operator=places["training-operator"],
        operator_manifests=manifests,
        helm=places["helm"],
    )


def build(report: Report) -> Programs:
    """Build what neither ``KUBEBUILDER_ASSETS`` nor the cache has, and return everything.

    ``report`` receives a line of progress now and then. Two builds at once are safe: the second
    waits, and then finds what the first has built.

    Raises:
        BuildError: Go is missing, or a build failed; the message ends with what Go said.
    """
    with _one_builder_at_a_time(report):
        if not all(_locate(name).exists() for name in _KUBERNETES_PROGRAMS):
            _build_kubernetes(report)
        if not (_operator_folder() / "manifests").is_dir():
            _copy_operator_manifests()
        if not _locate("training-operator").exists():
            package = _OPERATOR_MODULE.replace("@", "/cmd/training-operator.v1@")
            _install(package, "training-operator.v1", _locate("training-operator"), report)
        if not _locate("helm").exists():
            package = f"helm.sh/helm/v{HELM.split('.', maxsplit=1)[0]}/cmd/helm@v{HELM}"
            _install(package, "helm", _locate("helm"), report)
        for release in releases.RELEASES:
            releases.build(release, _cache(), report)
    return find()


def find_release(release: Release) -> Built:
    """Return a controller that only some tests need, without building it.

    Raises:
        BuildError: it is missing.
    """
    built = releases.locate(release, _cache())
    if not built.exists:
        raise BuildError(
            f"{release.name} {release.version} is missing: run `python -m tests.controlplane.build`"
        )
    return built


_KUBERNETES_PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager")


def _locate(program: str) -> Path:
    """Return where a program is, or where in the cache it would be."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and os.access(found := Path(assets) / program, os.X_OK):
        return found
    match program:
        case "training-operator":
            return _operator_folder() / program
        case "helm":
            return _cache() / f"helm-{HELM}" / program
        case _:
            return _cache() / f"kubernetes-{KUBERNETES}" / program


def _operator_folder() -> Path:
    return _cache() / f"training-operator-{TRAINING_OPERATOR}"


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "autotuner" / "controlplane"


@contextmanager
def _one_builder_at_a_time(report: Report) -> Iterator[None]:
    _cache().mkdir(parents=True, exist_ok=True)
    with (_cache() / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another build of the control plane to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build_kubernetes(report: Report) -> None:
    major, minor, _ = KUBERNETES.split(".")
    # A server without this stamp reports version v0.0.0, which clients refuse.
    stamp = {"gitVersion": f"v{KUBERNETES}", "gitMajor": major, "gitMinor": minor}
    variables = (f"-X k8s.io/component-base/version.{key}={stamp[key]}" for key in stamp)
    linker_flags = " ".join([LINKER_FLAGS, *variables])
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(_GO_SOURCES, scratch, dirs_exist_ok=True)
        (Path(scratch) / "go.mod").write_text(_kubernetes_go_mod())
        for name in _KUBERNETES_PROGRAMS:
            if not (target := _locate(name)).exists():
                with whole_or_absent(target) as output:
                    arguments = ["-mod=mod", linker_flags, "-o", str(output), f"./{name}"]
                    compile_program(name, ["build", *arguments], report, folder=scratch)


def _kubernetes_go_mod() -> str:
    text = Path(download(f"k8s.io/kubernetes@v{KUBERNETES}")["GoMod"]).read_text()
    staging = re.findall(r"^\s*(k8s\.io/[\w-]+) => \./staging/", text, re.MULTILINE)
    go = re.search(r"^go (\S+)$", text, re.MULTILINE)
    etcd = re.search(r"^\s*go\.etcd\.io/etcd/server/v3 (\S+)", text, re.MULTILINE)
    if not staging or go is None or etcd is None:
        raise BuildError(
            f"go.mod of Kubernetes {KUBERNETES} names no staging modules, Go version or etcd: "
            f"its layout has changed, so {__name__} must change too"
        )
    # Kubernetes 1.x.y publishes its staging modules as v0.x.y.
    version = "v0." + KUBERNETES.split(".", 1)[1]
    return "\n".join(
        [
            "module controlplane",
            f"go {go[1]}",
            f"require k8s.io/kubernetes v{KUBERNETES}",
            f"require k8s.io/component-base {version}",
            f"require go.etcd.io/etcd/server/v3 {etcd[1]}",
            *(f"replace {name} => {name} {version}" for name in staging),
            "",
        ]
    )


def _copy_operator_manifests() -> None:
    source = Path(download(_OPERATOR_MODULE)["Dir"]) / "manifests" / "base"
    with whole_or_absent(_operator_folder() / "manifests") as output:
        copy_files(source, output, "*.yaml")


def _install(package: str, built_name: str, target: Path, report: Report) -> None:
    with tempfile.TemporaryDirectory(dir=_cache()) as scratch:
        arguments = ["install", LINKER_FLAGS, package]
        compile_program(target.name, arguments, report, environment={"GOBIN": scratch})
        with whole_or_absent(target) as output:
            (Path(scratch) / built_name).rename(output)


def _print_now(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - a command's progress


if __name__ == "__main__":
    try:
        programs = build(_print_now)
    except BuildError as error:
        sys.exit(f"error: {error}")
    _print_now(f"control plane ready: {programs.kube_apiserver.parent}")
