"""Warn of options in shell scripts that reach no program, or reach it with the name of a variable.

The text of such a script refers to the variables of a trial, so it looks as if it passed them on.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from autotuner import keys
from autotuner.job.here_documents import without_documents
from autotuner.job.options import Text
from autotuner.job.shell import Command, commands
from autotuner.job.shell_words import ScriptTooLong, Variables
from autotuner.job.wiring_warning import WiringWarning
from autotuner.job.wrappers import base, is_step

_REFERENCE: Final = re.compile(rf"\$[({{]?({keys.ENV_PREFIX}\w{{1,200}})")
_LITERAL: Final = re.compile(rf"\$(?:{{({keys.ENV_PREFIX}\w{{1,200}})}}|({keys.ENV_PREFIX}\w{{1,200}}))")
_OPTION: Final = re.compile(r"--?[A-Za-z][\w.-]*(?:=|$)")
_ASSIGNED: Final = re.compile(r"(?:--?|\+{0,2})[A-Za-z_][\w./-]*=")
_CONFIG: Final = re.compile(r"\.(?:ya?ml|json|toml|ini|cfg)$")
_EXPANDING: Final = re.compile(r"\b(?:envsubst|eval)\b")
"""Programs that expand variables in what is literal for the shell."""
_SUBSTITUTED: Final = re.compile(r"[<>]\(")
"""A file that is a command's output, behind which the reader of scripts begins another command."""
_SET: Final = re.compile(
    rf"(?:^|;)[ \t]*(?P<set>(?P<name>[A-Za-z_]\w{{0,60}})=[^\s;&|]{{0,100}}"
    rf"\$[({{]?{keys.ENV_PREFIX}\w{{1,80}}[^\s;&|]{{0,100}})[ \t]*(?=[;#\n]|\Z)",
    re.MULTILINE,
)
"""A variable of the shell that is given one of the trial: `BATCH_SIZE=$AUTOTUNER_BATCH_SIZE`."""
_EXPORTS_ALL: Final = re.compile(r"\bset[ \t]+-\w*a|\ballexport\b")
_KEPT: Final = re.compile(r"\0(\w+)\0")
"""What stands for a reference that the shell expands."""


def lost_options(texts: Sequence[Text]) -> Iterator[WiringWarning]:
    """Yield a warning for each reference to a variable of a trial that a script does not pass on."""
    environment = {text.variable for text in texts}
    for text in texts:
        if not text.is_shell or _REFERENCE.search(text.text) is None:
            continue
        yield from _not_exported(text, environment)
        variables: Variables = {name: f"\0{name}\0" for name in _REFERENCE.findall(text.text)}
        try:
            read = list(commands(text.text, variables))
        except ScriptTooLong:
            continue
        has_expansion = _EXPANDING.search(text.read) is not None
        is_cut = _SUBSTITUTED.search(text.read) is not None
        for command in read:
            if not is_cut:
                yield from _begins_a_line(text, command)
            if not has_expansion:
                yield from (_in_document if is_step(command.words) else _literal)(text, command)


def _not_exported(text: Text, environment: Collection[str]) -> Iterator[WiringWarning]:
    """Yield a warning for each variable of the shell that holds one of the trial, and that nothing uses."""
    if _EXPORTS_ALL.search(text.read) is not None:
        return
    for match in _SET.finditer(without_documents(text.read)[0]):
        name = match["name"]
        is_used = len(re.findall(rf"(?<!\w){name}(?!\w)", text.text)) > 1
        # What is in the environment already stays there.
        if not (is_used or name in environment or name.startswith(keys.ENV_PREFIX)):
            rule = (
                "is a variable of this shell alone, which does not use it: export it, so that programs get it"
            )
            yield WiringWarning(text.where, match["set"], rule, f"export {match['set']}")


def _begins_a_line(text: Text, command: Command) -> Iterator[WiringWarning]:
    words = [_KEPT.sub(r"$\1", word) for word in command.words]
    shown = " ".join(words[:1] if "=" in words[0] else words[:2])
    if _OPTION.match(words[0]) is not None:
        rule = (
            "begins a command of its own, so no program gets it: end the line before it with a backslash and"
            " nothing behind that, and leave no comment in between"
        )
        yield WiringWarning(text.where, shown, rule, f"python train.py \\\n  {shown}")


def _literal(text: Text, command: Command) -> Iterator[WiringWarning]:
    """Yield a warning for each value that is the name of a variable."""
    for before, word in zip(command.words, command.words[1:], strict=False):
        match = _LITERAL.search(word)
        is_value = _ASSIGNED.match(word) is not None or before.startswith("--")
        if match is not None and is_value and not re.search(r"\s", word):
            rule = (
                "is in single quotes or behind a backslash, so the shell does not expand it, and the program"
                " gets its name"
            )
            yield WiringWarning(text.where, word, rule, f'"{match[0]}"')


def _in_document(text: Text, command: Command) -> Iterator[WiringWarning]:
    """Yield a warning for a configuration file that is written with the names of variables."""
    match = _LITERAL.search(command.document or "")
    if match is not None and _CONFIG.search(command.output) and base(command.words[0]) == "cat":
        rule = (
            f"is written to {command.output} as it is, because the end of the here-document is in quotes:"
            " leave out the quotes"
        )
        yield WiringWarning(text.where, match[0], rule, f"cat > {command.output} <<EOF")
