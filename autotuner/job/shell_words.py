"""Read the words of a shell script: quotes, expansions, arguments and redirections.

What is unknown stays in a word as it was written.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, MutableMapping, Sequence
from typing import Final

from autotuner.job.arithmetic import computed
from autotuner.job.gpu_counts import counted
from autotuner.job.here_documents import DOCUMENT, QUOTED

MAX_SCRIPT: Final = 1 << 18
"""Maximum characters of a script, including the expansions of its variables."""
MAX_VALUE: Final = 4096
"""Maximum characters of one variable; a longer value counts as unknown."""

OTHERS: Final = "\0others\0"
"""Among variables: those that are not listed may be set too, as by `envFrom` or a file that is sourced."""
Variables = MutableMapping[str, str | None]
"""Values by name; None for a variable that is set to something unknown."""

NAME: Final = re.compile(r"[A-Za-z_]\w*")
ASSIGNMENT: Final = re.compile(r"([A-Za-z_]\w*)(\+?)=(.*)", re.DOTALL)
_DEFAULT: Final = re.compile(r"([A-Za-z_]\w*)(?:\[[@*]\]|:?[-=](.*))?", re.DOTALL)
_REQUIRED: Final = re.compile(r"([A-Za-z_]\w*):?\?.*", re.DOTALL)
_ALTERNATIVE: Final = re.compile(r"([A-Za-z_]\w*):?\+(.*)", re.DOTALL)
_SIMPLE: Final = re.compile(r"(?![A-Za-z_]\w*=)[^;|&<>()`\n]*")
"""A text that is only words."""
_SPACE: Final = re.compile(r"\s+")
_COMMENT: Final = re.compile(r"^([ \t]*#(?:[^\n]*[^\n\\])?)\\+$", re.MULTILINE)
_ARRAY: Final = re.compile(r"\$\{[A-Za-z_]\w*\[[@*]\]\}")
_WHICH: Final = re.compile(r"\s*(?:which|command\s+-v)\s+([\w./-]+)\s*")
_CALCULATION: Final = re.compile(
    r"\s{0,8}(?:expr\s(?P<expr>[\w\s${}+*/%\\\"()-]{1,200})"
    r"|echo\s{1,8}\"?(?P<bc>[\w\s${}+*/%()-]{1,200})\"?\s{0,8}\|\s{0,8}bc\s{0,8}"
    r"|python[\d.]{0,8}\s{1,8}-c\s{1,8}\"print\((?P<python>(?:[\w\s${}+*%()-]|//){1,200})\)\"\s{0,8})"
)
"""A calculation with whole numbers by another program; bc, too, rounds down."""
PREFIXES: Final = frozenset({"then", "else", "elif", "do", "if", "while", "until", "{", "!"})
DECLARING: Final = frozenset({"export", "declare", "local", "readonly", "typeset"})
_MAX_NAME: Final = 64
MAX_PREFIXES: Final = 4
"""Maximum number of them in front of a function, such as `then`."""
_MAX_NESTED: Final = 4
"""Maximum number of `${...}` within each other."""
_ALL: Final = re.compile(r"\$(?:@|\{@(?::([1-9]))?\})")
"""All arguments of a script or function, each a word: `"$@"`, `"${@:2}"`."""
_ARGUMENT: Final = re.compile(r"([0-9]{1,2})(?::?-(.*))?", re.DOTALL)
_TERMS: Final = re.compile(r"(\$\{[^{}]*\}|\$\([^()]*\))")
_QUOTING: Final = r"[\\\"]"
_NAMED: Final = re.compile(r"\0\w{1,40}\0|[A-Za-z_]\w*")
_IN_DOCUMENT: Final = re.compile(r"\\([$`\\])|\$(?=[{\w(])")


class ScriptTooLong(ValueError):
    """The script, or the expansion of its variables, is too long."""


class Words(ABC):
    """Reads the words of one script from its start on; which of them are commands is left to others."""

    def __init__(  # noqa: PLR0913 (what it reads, and how)
        self,
        text: str,
        variables: Variables,
        documents: Sequence[str] = (),
        *,
        is_array: bool = False,
        nested: int = 0,
        arguments: Sequence[str] | None = None,
    ) -> None:
        if len(text) > MAX_SCRIPT:
            raise ScriptTooLong(f"a script of {len(text)} characters")
        # A comment ends with its line, also if that ends with a backslash.
        self._text, self._variables = _COMMENT.sub(r"\1", text).replace("\\\n", " "), variables
        self._documents = documents
        self._document: str | None = None
        self._redirection = self._output = ""
        self._at, self._left = 0, MAX_SCRIPT
        self._is_array, self._nested = is_array, nested
        self._words: list[str] = []
        self._word: list[str] | None = None
        self._arguments = None if arguments is None else list(arguments)

    @abstractmethod
    def _elements(self, text: str, nested: int = 0) -> Iterable[str]:
        """Return the words of an array, or of a text within `${...}`, after their expansion."""

    @abstractmethod
    def _assign(self, name: str, value: str | None) -> None:
        """Set a variable; None for an unknown value."""

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
            elif (all_of := self._all(self._at)) is not None:
                for number, argument in enumerate(all_of):
                    if number:
                        self._end_word()
                    self._add(argument)
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
        if self._is_assigned():
            self._add(value)
            return
        at = 0
        for match in _SPACE.finditer(value):
            if match.start() < at:
                # Within a command or a calculation, whose value is unknown.
                continue
            inner = value.find("$(", at, match.start())
            while inner >= 0:
                end = closing(value, inner + 1) + 1
                self._add(value[at:end])
                at = end
                inner = value.find("$(", at, match.start())
            if match.start() >= at:
                if match.start() > at:
                    self._add(value[at : match.start()])
                self._end_word()
                at = match.end()
        if at < len(value):
            self._add(value[at:])

    def _is_assigned(self) -> bool:
        """Return whether the word is an assignment, whose value is not split."""
        if self._is_array or not self._word or len(self._words) > MAX_PREFIXES:
            return False
        is_first = all(w in PREFIXES | DECLARING or ASSIGNMENT.fullmatch(w) for w in self._words)
        return is_first and ASSIGNMENT.match("".join(self._word[:_MAX_NAME])) is not None

    def _end_word(self) -> None:
        if self._word is not None:
            word = "".join(self._word)
            if self._redirection:
                self._redirected(word)
            else:
                self._words.append(word)
            self._redirection = ""
        self._word = None

    def _redirect(self) -> None:
        """Read a redirection such as `2>`; its next word is a file, or refers to a here-document."""
        descriptor = "".join(self._word or ())
        if descriptor.isdecimal():
            self._word = None
        self._end_word()
        start = self._at
        while self._at < len(self._text) and self._text[self._at] in "<>&|":
            self._at += 1
        self._redirection = (descriptor if descriptor.isdecimal() else "") + self._text[start : self._at]

    def _redirected(self, word: str) -> None:
        number = word.removeprefix(DOCUMENT).removeprefix(QUOTED)
        if word.startswith((DOCUMENT, QUOTED)) and number.isdecimal():
            text = self._documents[int(number[:6])] if int(number[:6]) < len(self._documents) else None
            is_raw = text is None or word.startswith(QUOTED) or len(text) > self._left
            self._document = text if is_raw or text is None else self._filled(text)
        elif self._redirection == "<<<":
            self._document = word
        elif ">" in self._redirection and not self._redirection.startswith("2"):
            self._output = word

    def _filled(self, document: str) -> str:
        """Return a here-document with the values of its variables; unknown ones stay."""
        script = self._text, self._at
        self._text, self._at = document, 0
        kept: list[str] = []
        while (match := _IN_DOCUMENT.search(document, self._at)) is not None:
            kept.append(document[self._at : match.start()])
            self._at = match.end() if match[1] else match.start()
            kept.append(match[1] or self._expansion())
            self._left -= len(kept[-1])
            if self._left < 0:
                raise ScriptTooLong("the expansion of a here-document")
        kept.append(document[self._at :])
        self._text, self._at = script
        return "".join(kept)

    def _array(self) -> None:
        """Read `NAME=( ... )`: its elements as one text between spaces, which is what `${NAME[@]}` gives."""
        end = closing(self._text, self._at)
        if self._text[end : end + 1] != ")":
            end = self._text.find(")", self._at)
            end = len(self._text) if end < 0 else end
        elements = self._elements(self._text[self._at + 1 : end])
        if "".join(self._word or ()).endswith("+="):
            self._add(" ")
        self._add(" ".join(elements))
        self._at = end + 1

    # --- arguments ---------------------------------------------------------------------------------------

    def _argument(self, number: int) -> str | None:
        if self._arguments is None:
            return None
        return self._arguments[number] if number < len(self._arguments) else ""

    def _given(self, inner: str) -> str | None:
        """Return what `${1:-2}`, `${#}` and the like stand for; None for variables, or if it is unknown."""
        if self._arguments is None:
            return None
        if inner == "#":
            return str(len(self._arguments) - 1)
        if inner in {"@", "*"}:
            return " ".join(self._arguments[1:]) or f"${inner}"
        match = _ARGUMENT.fullmatch(inner)
        if match is None:
            return None
        return self._argument(int(match[1])) or (self._default(match[2]) if match[2] else "")

    def _all(self, at: int) -> list[str] | None:
        """Read all arguments as words of their own; None if they are unknown, or there are none."""
        match = _ALL.match(self._text, at)
        if match is None or not self._arguments or not self._arguments[1:]:
            return None
        self._at = match.end()
        return self._arguments[int(match[1] or 1) :]

    # --- expansions --------------------------------------------------------------------------------------

    def _expansion(self) -> str:
        """Read an expansion, which begins with `$` or a backquote, and return its value."""
        text, start = self._text, self._at
        if text[start] == "`":
            end = text.find("`", start + 1)
            end = len(text) if end < 0 else end
            self._at = end + 1
            return self._substituted(text[start + 1 : end])
        following = text[start + 1 : start + 2]
        if following == "(":
            self._at = closing(text, start + 1) + 1
            inner = text[start + 2 : self._at - 1]
            if inner.startswith("("):
                return self._computed(inner[1:-1])
            return self._substituted(inner)
        if following.isdecimal() or (following and following in "@*#"):
            self._at = start + 2
            return self._braced(following) if self._arguments is not None else f"${following}"
        if following == "{":
            self._at = closing(text, start + 1) + 1
            return self._braced(text[start + 2 : self._at - 1])
        match = NAME.match(text, start + 1)
        if match is None:
            self._at = start + 1
            return "$"
        self._at = match.end()
        return self._value(match[0], f"${match[0]}")

    def _braced(self, inner: str) -> str:
        if (given := self._given(inner)) is not None:
            return given
        if (match := _ALTERNATIVE.fullmatch(inner)) is not None:
            value = self._variables.get(match[1], "" if OTHERS not in self._variables else None)
            return f"${{{inner}}}" if value is None else self._words_of(match[2]) if value else ""
        if (match := _REQUIRED.fullmatch(inner)) is not None:
            return self._value(match[1], f"${match[1]}")
        match = _DEFAULT.fullmatch(inner)
        if match is None:
            return f"${{{inner}}}"
        name, default = match[1], match[2]
        if default is not None and not self._variables.get(name, ""):
            if self._variables.get(name, "" if OTHERS not in self._variables else None) is None:
                return f"${name}"
            value = self._default(default)
            if inner[: -len(default) or None].endswith("="):
                self._assign(name, value)
            return value
        return self._value(name, f"${name}")

    def _default(self, text: str) -> str:
        """Return the value of the text behind `:-` or `:=`."""
        if text.startswith("$(") and closing(text, 1) == len(text) - 1:
            return self._substituted(text[2:-1])
        return self._words_of(text) if "$" in text else text.strip("\"'")

    def _words_of(self, text: str) -> str:
        """Return a text within `${...}` with its variables replaced, or as it is if it is no simple one."""
        if self._nested >= _MAX_NESTED or _SIMPLE.fullmatch(text) is None:
            return text
        return " ".join(self._elements(text, self._nested + 1))

    def _substituted(self, inner: str) -> str:
        """Return the value of `$(...)` if it is known: a program's name, a calculation, or the pod's GPUs."""
        match = _WHICH.fullmatch(inner)
        if match is not None:
            return match[1]
        match = _CALCULATION.fullmatch(inner)
        if match is not None:
            calculation = match["expr"] or match["bc"] or match["python"].replace("//", "/")
            return self._computed(re.sub(_QUOTING, "", calculation))
        return counted(inner, self._variables) or f"$({inner})"

    def _computed(self, inner: str) -> str:
        """Return the value of `$((...))`; the calculation with what is known of it if it has none."""
        calculation = "".join(map(self._term, _TERMS.split(inner)))
        value = computed(calculation.replace("$((", "(("))
        return f"$(({calculation}))" if value is None else str(value)

    def _term(self, text: str) -> str:
        """Return a part of a calculation with the values of its variables."""
        if text.startswith("${"):
            return self._braced(text[2:-1])
        if text.startswith("$("):
            return self._substituted(text[2:-1])
        # What stands for a number already is no name.
        return _NAMED.sub(
            lambda match: match[0] if match[0][0] == "\0" else self._value(match[0], match[0]),
            text.replace("$", ""),
        )

    def _value(self, name: str, otherwise: str) -> str:
        value = self._variables.get(name)
        return otherwise if value is None else value


def closing(text: str, opening: int) -> int:
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
