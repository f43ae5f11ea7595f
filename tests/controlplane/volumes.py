"""Volumes of a pod, as folders of this machine.

No process here has a file system of its own, so a volume cannot be mounted where its pod wants it. It lies in
the pod's folder instead, and the paths that lead into it are changed in the container's variables and in
its command. A volume is filled when such a path is met: every pod mounts its service account's token,
and few read it.

Known are `emptyDir`, and `projected` with tokens, ConfigMaps and fields of the pod. A path into another
volume stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from tests.controlplane.environment import ConfigurationError, field

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.controlplane.pod import Container, Pod

_TOKEN_SECONDS = 3600


class Source(Protocol):
    """What volumes are filled from, and where they lie."""

    def folder(self, pod: Pod) -> Path:
        """Return a folder that only this pod uses."""

    def read_object(self, kind: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        """Read a ConfigMap or Secret. It blocks."""

    def request_token(self, pod: Pod, audience: str | None, seconds: int) -> str | None:
        """Request a token of the pod's service account; None if one is gone. It blocks."""


class Mounts:
    """The volumes that one container mounts. Its methods block."""

    def __init__(self, container: Container, pod: Pod, source: Source) -> None:
        self._pod, self._source = pod, source
        self._mounts = {
            path.rstrip("/"): name
            for path, name in container.mounts.items()
            if {"emptyDir", "projected"} & pod.volumes[name].keys()
        }

    def localise_variables(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Return the variables with paths that lead into the folders that stand for volumes.

        Raises:
            ConfigurationError: what a volume is to be filled from does not exist.
        """
        return {name: self._localise(value) for name, value in variables.items()}

    def localise_command(self, command: tuple[str, ...]) -> tuple[str, ...]:
        """Return the command with such paths; the path may follow a ``=``, as in ``--output=/out``."""
        return tuple(self._localise_word(word) for word in command)

    def _localise_word(self, word: str) -> str:
        option, equals, value = word.partition("=")
        return f"{option}={self._localise(value)}" if equals else self._localise(word)

    def _localise(self, text: str) -> str:
        for path, name in self._mounts.items():
            if text == path or text.startswith(f"{path}/"):
                return f"{self._filled(name)}{text.removeprefix(path)}"
        return text

    def _filled(self, name: str) -> Path:
        """Return the folder that stands for a volume, filled when it is first asked for."""
        folder = self._source.folder(self._pod) / "volumes" / name
        if not folder.exists():
            sources = self._pod.volumes[name].get("projected", {}).get("sources") or ()
            # All of it is there before the folder is, which says that the volume has been filled.
            files = [file for source in sources for file in self._content(source).items()]
            folder.mkdir(parents=True, exist_ok=True)  # another container's may be the first
            for path, content in files:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_text(content)
        return folder

    def _content(self, source: Mapping[str, Any]) -> dict[str, str]:
        """Return the files of a projected volume's source, by their paths in the volume."""
        if token := source.get("serviceAccountToken"):
            seconds = token.get("expirationSeconds", _TOKEN_SECONDS)
            text = self._source.request_token(self._pod, token.get("audience"), seconds)
            if text is None:
                raise ConfigurationError(f'serviceaccount "{self._pod.service_account}" not found')
            return {token["path"]: text}
        if reference := source.get("configMap"):
            found = self._source.read_object("ConfigMap", self._pod.namespace, reference["name"])
            if found is None and not reference.get("optional"):
                raise ConfigurationError(f'configmap "{reference["name"]}" not found')
            data = (found or {}).get("data") or {}
            items = reference.get("items") or [{"key": key, "path": key} for key in data]
            return {item["path"]: data[item["key"]] for item in items if item["key"] in data}
        items = source.get("downwardAPI", {}).get("items") or ()
        return {item["path"]: field(item["fieldRef"]["fieldPath"], self._pod) for item in items}
