"""Tell lines that show that a program went on after an error from lines that only look like errors."""

from __future__ import annotations

import re
from typing import Final

_BENIGN: Final = re.compile(
    r"(?:^|[\s\[|:(-])(?:WARN(?:ING)?|INFO|DEBUG|NOTICE|\w{0,40}Warning)(?:[\s\]|:)-]|$)"
    r"|^(?:[\d-]{10} [\d:.]{8,15}: )?\[?[WI](?:\d{3,4})? |^wandb:|failed call to cuInit"
    r"|^\s{0,8}(?:warnings\.)?warn\("
)
"""Levels below error, as logging, loguru, glog, TensorFlow and warnings write them.

TensorFlow without a GPU says that cuInit failed, and trains on.
"""
_SURVIVED: Final = re.compile(
    r"(?<!system to )\b(?:recover(?:ed|ing)?|reconnect(?:ed|ing)|retry(?:ing)?(?! (?:count|limit))"
    r"|trying again|try again with|skip(?:ped|ping)?"
    r"|not a failure|thrown while requesting|fall(?:ing|s)? ?back|ignor(?:ed|ing)"
    r"|continu(?:e|ing) (?:with|training|anyway)"
    r"|(?:reduc|decreas|halv|lower)ing (?:the )?(?:micro)?.?batch)\b",
    re.IGNORECASE,
)
_ADVICE: Final = re.compile(
    # An imperative begins its clause: "Reduce the batch size and retry", "Please try again".
    r"(?:(?:^|[^\w\s]\s{0,4}|\bplease,? )(?:either|try|consider|reduce|decrease|lower|increase|set)\b(?! \d)"
    r"|\bplease,? retry|\b(?:hint|tip|suggestion|solution)s?:"
    r"|\byou (?:can|could|may|might|should|must|need to) \w{1,20}"
    r"|(?<!will )(?<!'ll )(?<!now )\b(?:try|consider|suggest|recommend) \w{1,20}ing"
    r"|(?:\b(?:not|cannot|unable to|failed to|without)|n't) (?:be )?(?=recover|retry|skip|continu|ignor)"
    r")(?:[^.;!]|\.(?! (?-i:[A-Z]))){0,300}"
    r"|\b\w{1,20}ing [^.;!]{0,80}\b(?:may|might|can|could|should|would) (?:help|fix|solve|avoid|resolve)\b",
    re.IGNORECASE,
)
"""Clauses that tell the user what to do, or what the program does not do."""
_PROGRESS: Final = re.compile(
    r"\b(?:epoch|step|iter(?:ation)?|loss|acc(?:uracy)?|ppl|perplexity|lr|batch|num_updates)\b\W{0,8}\d",
    re.IGNORECASE,
)
_LOUD: Final = re.compile(
    r"\berror: |\b(?:ERROR|FATAL|CRITICAL|[Aa]bort(?:ing|ed)?|[Ee]xiting|[Tt]erminating)\b"
    r"|(?<![Ee]arly[ _-])\b[Ss]topping\b"
)


def is_benign(line: str) -> bool:
    """Return whether a line has a level below error."""
    # NCCL calls its errors warnings, and urllib3 its last attempt.
    return "NCCL WARN" not in line and not _is_last_attempt(line) and _BENIGN.search(line[:200]) is not None


def is_progress(line: str) -> bool:
    """Return whether a line has the epoch, the loss or the like of a training that goes on."""
    return _PROGRESS.search(line) is not None and _LOUD.search(line) is None


def _is_last_attempt(line: str) -> bool:
    return "Retry(total=0," in line


def says_survived(line: str) -> bool:
    """Return whether a line says that the program goes on, and gives no mere advice."""
    if _is_last_attempt(line):
        return False
    return _SURVIVED.search(line) is not None and _SURVIVED.search(_ADVICE.sub("", line)) is not None


def shows_progress(line: str) -> bool:
    """Return whether a line shows that the program went on after what stands before it."""
    # A progress bar is redrawn when it is closed, and loggers print summaries at exit.
    is_bar = "%|" in line or line.startswith(("wandb:", "COMET INFO:"))
    return not is_bar and (is_progress(line) or says_survived(line))
