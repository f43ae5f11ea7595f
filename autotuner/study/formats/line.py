"""Clean one line of a log: colours, ranks, logging prefixes, full-width punctuation, array reprs.

Every expression here has bounded repetition, so the cost is linear in the length of the line.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from typing import Final

NUMBER: Final = (
    r"[-+]?(?:(?:[1-9]\d{0,2}(?:,\d{3}){1,6}(?![\d,])(?:\.\d{1,40})?|\d{1,40}\.?\d{0,40}|\.\d{1,40})"
    r"(?:[eE][-+]?\d{1,4})?|nan|inf(?:inity)?)"
)
"""A number as programs print it: `0.93`, `1e-3`, `195,153`, `nan`."""
BAR: Final = r"%(?:\s?\|[^\s\w|]|\|\s{2})"
"""A progress bar's own percentage with the bar's beginning: `30%|###`, `0%|   |`; not `45.3% | Test`."""
NUMBER_END: Final = rf"(?!(?!dB\b)[\w]|\.\d|\.?#|[,'@]\d|-\.?\d|\s?e[-+]\d|\s?{BAR})"
"""What must not follow a number: excludes `1.2.3`, `0x10`, `1.#QNAN`, `0.5-0.9`, `0,93` (its comma may
separate decimals), `2'345`, `0.61@0.5`, `2.3 e+02`, and a progress bar's own percentage."""

ESCAPE: Final = re.compile(
    r"\x1b(?:\[[0-9;?]{0,64}[ -/]{0,4}[@-~]|\][^\x07\x1b]{0,512}(?:\x07|\x1b\\)|[@-Z\\-_])"
)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u200b\ufeff]")
_WRAPPED: Final = re.compile(
    rf"\b(?:(?:np|numpy|torch|jnp|jax|tf)\.)?(?:Tensor|Decimal|float|float\d{{1,3}}|int\d{{1,3}}|bfloat16|tensor|array|Array"
    rf"|DeviceArray|ArrayImpl)\(\s{{0,4}}['\[]{{0,3}}\s{{0,4}}({NUMBER})\s{{0,4}}['\]]{{0,3}}"
    r"(?:, shape=\(\))?"
    r"(?:,\s{0,4}[a-z_]{1,20}=[^()]{0,60})?\)"
)
"""`np.float64(0.17)`, `tensor(0.93, device='cuda:0')`, `tensor([0.93])`, `Array(0.5, dtype=float32)`."""
_RANK: Final = re.compile(
    r"\s{0,4}(?:"
    # torch.distributed, torchrun's tee, and what people write; not a place in the code, `(trainer:243) INFO:`
    r"(?!\((?:trainer|worker|process|device):\d{1,6}\) (?:INFO|DEBUG|WARNING))"
    r"[\[(](?:(?:local_?)?rank|default|trainer|worker|gpu|cuda|xla|npu|hpu|process|proc|device)[ =:_#-]{0,2}"
    r"(\d{1,6})(?:/\d{1,6})?\s?[\])]:?"
    r"|\[\d{1,4},(\d{1,6})\]\s?<std(?:out|err)>:?"  # mpirun --tag-output
    # `Rank-10: 54.1%` is a metric.
    r"|\[?(?:rank|worker|gpu|process)[ =:_#-]{0,3}(\d{1,6})(?:/\d{1,6})?\]?\s?"
    r"(?:[:|](?!\s{0,8}\d{1,3}(?:\.\d{1,20})?\s{0,8}(?:%(?!\s?\|)|,|$))"
    r"|-(?= ))"
    r"|\(?\w{1,40} (?:rank=|pid=)(\d{1,9})(?:, ip=[\d.]{1,40})?\)"  # Ray
    r"|(\d{1,4}):(?= {1,12}[^\d\s])"  # srun --label
    r")\s?",
    re.IGNORECASE,
)
_TIME: Final = (
    r"\[?(?:\d{4}[-/]\d\d[-/]\d\d|\d\d[-/](?:\d\d|[A-Z][a-z]{2})(?:[-/]\d{2,4})?)[T _]{1,2}\d\d:\d\d:\d\d"
    r"(?:[.,]\d{1,9})?(?:Z|\s?[+-]\d\d:?\d\d|\s[AP]M(?![A-Za-z]))?"
)
_MONTH: Final = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_LEVEL: Final = r"(?:INFO|DEBUG|WARNING|WARN|NOTICE|CRITICAL)\b"
_LOGGING: Final = re.compile(
    r"\s{0,4}(?:"
    # A word before the time is that of the logger and says nothing about the data: `Training: 2022-01-01`.
    # One behind it is the logger's name only before a bracket; else it may be `epoch` or `DEV`.
    rf"(?:[A-Za-z]{{3,16}}: )?{_TIME}"
    # A place in the code is one of a file, or before a bracket: `step:10/100 val_loss:3.1` is the line's own.
    r"(?:-(?=[A-Za-z\[])|\s{1,2}[\w.]{1,80}(?=\]|\s{1,2}[\w./-]{1,80}\.py:\d))?"
    r"(?:\s{1,2}[\w./-]{1,80}(?:\.py:\d{1,6}|:\d{1,6}(?=\])))?\]?:?"
    r"(?:\s(?:stdout|stderr) [FP] )?"
    r"|[IWE]\d{4} \d\d:\d\d:\d\d\.\d{1,9}\s{1,4}\d{1,20}(?:\s[\w./-]{1,80}:\d{1,6})?\]"  # glog, absl
    rf"|\[{_LEVEL}\|[\w./-]{{1,80}}:\d{{1,6}}\](?=\s)|>>(?=\s)"  # Transformers
    # Behind the level in brackets, the logger's name: `[INFO][model] - `, but not `[INFO][val] - `.
    rf"|\[{_LEVEL}\]"
    r"(?:\[(?!(?:train|val|test|eval|dev|ema)(?!er\])\w{0,8}\])[A-Za-z_][\w.]{0,79}\](?= - ))?"
    rf"|\[?\b{_LEVEL}\]?(?::[\w.]{{1,80}}:|\s{{0,4}}:)?"
    # Between bars, perhaps with the logger's name and another bar: `| INFO | my.trainer | `.
    rf"|\|\s{{0,4}}{_LEVEL}\s{{0,8}}\|(?=\s)"
    r"(?:\s{1,2}(?!(?:train|val|test|eval|dev|metric)\w{0,8}\.)"
    r"(?:[A-Za-z_]\w{0,40}(?:\.\w{1,40}){1,6}|__\w{1,40}__)\s{1,20}\|(?=\s))?"
    r"|\[Main(?:Process|Thread)\](?=\s)"
    # Before the level, the logger's name or the place in the code: `- trainer - INFO`, `[train][INFO]`.
    rf"|[\[(]?[A-Za-z_][\w./-]{{0,79}}(?:\[line:\d{{1,6}}\]|:\d{{1,6}})?[\])]?(?:\s{{1,2}}[-|])?\s{{0,8}}(?=\[?{_LEVEL})"
    r"|\[(?:info|debug|warning)\s{0,8}\](?=\s)"  # structlog
    # RecBole; syslog, with the host and the process.
    rf"|\d\d {_MONTH} \d\d:\d\d(?=\s)"
    rf"|{_MONTH}\s{{1,2}}\d{{1,2}} \d\d:\d\d:\d\d [\w.-]{{1,80}} [\w./-]{{1,80}}(?:\[\d{{1,10}}\])?:(?=\s)"
    r"|(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),?\s\d\d?\s[A-Z][a-z]{2}\s\d{4}\s(?=\d\d:\d\d:\d\d)"  # of RecBole
    r"|\[?\d\d:\d\d:\d\d(?:[.,]\d{1,9})?\]?(?=\s)|\d{10}(?:\.\d{1,9})?(?=\s)"  # a clock, a UNIX time
    r"|\s{0,8}\|?\s{0,4}[\w.<>]{1,80}:[\w.<>]{1,80}:\d{1,6} -(?=\s)"  # loguru's place in the code
    r"|\[pod/[^\]\s]{1,200}\](?=\s)|\[\d{2,8}\](?= )"  # kubectl logs --prefix; a process
    r"|\([\w./-]{1,80}\.py[: ]\d{1,6}\)(?::|(?=\s))"
    # "- mmdet -" of the common logging layout; not "- val_loss - 0.4".
    rf"|-\s(?!{_LEVEL}|(?:train|val|test|eval)(?!(?:er|uator)\s))[\w.-]{{1,80}}\s-(?=\s)"
    r"|[-|](?=\s{0,4}\b(?:INFO|DEBUG|WARNING)\b)|-(?=\s)|\((?:INFO|DEBUG|WARNING)\):"
    r"|\[(?:[\w./-]{1,80}\.py(?::\d{1,6})?(?::[\w.<>]{1,80})?|__\w{1,40}__)\]:?(?=\s)"
    r")"
)
_STEP: Final = re.compile(
    r"(?P<head>[IWE]\d{4} \d\d:\d\d:\d\d\.\d{1,9}\s{1,4}\d{1,20}\s[\w./-]{1,80}:\d{1,6}\] )"
    r"\[(?P<step>\d{1,12})\](?=\s)"
)
"""`I0101 12:00:00.123456 140 logging_writer.py:48] [1000] accuracy=0.8`: the step behind the number of the
process, as the metric writers of JAX's libraries print it."""
_EPOCH_OF: Final = re.compile(
    r"(?P<epoch>ep(?:och)?)(?P<number>\d{1,6})_(?P<data>train|val|valid|test|eval|dev)(?=[,:\s])",
    re.IGNORECASE,
)
"""`EP0_test, avg_loss= 5.1`: the epoch and the data set in a word."""
_PLACE_AT_END: Final = re.compile(r"\s{1,200}[\w.<>-]{1,80}\.py:\d{1,6}$")
"""`INFO     Epoch 1 acc 0.81       train.py:99`: the place in the code, which rich's logger prints last."""
_MAX_PLACE: Final = 12
_MAX_PREFIXES: Final = 10
_FULL_WIDTH: Final = re.compile(r"[\u00a0\u2000-\u200a\u202f\u2212\u3000-\u3002\uff01-\uff5e]")
_TRANSLATED: Final = {"\u3001": ",", "\u3002": ".", "\u2212": "-"}


_LOGFMT: Final = re.compile(
    r"(?:(?:time|ts|level|logger)=(?:\"[^\"]{0,80}\"|\S{1,80})\s){1,4}msg=\"(?P<said>.*)\"\s{0,4}"
)
_SAID: Final = ("message", "msg", "log", "event")
_OF_LOGGERS: Final = frozenset(
    {
        "time",
        "ts",
        "timestamp",
        "@timestamp",
        "asctime",
        "created",
        "datetime",
        "date",
        "level",
        "levelname",
        "levelno",
        "severity",
        "name",
        "logger",
        "logger_name",
        "module",
        "filename",
        "file",
        "pathname",
        "lineno",
        "line",
        "funcname",
        "function",
        "func",
        "process",
        "processname",
        "pid",
        "thread",
        "threadname",
        "taskname",
        "stream",
        "host",
        "hostname",
        "caller",
        "service",
        "app",
        "version",
        "@version",
        "relativecreated",
        "msecs",
    }
)
"""Fields beside the message that loggers write by themselves."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line as the readers get it.

    `text` is clean. `indent` counts its leading spaces. `rank` is the process that a prefix names. `raw` is
    the line before logging prefixes were removed, for messages. `is_redrawn` says that the line ended with a
    carriage return, so that the next line replaces it on a terminal.
    """

    text: str
    raw: str
    rank: int | None = None
    is_redrawn: bool = False

    @property
    def indent(self) -> int:
        """The number of spaces at the start."""
        return len(self.text) - len(self.text.lstrip())


def messages_of(line: str) -> list[str]:
    """Return the lines that a logger has put into a record of its own, or the line itself.

    `{"levelname": "INFO", "message": "Validation:"}` says no more than `Validation:`. A record with other
    fields is left as it is: they may be the epoch or the metric.
    """
    text = line.strip()
    if text[:1] == "{" and text[-1:] == "}" and any(f'"{name}"' in text for name in _SAID):
        try:
            record = json.loads(text)
        except (ValueError, RecursionError):
            return [line]
        said = [name for name in _SAID if isinstance(record.get(name), str)]
        others = (name.lower() for name in record if name not in said)
        if len(said) == 1 and all(name in _OF_LOGGERS for name in others):
            return re.split(r"\r\n|[\r\n]", record[said[0]].rstrip("\r\n"))
    elif (found := _LOGFMT.fullmatch(text)) is not None:
        return [found["said"]]
    return [line]


def clean(line: str, *, is_redrawn: bool = False) -> Line:
    """Return a line without the additions of terminals, launchers and loggers."""
    text = ESCAPE.sub("", line)
    if not text.isascii():
        text = _FULL_WIDTH.sub(_narrow, text)
    text = _CONTROL.sub("", text.rsplit("\b", 1)[-1])
    if "(" in text:
        text = _WRAPPED.sub(r"\1", text)
    raw = text.rstrip()
    text, rank = _without_prefixes(_PLACE_AT_END.sub("", raw) if ".py:" in raw[-_MAX_PLACE:] else raw)
    if text.lstrip()[:2].lower() == "ep":
        text = _EPOCH_OF.sub(r"\g<epoch> \g<number> \g<data>", text, count=1)
    return Line(text, raw.strip(), rank, is_redrawn)


def to_number(text: str) -> float:
    """Return the value of a text that `NUMBER` matched."""
    return float(text.replace(",", ""))


def percent(count: float, total: float) -> float:
    """Return a count as percentage of a total, without the spurious digits of the division."""
    return float(f"{100 * count / total:.12g}")


def _without_prefixes(text: str) -> tuple[str, int | None]:
    rank = None
    if "] [" in text:
        text = _STEP.sub(r"\g<head>step \g<step>:", text, count=1)
    for _ in range(_MAX_PREFIXES):
        if match := _RANK.match(text):
            found = next((group for group in match.groups() if group is not None), None)
            rank = rank if found is None else int(found)
            rest = text[match.end() :]
        elif (match := _LOGGING.match(text)) and match.end():
            # A blank separates it from the line, whose own indentation tells what is below a heading.
            rest = text[match.end() :].removeprefix(" ")
        else:
            break
        if not rest.strip():
            break
        text = rest
    return text, rank


def _narrow(match: re.Match[str]) -> str:
    return _TRANSLATED.get(match[0]) or unicodedata.normalize("NFKC", match[0])


def printable(line: str) -> str:
    """Return a line without terminal control sequences, and with a space for each other control character."""
    return "".join(c if c.isprintable() else " " for c in ESCAPE.sub("", line))
