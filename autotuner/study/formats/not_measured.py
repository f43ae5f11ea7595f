"""Tell from the words around a value that it is no measurement of this epoch.

The best value so far, a target, a threshold, or the value of a saved checkpoint is not.
"""

from __future__ import annotations

import re
from typing import Final

from autotuner.study.formats.line import NUMBER
from autotuner.study.formats.reading import position_in

NOT_MEASURED: Final = re.compile(
    r"(?<![A-Za-z])(?:best|targets?|goal|thresholds?|desired|required?|requires|expected|min(?:imum)?|max(?:im(?:um|al))?"
    r"|peak|all-time|optimum|champion|so far"
    r"|prev(?:ious)?|baseline|delta|old|record|patience|monitor(?:ing|ed|s)?|highest|lowest|until|stop(?:s|ping)?"
    r"|std|stddev|chance|random|oracle|bound|reference|paper|reports|published|human|sota|art|per-\w{1,12}|limit|desire|want(?:ed)?|reach|exceeds?|above|below|if|when|needs?|aim"
    r"|waiting|beat|last epoch's|initial(?:ly)?|prior|improvement|gain)"
    r"(?![A-Za-z])",
    re.IGNORECASE,
)
"""Words about another value than that of this epoch."""
_BEFORE: Final = re.compile(
    r"(?:[A-Za-z_'-]{1,24}[ \t_(]{1,3}){1,4}$|(?:to beat|target|goal):\s$", re.IGNORECASE
)
_TOP_MANY: Final = re.compile(
    r"(?<![A-Za-z])top[ _-]?(?:[2-9]\d?|1\d{1,2})[ \t_-]{1,2}(?:[A-Za-z]{1,12}[ \t_]{1,2}){0,2}$",
    re.IGNORECASE,
)
"""`Top5 test acc` is not the `test acc`."""
_BEST_EPOCH: Final = re.compile(
    r"(?<![A-Za-z])best (?:(?:epoch|iteration)[\s:=#]{1,3}\d{1,9}|metric)\s?[:,]\s{1,3}"
    r"(?:[A-Za-z][\w@]{0,16}\s?[:=]\s?[\d.]{1,12}[,;|\s]{1,4}){0,2}$",
    re.IGNORECASE,
)
"""Before a name: `End. Best epoch 001: HR = 0.69, `."""
_MARKED_BEST: Final = re.compile(
    r"(?<![a-z])(?<!new )best"
    r"(?:\s?(?:model|result|score|checkpoint|value|metric|val(?:id(?:ation)?)?|dev|eval|test)s?)?"
    r"(?:\s?(?:so far|until now|yet|ever))?"
    r"(?:@\d{1,6}\s|\s?[\])>*:]{1,5}\s{1,3})(?:[a-z]{1,10}[\s_]){0,2}$",
    re.IGNORECASE,
)
"""Before a name: `[best] val `, `Best so far: `, `*** best *** `."""
_AT_BEST: Final = re.compile(
    r"(?<![a-z])best(?:\s[a-z]{1,12}){0,3}\s?[(\[](?:at\s|from\s|@\s?)?(?:epoch|iter(?:ation)?|step)[\s:=#]{0,3}\d{1,9}[)\]]"
    r"\s?[:,|-]\s{1,3}(?:[a-z][\w@]{0,16}(?:\s[a-z]\w{0,16})?\s?[:=]?\s?[\d.]{1,12}\s?%?[,;|\s]{1,4}){0,3}"
    r"(?:[a-z]{1,10}\s)?$",
    re.IGNORECASE,
)
"""Before a name: `Best model (epoch 2): val acc 0.82, test `."""
_BEST_SO_FAR: Final = re.compile(
    r"(?<![A-Za-z])best so far:?\s{1,3}(?:at )?epoch\s\d{1,9}(?!\d)[^|]{0,300}$", re.IGNORECASE
)
"""Before a name: `Best so far: epoch 12  train_loss: 0.5  `."""
_WITH_BEST: Final = re.compile(
    rf"(?<![A-Za-z])best\s(?:[A-Za-z][\w@-]{{0,24}}\s){{0,3}}[A-Za-z][\w@-]{{0,24}}\s?[:=]?\s{{0,3}}{NUMBER}\s?%?,?\s(?:and|with|corresponding)\s"
    r"(?:(?:the|its|corresponding)\s){0,2}$",
    re.IGNORECASE,
)
"""Before a name: `Best dev accuracy: 64.8, and ` is about another epoch than this one."""
_OF_BEST: Final = re.compile(
    r"(?<![a-z])(?:(?<!new )best|prev(?:ious)?|initial|baseline|target|goal)(?:\s[a-z]{1,12}){0,2}\W{0,4}"
    r"(?:OrderedDict\()?$",
    re.IGNORECASE,
)
"""Before the pairs of a record: `best valid : OrderedDict(`."""
_MAX_WORDS: Final = 60
_CLASS: Final = re.compile(
    r"(?<![A-Za-z])(?:class|category|label)[ _#:=]{0,2}[\[(]?\d{1,4}[\])]?[\s,:|=-]{1,4}$", re.IGNORECASE
)
"""Before a name: `class [16] IoU 0.52` is of one class."""
MAX_BACK: Final = 2000
"""Characters before a name in which words about it are sought."""
_OLD: Final = re.compile(
    r"(?<![a-z])(?:loaded|resumed|restored|pre-?trained|(?:checkpoint|ckpt)(?!\s?\[\d{1,6}\]\s))(?![a-z])",
    re.IGNORECASE,
)
"""Words before the value of a checkpoint; `Checkpoint [3]  Validation-perplexity=19.2` is an evaluation."""
_SAVED: Final = re.compile(r"(?:checkpoint|ckpt)(?:\s(?:was\s)?saved(?![a-z])|=)", re.IGNORECASE)


def is_pair_of_record(match: re.Match[str], text: str, after: int) -> bool:
    """Return whether `('acc', 0.91)` is of a record, not of the best one, nor `monitor='acc', 0.91`."""
    is_whole = match[0].startswith(("('", '("')) and text[after : after + 1] == ")"
    opened = text.find("[(", words_from(match), match.start() + 1)
    return is_whole and _OF_BEST.search(text, max(0, opened - _MAX_WORDS), max(0, opened)) is None


def words_from(match: re.Match[str]) -> int:
    """Return where the words begin that may be about a name: the cost of a line is linear in its length."""
    return max(0, match.start() - MAX_BACK)


def is_not_measured(match: re.Match[str], text: str) -> bool:
    """Return whether words say that a value is no measurement of this epoch, or of another metric."""
    if NOT_MEASURED.search(words_before(match, text) + " " + (match["suffix"] or "")):
        return True
    if _BEST_SO_FAR.search(text, max(0, match.start() - 360), match.start()):
        return True
    if _AT_BEST.search(text, max(0, match.start() - 160), match.start()):
        return True
    if _MARKED_BEST.search(text, max(0, match.start() - 80), match.start()):
        return True
    if _CLASS.search(text, max(0, match.start() - 40), match.start()):
        return True
    if _WITH_BEST.search(text, max(0, match.start() - 120), match.start()):
        return True
    best = _BEST_EPOCH.search(text, max(0, match.start() - 120), match.start())
    if best is not None and position_in(text[: best.start()]).is_empty:
        return True
    return _TOP_MANY.search(text, max(0, match.start() - 60), match.start()) is not None


def is_of_best(match: re.Match[str], text: str) -> bool:
    """Return whether the value behind a name is the best one so far, or another that is not this epoch's."""
    so_far = _BEST_SO_FAR.search(text, max(0, match.start() - 360), match.start())
    return so_far is not None or NOT_MEASURED.search(words_before(match, text)) is not None


def words_before(match: re.Match[str], text: str) -> str:
    """Return the last words before a name."""
    words = _BEFORE.search(text, max(0, match.start() - 80), match.start())
    return words[0] if words else ""


def is_old(match: re.Match[str], text: str) -> bool:
    """Return whether a value is that of a checkpoint, rather than of an epoch after which one was saved."""
    old = _OLD.search(text, words_from(match), match.start())
    if old is None:
        return False
    return not (_SAVED.match(text, old.start()) and not position_in(text[: old.start()]).is_empty)
