"""The controller's own configuration: one model, four sources, one name for each setting.

A setting such as `poll_seconds` is a key of a YAML file, the environment variable
`AUTOTUNER_CONTROLLER_POLL_SECONDS` and the flag `--poll-seconds`. A flag wins over the environment, the
environment over the file, the file over the default. The fields below are the only place where a setting
is described: the command's help, the chart's table and the chart's schema are all made from them.

A wrong value stops the controller at its start. The message lists all mistakes, each with its source, value,
rule and a valid example. Unknown names are mistakes too: a misspelt cap on trials would otherwise cap
nothing. The annotations of a job are in `autotuner.spec`.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from autotuner import keys
from autotuner.errors import InvalidConfiguration, Mistake
from autotuner.job.kinds import KINDS, named
from autotuner.spec.pydantic_errors import rule_of

__all__ = ["ControllerSettings", "SettingDoc", "settings"]

ENV_PREFIX: Final = keys.ENV_PREFIX + "CONTROLLER_"
"""Not `AUTOTUNER_` alone: trials use that prefix, and a controller may be started where they are set."""

_SERVICE_LINK: Final = re.compile(r"(.*_)?(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT|PORT_\d+_.*)")
"""Variables that Kubernetes sets in a pod for a Service named `autotuner-controller`."""

_EXAMPLE_FILE: Final = "/etc/autotuner/config.yaml"
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_HOST_NAME: Final = re.compile(r"[a-z0-9_]([-a-z0-9_.]{0,251}[a-z0-9_])?")


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _namespace(value: str) -> str:
    if not _LABEL.fullmatch(value):
        raise ValueError("must be the name of a namespace: at most 63 lower-case letters, digits and '-'")
    return value


def _kind(value: str) -> str:
    if named(value) is None:
        raise ValueError(f"must be one of {', '.join(kind.name for kind in KINDS)}")
    return value


def _object_name(value: str) -> str:
    if not _SUBDOMAIN.fullmatch(value):
        raise ValueError("must be the name of an object: at most 253 lower-case letters, digits, '-' and '.'")
    return value


def _unique(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value))


def _host(value: str) -> str:
    name = value.lower().removesuffix(".")
    if not _HOST_NAME.fullmatch(name):
        raise ValueError("must be a host name, without a scheme, a port or a path")
    return name


Namespace = Annotated[str, AfterValidator(_namespace)]
Namespaces = Annotated[tuple[Namespace, ...], NoDecode, BeforeValidator(_split), AfterValidator(_unique)]
Kind = Annotated[str, AfterValidator(_kind)]
Kinds = Annotated[
    tuple[Kind, ...], NoDecode, BeforeValidator(_split), AfterValidator(_unique), Field(min_length=1)
]
Hosts = Annotated[
    tuple[Annotated[str, AfterValidator(_host)], ...],
    NoDecode,
    BeforeValidator(_split),
    AfterValidator(_unique),
]
ObjectName = Annotated[str, AfterValidator(_object_name)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
LeaseSeconds = Annotated[float, Field(ge=1, le=86_400, allow_inf_nan=False)]

_JITTER: Final = 1.2
"""The client's election lengthens each pause between two attempts by up to this factor."""


def _setting(default: Any, meaning: str, example: str, **rules: Any) -> Any:  # noqa: ANN401 (as pydantic.Field)
    return Field(default=default, description=meaning, examples=[example], **rules)


class ControllerSettings(BaseSettings):
    """The settings of the controller. Frozen; made by `load`, which reports every mistake at once."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", validate_default=True, env_prefix=ENV_PREFIX, env_ignore_empty=True
    )

    config_file: Path | None = _setting(None, "YAML file with any of the settings below", _EXAMPLE_FILE)
    namespaces: Namespaces = _setting(
        (), "namespaces to watch, a list or separated by commas; none: the whole cluster", "team-a,team-b"
    )
    kinds: Kinds = _setting(
        tuple(kind.name for kind in KINDS), "kinds of jobs to tune, a list or separated by commas", "TrainJob"
    )
    max_parallel_trials: int | None = _setting(
        None, "trials that may run at once over all jobs; none: each job's own limit only", "16", ge=1
    )
    threads: int = _setting(4, "jobs that are reconciled at once", "4", ge=1, le=64)
    poll_seconds: Seconds = _setting(
        15.0, "seconds between two polls of the logs of a job's running trials", "15"
    )
    resync_seconds: Seconds = _setting(
        300.0, "seconds between two live reads of every job, whatever the watches report", "300"
    )
    start_patience_seconds: Seconds = _setting(
        600.0,
        "how long a trial may wait for its pods, a node, an image, a volume or its queue before the job's"
        " status says so",
        "600",
    )
    max_log_bytes: int = _setting(
        1_048_576, "bytes of a pod's log that one poll reads at most", "1048576", ge=65_536, le=67_108_864
    )
    leader_election: bool = _setting(
        False, "whether a Lease elects the one replica that reconciles; needs lease_namespace", "true"
    )
    lease_name: ObjectName = _setting("autotuner", "name of that Lease", "autotuner")
    lease_namespace: Namespace | None = _setting(None, "namespace of that Lease", "autotuner")
    lease_seconds: int = _setting(
        30,
        "seconds that the Lease is valid after its last renewal: the longest gap after a crash",
        "30",
        ge=2,
        le=86_400,
    )
    renew_seconds: LeaseSeconds = _setting(
        None,
        "seconds without a renewal after which the holder stops; less than lease_seconds; none: two thirds"
        " of it",
        "20 in a lease of 30",
    )
    retry_seconds: LeaseSeconds = _setting(
        None,
        "seconds between two attempts to acquire or renew the Lease; less than renew_seconds; none: a"
        " quarter of it, at least 1",
        "5 where renewal gives up after 20",
    )
    http_host: str = _setting(
        "::",
        "address on which /healthz, /readyz and /metrics are served; `::` is every address, IPv4 and IPv6",
        "127.0.0.1",
        min_length=1,
    )
    http_port: int = _setting(8080, "port on which they are served", "8080", ge=1, le=65_535)
    pages_host: str = _setting(
        "127.0.0.1",
        "address on which the read-only web pages of all studies are served; they have no authentication",
        "::",
        min_length=1,
    )
    pages_port: int | None = _setting(
        None, "port on which these pages are served; none: there are no pages", "8081", ge=1, le=65_535
    )
    pages_hosts: Hosts = _setting(
        (),
        "host names under which these pages may be asked for, besides localhost and IP addresses, a list or"
        " separated by commas: those of a proxy or an Ingress",
        "autotuner.example.com",
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "info", "lowest level of the log lines that are written", "info"
    )
    log_format: Literal["auto", "json", "console"] = _setting(
        "auto", "format of the log lines; auto: console on a terminal, JSON elsewhere", "json"
    )

    @field_validator("renew_seconds", "retry_seconds", mode="before")
    @classmethod
    def _follows_the_lease(cls, value: object, info: ValidationInfo) -> object:
        if value is not None:
            return value
        if info.field_name == "renew_seconds":
            return info.data.get("lease_seconds", 30) * 2 / 3
        return max(1.0, info.data.get("renew_seconds", 20.0) / 4)

    @field_validator("renew_seconds")
    @classmethod
    def _renews_before_the_lease_ends(cls, value: float, info: ValidationInfo) -> float:
        # A holder that continues after its lease has expired works at the same time as its successor.
        return _less(value, "lease_seconds", info)

    @field_validator("retry_seconds")
    @classmethod
    def _retries_before_it_gives_up(cls, value: float, info: ValidationInfo) -> float:
        # The election library ends the process when it refuses such times.
        _less(value * _JITTER, "renew_seconds", info)
        return value

    @field_validator("lease_namespace")
    @classmethod
    def _the_lease_has_a_namespace(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("leader_election"):
            raise ValueError("must be the namespace of the Lease, which leader_election needs")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (pydantic-settings calls it so)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources, strongest first: flags, environment, file."""
        path = init_settings().get("config_file") or env_settings().get("config_file")
        return init_settings, env_settings, InitSettingsSource(settings_cls, _read(path))

    @classmethod
    def load(cls, **flags: object) -> Self:
        """Read the configuration from flags, the environment and the file that either of them names.

        Args:
            flags: values by setting name; None: the flag was not given.

        Raises:
            InvalidConfiguration: the file cannot be read, or values break rules; one line per mistake.
        """
        given = {name: value for name, value in flags.items() if value is not None}
        path = given.get("config_file") or os.environ.get(environment_name("config_file")) or None
        filed = _read(path)
        mistakes = list(_unknown_variables(os.environ))
        try:
            loaded = cls(**given)  # type: ignore[arg-type]  # the model checks them
        except ValidationError as error:
            mistakes += [_mistake(details, given, filed, path) for details in error.errors()]
        if mistakes:
            raise InvalidConfiguration("\n".join(str(mistake) for mistake in mistakes))
        return loaded


@dataclass(frozen=True, slots=True)
class SettingDoc:
    """One setting as the documentation shows it: every text is ready to print."""

    name: str
    environment: str
    default: str
    meaning: str


def settings() -> tuple[SettingDoc, ...]:
    """Return every setting in the order of the model."""
    return tuple(
        SettingDoc(name, environment_name(name), _shown(field), field.description or "")
        for name, field in ControllerSettings.model_fields.items()
    )


def environment_name(name: str) -> str:
    """Return the environment variable that carries a setting."""
    return ENV_PREFIX + name.upper()


def _shown(field: FieldInfo) -> str:
    match field.default:
        case None | ():
            return "none"
        case bool(value):
            return str(value).lower()
        case float(value):
            return f"{value:g}"
        case tuple(values):
            return ",".join(map(str, values))
        case value:
            return str(value)


def _less(value: float, than: str, info: ValidationInfo) -> float:
    bound = info.data.get(than)  # absent where it is itself a mistake
    if bound is not None and value >= bound:
        raise ValueError(f"must be well below {than}, which is {bound:g}")
    return value


def _read(path: object) -> dict[str, Any]:
    """Return the content of a settings file; empty if no file is named."""
    if not path:
        return {}
    try:
        text = Path(str(path)).read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfiguration(
            f"config_file is {str(path)!r}: must be a file that can be read ({error}),"
            f" for example {_EXAMPLE_FILE}"
        ) from error
    except yaml.YAMLError as error:
        raise InvalidConfiguration(
            f"config_file is {str(path)!r}: must be YAML ({error}), for example 'threads: 4'"
        ) from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InvalidConfiguration(
            f"config_file is {str(path)!r}: must hold settings by name, a line each, for example 'threads: 4'"
        )
    return content


def _unknown_variables(environment: Mapping[str, str]) -> Iterator[Mistake]:
    known = {environment_name(name) for name in ControllerSettings.model_fields}
    for variable, value in sorted(environment.items()):
        rest = variable.upper().removeprefix(ENV_PREFIX)
        if rest in (variable.upper(), "") or variable.upper() in known or _SERVICE_LINK.fullmatch(rest):
            continue
        yield Mistake(variable, value, _NO_SUCH_SETTING, environment_name(_nearest(rest.lower())))


_NO_SUCH_SETTING: Final = "the name must be that of a setting"


def _nearest(name: str) -> str:
    names = list(ControllerSettings.model_fields)
    return next(iter(difflib.get_close_matches(name, names, n=1)), names[1])


def _mistake(
    details: ErrorDetails, flags: Mapping[str, object], filed: Mapping[str, object], path: object
) -> Mistake:
    """Convert a pydantic error into a mistake with source, value, rule and example."""
    name = str(details["loc"][0])
    field = ControllerSettings.model_fields.get(name)
    if name in flags:
        key = "--" + name.replace("_", "-")
    elif os.environ.get(environment_name(name)):
        key = environment_name(name)
    elif name in filed:
        key = f"{name} in {path}"
    else:
        key = name
    value = "none" if details["input"] is None else str(details["input"])
    if field is None:
        return Mistake(key, value, _NO_SUCH_SETTING, _nearest(name))
    return Mistake(key, value, rule_of(details), str((field.examples or [""])[0]))
