"""The controllers that only some tests need: JobSet, Kubeflow Trainer and Kueue, as released.

Each is built from its released Go module, and its manifests are copied beside the program. The module is
compiled from a copy of its sources, for two reasons: as a main module it needs no look-up of other versions
(JobSet's `go install` asks the module proxy for a list that the proxy does not have), and a few absolute
paths, where a kubelet would mount files into the controller's container, can be led elsewhere. Such a path
gets the prefix ``$CONTROLPLANE_ROOT``; nothing else is changed.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.controlplane import versions
from tests.controlplane.golang import (
    LINKER_FLAGS,
    BuildError,
    compile_program,
    copy_files,
    download,
    whole_or_absent,
)

if TYPE_CHECKING:
    from tests.controlplane.golang import Report

ROOT_VARIABLE = "CONTROLPLANE_ROOT"
"""Names the folder that stands for ``/`` where a controller reads what a kubelet mounts."""


@dataclass(frozen=True)
class Release:
    """A released controller: what to build, and which of its manifests tests install."""

    name: str
    version: str
    module: str
    package: str
    """Of its main program, within the module."""
    manifests: str
    """The folder of its manifests, within the module."""
    mounts: tuple[tuple[str, str], ...] = ()
    """Source files with the absolute paths in them at which a kubelet mounts files."""

    @property
    def folder(self) -> str:
        """The name of its folder in the cache."""
        return f"{self.name}-{self.version}"


JOBSET = Release(
    name="jobset",
    version=versions.JOBSET,
    module="sigs.k8s.io/jobset",
    package=".",
    manifests="config/components",
)
TRAINER = Release(
    name="trainer",
    version=versions.TRAINER,
    module="github.com/kubeflow/trainer/v2",
    package="./cmd/trainer-controller-manager",
    manifests="manifests/base",
    mounts=(
        ("pkg/util/cert/cert.go", "/tmp/k8s-webhook-server/serving-certs"),
        ("pkg/statusserver/auth.go", "/var/run/secrets/kubernetes.io/serviceaccount/token"),
    ),
)
KUEUE = Release(
    name="kueue",
    version=versions.KUEUE,
    module="sigs.k8s.io/kueue",
    package="./cmd/kueue",
    manifests="config/components",
    mounts=(("cmd/kueue/main.go", "/etc/kueue/metrics/certs"),),
)
RELEASES = (JOBSET, TRAINER, KUEUE)


@dataclass(frozen=True)
class Built:
    """A controller that is ready to run: its program, and the folder of its manifests."""

    program: Path
    manifests: Path

    @property
    def exists(self) -> bool:
        return self.program.exists() and self.manifests.is_dir()


def locate(release: Release, cache: Path) -> Built:
    """Return where in the cache a controller is, or would be."""
    folder = cache / release.folder
    return Built(folder / release.name, folder / "manifests")


def build(release: Release, cache: Path, report: Report) -> None:
    """Build a controller into the cache, unless it is there.

    Raises:
        BuildError: Go is missing, or the build failed.
    """
    built = locate(release, cache)
    if built.exists:
        return
    source = Path(download(f"{release.module}@v{release.version}")["Dir"])
    if not built.manifests.is_dir():
        with whole_or_absent(built.manifests) as output:
            copy_files(source / release.manifests, output, "*.yaml")
    if not built.program.exists():
        with tempfile.TemporaryDirectory() as scratch:
            copy_files(source, Path(scratch))
            _lead_mounts_elsewhere(release, Path(scratch))
            with whole_or_absent(built.program) as output:
                arguments = ["build", LINKER_FLAGS, "-o", str(output), release.package]
                compile_program(release.name, arguments, report, folder=scratch)


def _lead_mounts_elsewhere(release: Release, source: Path) -> None:
    for place, path in release.mounts:
        file = source / place
        text = file.read_text()
        literal = f'"{path}"'
        if text.count(literal) != 1 or '"os"' not in text:
            raise BuildError(
                f"{place} of {release.module} {release.version} does not name {path} once: "
                f"its code has changed, so {__name__} must change too"
            )
        file.write_text(text.replace(literal, f'os.Getenv("{ROOT_VARIABLE}")+{literal}'))
