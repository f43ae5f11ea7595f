"""Split a shell script into its simple commands, without running any of them.

A PyTorchJob often starts its launcher inside a string: `bash -c "export N=8; torchrun --nproc-per-node=$N
a.py"`. Only a part of the syntax is needed: quotes, continuation lines, comments, `;`, `&&`, variables
and their defaults, arrays. Everything else stays in the words as it was written, so that an unknown number is
not taken for a number.

Scripts are untrusted: the time is linear in their length, and so is what variables expand to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import Final

MAX_SCRIPT: Final = 1 << 18
"""Maximum characters of a script, including the expansions of its variables."""
MAX_VALUE: Final = 4096
"""Maximum characters of one variable; a longer value counts as unknown."""

GPUS: Final = "\0gpus\0"
"""Stands for the number of GPUs of the pod, in `$(nvidia-smi -L | wc -l)` and the like."""

_NAME: Final = re.compile(r"[A-Za-z_]\w*")
_ASSIGNMENT: Final = re.compile(r"([A-Za-z_]\w*)\+?=(.*)", re.DOTALL)
_DEFAULT: Final = re.compile(r"([A-Za-z_]\w*)(?:\[[@*]\]|:?[-=](.*))?", re.DOTALL)
_ARRAY: Final = re.compile(r"\$\{[A-Za-z_]\w*\[[@*]\]\}")
_WHICH: Final = re.compile(r"\s*(?:which|command\s+-v)\s+([\w./-]+)\s*")
_PREFIXES: Final = frozenset({"then", "else", "elif", "do", "if", "while", "until", "{", "!"})
_OPENING: Final = frozenset({"if", "for", "while", "until", "case", "select"})
_CLOSING: Final = frozenset({"fi", "done", "esac"})
_DECLARING: Final = frozenset({"export", "declare", "local", "readonly", "typeset"})
_HEREDOC: Final = re.compile(r"<<-?[ \t]*([\"']?)(\w+)\1[^\n]*\n")

Variables = MutableMapping[str, str | None]
"""Values by name; None for a variable that is set to something unknown."""


@dataclass(frozen=True, slots=True)
class Command:
    """A simple command: its words after quotes and variables, assignments in front of it left out.

    `is_background` says whether it ends with `&`: then a loop may start any number of it.
    """

    words: tuple[str, ...]
    is_background: bool = False


class ScriptTooLong(ValueError):
    """The script, or the expansion of its variables, is too long."""


def commands(script: str, variables: Variables) -> list[Command]:
    """Return the simple commands of a script in order; its assignments are added to `variables`.

    Raises:
        ScriptTooLong: Past `MAX_SCRIPT` characters.
    """
    text, documents = _without_heredocs(script)
    found = list(_Reader(text, variables).commands())
    for document in documents:
        found += _Reader(document, variables).commands()
    return found


def _without_heredocs(script: str) -> tuple[str, list[str]]:
    """Return a script without its here-documents, and those of them that may be scripts themselves."""
    kept: list[str] = []
    documents: list[str] = []
    at = 0
    while (match := _HEREDOC.search(script, at)) is not None:
        end = re.compile(rf"^\t*{match[2]}[ \t]*$", re.MULTILINE).search(script, match.end())
        if end is None:
            break
        line = script[script.rfind("\n", 0, match.start()) + 1 : match.start()]
        if "python" not in line:
            documents.append(script[match.end() : end.start()])
        kept.append(script[at : match.start()] + "\n")
        at = end.end()
    kept.append(script[at:])
    return "".join(kept), documents


class _Reader:
    """Reads one script from its start to its end."""

    def __init__(self, text: str, variables: Variables, *, is_array: bool = False) -> None:
        if len(text) > MAX_SCRIPT:
            raise ScriptTooLong(f"a script of {len(text)} characters")
        self._text, self._variables = text.replace("\\\n", " "), variables
        self._at, self._left = 0, MAX_SCRIPT
        self._is_array = is_array
        self._words: list[str] = []
        self._word: list[str] | None = None
        self._depth, self._is_conditional, self._drops_next = 0, False, False

    def commands(self) -> Iterator[Command]:
        """Yield the commands in order; each sees the assignments before it."""
        text = self._text
        while self._at < len(text):
            character = text[self._at]
            if character in " \t\r":
                self._end_word()
                self._at += 1
            elif character == "#" and self._word is None:
                end = text.find("\n", self._at)
                self._at = len(text) if end < 0 else end
            elif character in "<>" or text.startswith("&>", self._at):
                self._redirect()
            elif character == "(" and not self._is_array and self._word is not None and self._word[-1] == "=":
                self._array()
            elif character in "\n;|&()":
                yield from self._operator()
            else:
                self._part(character)
        yield from self._end_command("\n")

    # --- words -------------------------------------------------------------------------------------------

    def _part(self, character: str) -> None:
        text = self._text
        if character == "'":
            end = text.find("'", self._at + 1)
            end = len(text) if end < 0 else end
            self._add(text[self._at + 1 : end])
            self._at = end + 1
        elif character == '"':
            self._double_quoted()
        elif character == "\\":
            self._add(text[self._at + 1 : self._at + 2])
            self._at += 2
        elif character in "$`":
            self._add_split(self._expansion())
        else:
            self._add(character)
            self._at += 1

    def _double_quoted(self) -> None:
        text = self._text
        self._add("")
        self._at += 1
        while self._at < len(text) and text[self._at] != '"':
            if text[self._at] == "\\":
                self._add(text[self._at + 1 : self._at + 2])
                self._at += 2
            elif text[self._at] in "$`":
                is_array = _ARRAY.match(text, self._at) is not None
                value = self._expansion()
                (self._add_split if is_array else self._add)(value)
            else:
                self._add(text[self._at])
                self._at += 1
        self._at += 1

    def _add(self, piece: str) -> None:
        self._left -= len(piece)
        if self._left < 0:
            raise ScriptTooLong("the expansion of the script's variables")
        self._word = self._word or []
        self._word.append(piece)

    def _add_split(self, value: str) -> None:
        """Add the value of a variable outside quotes, which may be several words."""
        if "$(" in value or not re.search(r"\s", value):
            self._add(value)
            return
        for piece in re.split(r"(\s+)", value):
            if piece.isspace():
                self._end_word()
            elif piece:
                self._add(piece)

    def _end_word(self) -> None:
        if self._word is not None:
            if not self._drops_next:
                self._words.append("".join(self._word))
            self._drops_next = False
        self._word = None

    def _redirect(self) -> None:
        if self._word is not None and "".join(self._word).isdecimal():
            self._word = None
        self._end_word()
        while self._at < len(self._text) and self._text[self._at] in "<>&|":
            self._at += 1
        self._drops_next = True

    def _array(self) -> None:
        """Read `NAME=( ... )`: its elements as one text between spaces, which is what `${NAME[@]}` gives."""
        end = self._text.find(")", self._at)
        end = len(self._text) if end < 0 else end
        inner = _Reader(self._text[self._at + 1 : end], self._variables, is_array=True)
        inner._left = self._left
        self._add(" ".join(word for command in inner.commands() for word in command.words))
        self._at = end + 1

    # --- expansions --------------------------------------------------------------------------------------

    def _expansion(self) -> str:
        """Read an expansion, which begins with `$` or a backquote, and return its value."""
        text, start = self._text, self._at
        if text[start] == "`":
            end = text.find("`", start + 1)
            end = len(text) if end < 0 else end
            self._at = end + 1
            return _substituted(text[start + 1 : end])
        following = text[start + 1 : start + 2]
        if following == "(":
            self._at = _closing(text, start + 1) + 1
            inner = text[start + 2 : self._at - 1]
            if inner.startswith("("):
                return f"$(({self._arithmetic(inner[1:-1])}))"
            return _substituted(inner)
        if following == "{":
            self._at = _closing(text, start + 1) + 1
            return self._braced(text[start + 2 : self._at - 1])
        match = _NAME.match(text, start + 1)
        if match is None:
            self._at = start + 1
            return "$"
        self._at = match.end()
        return self._value(match[0], f"${match[0]}")

    def _braced(self, inner: str) -> str:
        match = _DEFAULT.fullmatch(inner)
        if match is None:
            return f"${{{inner}}}"
        name, default = match[1], match[2]
        if default is not None and not self._variables.get(name, ""):
            if name in self._variables and self._variables[name] is None:
                return f"${name}"
            nested = _NAME.fullmatch(default.removeprefix("$").strip("{}")) if "$" in default else None
            return default.strip("\"'") if nested is None else self._value(nested[0], default)
        return self._value(name, f"${name}")

    def _arithmetic(self, inner: str) -> str:
        bare = inner.replace("$", "").replace("{", "").replace("}", "")
        return _NAME.sub(lambda match: self._value(match[0], match[0]), bare)

    def _value(self, name: str, otherwise: str) -> str:
        value = self._variables.get(name)
        return otherwise if value is None else value

    # --- commands ----------------------------------------------------------------------------------------

    def _operator(self) -> Iterator[Command]:
        text = self._text
        operator = text[self._at]
        if text[self._at : self._at + 2] in {"&&", "||", ";;"}:
            operator = text[self._at : self._at + 2]
        self._at += len(operator)
        yield from self._end_command(operator)

    def _end_command(self, operator: str) -> Iterator[Command]:
        self._end_word()
        self._drops_next = False
        words, self._words = self._words, []
        if words and words[0] in _OPENING:
            self._depth += 1
        elif words and words[0] in _CLOSING:
            self._depth -= 1
        while words and words[0] in _PREFIXES:
            words = words[1:]
        is_declared = bool(words) and words[0] in _DECLARING
        rest = words[1:] if is_declared else words
        while rest and (match := _ASSIGNMENT.fullmatch(rest[0])) is not None:
            # An assignment in front of a command holds for that command only.
            self._assign(match[1], match[2])
            rest = rest[1:]
        self._is_conditional = operator in {"&&", "||"}
        if rest and not is_declared:
            yield Command(tuple(rest), is_background=operator == "&")

    def _assign(self, name: str, value: str) -> None:
        known = self._variables.get(name)
        unknown = len(value) > MAX_VALUE
        may_not_happen = self._depth > 0 or self._is_conditional
        if unknown or (may_not_happen and name in self._variables and known != value):
            self._variables[name] = None
        else:
            self._variables[name] = value


def _closing(text: str, opening: int) -> int:
    """Return the position of the closing bracket, or the end of the text."""
    pairs = {"(": ")", "{": "}"}
    opened, closed, depth = text[opening], pairs[text[opening]], 0
    for at in range(opening, min(len(text), opening + MAX_VALUE)):
        if text[at] == opened:
            depth += 1
        elif text[at] == closed:
            depth -= 1
            if depth == 0:
                return at
    return min(len(text), opening + MAX_VALUE) - 1


def _substituted(inner: str) -> str:
    """Return the value of `$(...)` if it is known: a program's name, or the GPUs of the pod."""
    match = _WHICH.fullmatch(inner)
    if match is not None:
        return match[1]
    counts = ("nvidia-smi" in inner and re.search(r"\bwc\s+-l", inner)) or "device_count()" in inner
    return GPUS if counts else f"$({inner})"
