"""The image's files: the locks hold what the package needs, and the build is told of nothing else."""

import re
import tomllib

from packaging.requirements import Requirement
from packaging.version import Version

import autotuner
from tests.helm.chart import ROOT

DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
NEEDED = [
    Requirement(line)
    for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
]


def locked(name):
    """Return the versions of a lock file's packages, each of which must have a hash."""
    entries = re.split(r"\n(?=[a-z])", re.sub(r"(?m)^#.*\n", "", (DEPLOY / name).read_text()))
    versions = {}
    for entry in entries:
        package, version = re.match(r"([a-z0-9._-]+)==(\S+)", entry).groups()
        assert "--hash=sha256:" in entry, package
        versions[package] = Version(version)
    return versions


def test_lock_holds_every_dependency_at_a_version_that_the_package_takes():
    versions = locked("requirements.lock")
    for requirement in NEEDED:
        assert versions[requirement.name] in requirement.specifier, requirement


def test_there_is_no_torch_in_the_image():
    assert not [requirement for requirement in NEEDED if requirement.name == "torch"]
    foreign = [name for name in locked("requirements.lock") if re.match(r"torch|nvidia-|cuda-|triton", name)]
    assert foreign == []


def test_build_lock_holds_the_build_backend():
    backend = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    versions = locked("build.lock")
    for requirement in map(Requirement, backend):
        assert versions[requirement.name] in requirement.specifier


def test_build_sees_exactly_what_it_copies():
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    }
    allowed = re.findall(r"^!(.+)$", (DEPLOY / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    assert copied == set(allowed)
    assert all((ROOT / source).exists() for source in copied)


def test_image_runs_as_the_user_of_the_chart_and_not_as_root():
    (user,) = re.findall(r"^USER (\d+):\d+$", DOCKERFILE, re.MULTILINE)
    assert f"runAsUser: {user}" in (ROOT / "helm" / "autotuner" / "values.yaml").read_text()
    assert user != "0"


def test_every_example_has_an_image_that_its_dockerfile_builds():
    examples = DEPLOY / "examples"
    assert "${EXAMPLE}/" in (examples / "Dockerfile").read_text()
    jobs = sorted(examples.glob("*/job*.yaml"))
    assert len(jobs) >= 6
    for job in jobs:
        images = re.findall(r"image: ghcr\.io/autotuner-dev/examples-([a-z-]+):(\S+)", job.read_text())
        assert images, job
        for name, version in images:
            assert (examples / name.replace("-", "_") / "train.py").exists(), job
            assert version == autotuner.__version__
