"""Read a local trial from the files that its processes and its supervisor leave in its folder."""

from __future__ import annotations

import codecs
import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from autotuner.backends.local import supervisor
from autotuner.backends.local.study_folder import NAMES_LOG, kept_logs, read_json
from autotuner.errors import InvalidRecord
from autotuner.spec import TuningSpec
from autotuner.study.endings.log_errors import ProcessLog
from autotuner.study.endings.log_tail import MAX_LOG
from autotuner.study.endings.outcome import Ending, classify
from autotuner.study.logs.log_reader import LogReader, with_reading
from autotuner.study.suggestions import decode_suggestion
from autotuner.trial import Trial

SUGGESTION: Final = "suggestion.json"
"""The file of a trial's folder with its suggestion, its devices and its template."""
_READ_AT_ONCE: Final = 4 << 20
"""Maximum bytes of a log that one observation reads: a script that prints much must not hold up others."""
_LOGS_READ: Final = 16
"""Maximum number of pods of a trial whose logs are searched for the metric."""
_NO_ENDING: Final = "the trial's supervisor ended without a record: it was killed, or the disk is full"


@dataclass(slots=True)
class _Log:
    """The position up to which a rank-0 log has been read; a cache that can be rebuilt from the file."""

    reader: LogReader
    decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")(errors="replace")
    )
    offset: int = 0
    is_whole: bool = False
    """Whether it has been read to the end that it had then."""


class TrialReader:
    """Reads trials from their folders. It keeps how far their logs have been read.

    Args:
        study: The folder of the study.
        runs: Returns whether the supervisor of the trial with this number runs.
    """

    def __init__(self, study: Path, runs: Callable[[int], bool]) -> None:
        self._study = study
        self._runs = runs
        self._logs: dict[tuple[object, ...], _Log] = {}

    def forget(self, number: int) -> None:
        """Drop what is kept of a trial's logs."""
        self._logs = {key: log for key, log in self._logs.items() if key[0] != number}

    def read(self, spec: TuningSpec, folder: Path) -> Trial | None:
        """Return the trial in a folder; None if it was interrupted while it was being started."""
        try:
            about = json.loads((folder / SUGGESTION).read_text())
            suggestion = decode_suggestion(json.dumps(about["suggestion"]))
            pods = json.loads((folder / supervisor.PODS).read_text())
            names = [pod["name"] for pod in pods]
            # The operator fixes ranks only in jobs with a Master; a dynamic rendezvous assigns them by
            # arrival.
            is_by_arrival = {"RANK", "PET_RDZV_BACKEND"} & pods[0]["environment"].keys() != {"RANK"}
        except (OSError, ValueError, KeyError, InvalidRecord):
            return None
        ending = read_json(folder / supervisor.ENDING)
        runs_on = self._runs(suggestion.number)
        if ending is None and not runs_on:
            # The supervisor wrote its ending between our two checks, or it was killed.
            ending = read_json(folder / supervisor.ENDING)
        others = names[1:_LOGS_READ] if is_by_arrival or ending is not None else ()
        log = self._read_logs(
            spec, suggestion.number, folder, (names[0], *others), has_ended=ending is not None
        )
        unread = Trial(
            suggestion=suggestion,
            started_at=_moment(read_json(folder / supervisor.STARTED) or ending),
            devices=int(about["devices"]),
            template=spec.attempt(str(about.get("template", ""))),
        )
        trial = with_reading(unread, log.reader)
        # Later observations read the rest of a long log; until then the trial counts as running.
        if not log.is_whole or (ending is None and runs_on):
            return trial
        if ending is None:
            lost = Ending(exit_code=None, disruption=_NO_ENDING)
            outcome, message = classify(lost, trial.measurements, spec.target)
            return replace(
                trial, outcome=outcome, message=message, ended_at=datetime.now(UTC), is_complete=False
            )
        ended = _ending(ending, folder, names, log.reader)
        outcome, message = classify(ended, trial.measurements, spec.target)
        if outcome in NAMES_LOG:
            # The path of the log once the trial is recorded: `stop` moves it there.
            kept = kept_logs(self._study, suggestion.number) / f"{ending['pod']}.log"
            message = f"{message}\nthe whole log: {kept}"
        ended_at = datetime.fromtimestamp(ending["ended_at"], UTC)
        return replace(
            trial, outcome=outcome, message=message, ended_at=ended_at, is_complete=ended.is_complete
        )

    def _read_logs(
        self, spec: TuningSpec, number: int, folder: Path, names: Sequence[str], *, has_ended: bool
    ) -> _Log:
        """Return the first log of these pods that has the metric or is not read yet; else the first pod's."""
        logs = (self._read_log(spec, number, folder / f"{name}.log", has_ended=has_ended) for name in names)
        first = next(logs)
        return next((log for log in (first, *logs) if _tells(log)), first)

    def _read_log(self, spec: TuningSpec, number: int, path: Path, *, has_ended: bool) -> _Log:
        # The readings depend on all of these: after an edit the log is read again from its start.
        key = (number, path.name, spec.target, spec.log_format, spec.metric_pattern)
        log = self._logs.get(key)
        if log is None:
            reader = LogReader(spec.target, log_format=spec.log_format, pattern=spec.metric_pattern)
            log = self._logs[key] = _Log(reader)
        log.is_whole = True
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            file.seek(log.offset)
            piece = file.read(_READ_AT_ONCE)
            log.offset += len(piece)
            log.reader.feed(log.decoder.decode(piece))
            log.is_whole = not file.read(1)
        if has_ended and log.is_whole:
            log.reader.close()
        return log


def _ending(about: Mapping[str, Any], folder: Path, names: Sequence[str], reader: LogReader) -> Ending:
    """Return the ending that a supervisor has recorded, with the ends of the logs if the trial failed."""
    code, last = int(about["exit_code"]), _tail(folder / f"{about['pod']}.log")
    logs: tuple[ProcessLog, ...] = ()
    if code != 0:
        # A process that waits for one that ran out of memory may appear to fail first: all logs count.
        rest = (ProcessLog(_tail(folder / f"{name}.log")) for name in names if name != about["pod"])
        # Pods are not deleted on this machine: a signal comes from the kernel or the user.
        signalled = 128 - code if code > 128 else code  # noqa: PLR2004 (a shell's 128 + signal)
        logs = (ProcessLog(last, signalled), *rest)
    return Ending(code, last, logs=logs, near_misses=reader.near_misses, uncounted=reader.uncounted)


def _tells(log: _Log) -> bool:
    return bool(log.reader.measurements or log.reader.doubt) or not log.is_whole


def _moment(about: Mapping[str, Any] | None) -> datetime | None:
    return None if about is None else datetime.fromtimestamp(about["started_at"], UTC)


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - MAX_LOG))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
