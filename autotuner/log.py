"""Structured logs: constant event names, data as keys, one line per event.

`configure` is called once, by a command, never at import. Log lines of other libraries take the same path, so
that every line of the controller is JSON.
"""

from __future__ import annotations

import logging
import sys
from typing import Final, Literal, TextIO

import structlog
from structlog.typing import Processor

_NOISY: Final = {
    # The watch itself logs each failed list or watch, in one line and without a traceback.
    "kubernetes": logging.CRITICAL,
    "leaderelection": logging.WARNING,
    "urllib3": logging.ERROR,
    # Logs "A new study created in memory" for each proposal of one of Optuna's own samplers.
    "optuna.storages": logging.WARNING,
    # GPSampler warns at its first proposal that greenlet, which nothing here needs, would make it faster.
    "optuna._gp.batched_lbfgsb": logging.ERROR,
}

_FRAMES: Final = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
"""Tracebacks without local variables: a local may be a job, whose environment may hold secrets."""


def configure(
    level: str = "info",
    form: Literal["auto", "json", "console"] = "auto",
    stream: TextIO | None = None,
) -> None:
    """Send log lines to `stream` (standard error): JSON unless it is a terminal."""
    stream = stream or sys.stderr
    is_json = form == "json" or (form == "auto" and not stream.isatty())
    severity = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers: list[Processor] = (
        [structlog.processors.ExceptionRenderer(_FRAMES), structlog.processors.JSONRenderer()]
        if is_json
        else [
            structlog.dev.ConsoleRenderer(
                colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(severity),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(severity)
    quiet_libraries(severity)


def quiet_libraries(severity: int = logging.INFO) -> None:
    """Suppress useless log lines of libraries; for our own commands, never at import."""
    for name, quietest in _NOISY.items():
        logging.getLogger(name).setLevel(max(severity, quietest))
