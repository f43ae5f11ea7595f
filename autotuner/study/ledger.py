"""Encode finished trials as ledger entries, one line of JSON each, and decode them.

The ledger is a mapping from `keys.ledger_key(number)` to such a line: the `data` of a ConfigMap on a
cluster, a directory of files on a laptop. An entry is written once, whole, and never changed, so recording
twice is harmless. `encode_trial` bounds an entry by thinning its curve.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from autotuner import keys
from autotuner.errors import InvalidRecord
from autotuner.study.suggestions import decode_suggestion, encode_suggestion
from autotuner.study.thinning import thin
from autotuner.trial import Judged, Measurement, Outcome, Trial

CAPACITY: Final = 1_000_000
"""Bytes of all entries of one ConfigMap: 1 MiB less the object's own fields."""
MAX_POINTS: Final = 200
"""Maximum number of measurements of one entry: more than the search uses, and enough for a plot."""
_MAX_MESSAGE: Final = 2000
_MAX_WARNINGS: Final = 5
_MAX_WARNING: Final = 300


def encode_trial(trial: Trial, *, points: int = MAX_POINTS) -> str:
    """Return a finished trial as one line of JSON with at most about `points` measurements."""
    entry: dict[str, Any] = {
        "suggestion": json.loads(encode_suggestion(trial.suggestion)),
        "outcome": str(trial.outcome),
        # JSON has no NaN; every reader accepts it as text.
        "curve": [
            [m.step, m.value if math.isfinite(m.value) else str(m.value)] for m in _curve(trial, points)
        ],
        "devices": trial.devices,
    }
    for name in ("started_at", "ended_at"):
        moment: datetime | None = getattr(trial, name)
        if moment is not None:
            entry[name] = moment.isoformat()
    if trial.is_complete is not None:
        entry["complete"] = trial.is_complete
    optional: dict[str, Any] = {
        "template": trial.template,
        "reads": trial.reads,
        "unit": trial.unit,
        "warnings": [text[:_MAX_WARNING] for text in trial.warnings[:_MAX_WARNINGS]],
        "node": trial.node,
        "message": trial.message[:_MAX_MESSAGE],
        "extras": dict(trial.extras),
        "loops": list(trial.loops),
        "losses": list(trial.losses),
    }
    entry.update({name: value for name, value in optional.items() if value})
    if trial.earlier_seconds:
        entry["earlier_seconds"] = trial.earlier_seconds
    if trial.judged is not None:
        entry["judged"] = [trial.judged.step, trial.judged.study]
    if trial.variables is not None:
        entry["variables"] = list(trial.variables)
    return json.dumps(entry, separators=(",", ":"))


def decode_trial(text: str) -> Trial:
    """Read a finished trial.

    Raises:
        InvalidRecord: If the entry is not what `encode_trial` writes.
    """
    try:
        entry = json.loads(text)
        return Trial(
            suggestion=decode_suggestion(json.dumps(entry["suggestion"])),
            measurements=tuple(Measurement(_step(s), float(v)) for s, v in entry["curve"]),
            outcome=Outcome(entry["outcome"]),
            started_at=_moment(entry.get("started_at")),
            ended_at=_moment(entry.get("ended_at")),
            devices=_count(entry["devices"]),
            message=str(entry.get("message", "")),
            extras={str(name): float(value) for name, value in entry.get("extras", {}).items()},
            is_complete=_flag(entry.get("complete")),
            template=str(entry.get("template", "")),
            reads=str(entry.get("reads", "")),
            unit=str(entry.get("unit", "")),
            warnings=tuple(str(text) for text in entry.get("warnings", ())),
            variables=_names(entry.get("variables")),
            node=str(entry.get("node", "")),
            judged=_judged(entry.get("judged")),
            loops=tuple(_count(length) for length in entry.get("loops", ())),
            losses=tuple(float(value) for value in entry.get("losses", ())),
            earlier_seconds=max(_step(entry.get("earlier_seconds", 0.0)), 0.0),
        )
    except (ArithmeticError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise InvalidRecord(f"the ledger entry {text[:200]!r} cannot be read: {error!r}") from error


def decode_ledger(entries: Mapping[str, str]) -> tuple[list[Trial], list[str]]:
    """Return the trials of a ledger by number, and the errors of entries that cannot be read.

    The trial of an entry that cannot be read is lost; the study continues.
    """
    trials: list[Trial] = []
    problems: list[str] = []
    for key in sorted(entries):
        if keys.ledger_number(key) is None:
            continue
        try:
            trial = decode_trial(entries[key])
        except InvalidRecord as error:
            problems.append(f"{key}: {error}")
            continue
        if trial.number == keys.ledger_number(key):
            trials.append(trial)
        else:
            problems.append(f"{key}: it is the record of trial {trial.number}")
    return trials, problems


def size(entries: Mapping[str, str]) -> int:
    """Return the size of entries with their keys, in bytes."""
    return sum(len(key) + len(text.encode()) for key, text in entries.items())


def _curve(trial: Trial, points: int) -> list[Measurement]:
    return thin(trial.measurements, max(points, 4))


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"the time {text!r} has no time zone")
    return moment


def _step(value: object) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{str(value)[:40]!r} is not a step")
    return float(value)


def _flag(value: object) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise TypeError(f"{str(value)[:40]!r} is neither true nor false")
    return value


def _judged(value: object) -> Judged | None:
    if value is None:
        return None
    match value:
        case [step, str(study)]:
            return Judged(_step(step), study)
    raise TypeError(f"{str(value)[:40]!r} is not a step and a digest")


def _names(value: object) -> tuple[str, ...] | None:
    if value is not None and not isinstance(value, list):
        raise TypeError(f"{str(value)[:40]!r} is not a list of names")
    return None if value is None else tuple(map(str, value))


def _count(value: object) -> int:
    if not isinstance(value, int) or value < 1:
        raise TypeError(f"{str(value)[:40]!r} is not a positive number")
    return value
