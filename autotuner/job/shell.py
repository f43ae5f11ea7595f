"""Split a shell script into its simple commands, without running any of them.

A PyTorchJob often starts its launcher inside a string: `bash -c "export N=8; torchrun --nproc-per-node=$N
a.py"`. Only a part of the syntax is needed: quotes, continuation lines, comments, `;`, `&&`, variables
and their defaults, arrays. Everything else stays in the words as it was written, so that an unknown number is
not taken for a number.

Scripts are untrusted: the time is linear in their length, and so is what variables expand to.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from autotuner.job.branches import Block, holds, matches

MAX_SCRIPT: Final = 1 << 18
"""Maximum characters of a script, including the expansions of its variables."""
MAX_VALUE: Final = 4096
"""Maximum characters of one variable; a longer value counts as unknown."""

GPUS: Final = "\0gpus\0"
"""Stands for the number of GPUs of the pod, in `$(nvidia-smi ... --format=csv,noheader | wc -l)`."""
LISTED: Final = "\0lines_of_nvidia_smi\0"
"""Stands for the lines of `nvidia-smi -L`: one for each GPU and, below it, one for each MIG slice."""

VISIBLE: Final = (
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "ASCEND_RT_VISIBLE_DEVICES",
)
"""Variables that hide devices of a pod from PyTorch."""
OTHERS: Final = "\0others\0"
"""Among variables: those that are not listed may be set too, as by `envFrom` or a file that is sourced."""

_NAME: Final = re.compile(r"[A-Za-z_]\w*")
_ASSIGNMENT: Final = re.compile(r"([A-Za-z_]\w*)(\+?)=(.*)", re.DOTALL)
_DEFAULT: Final = re.compile(r"([A-Za-z_]\w*)(?:\[[@*]\]|:?[-=](.*))?", re.DOTALL)
_REQUIRED: Final = re.compile(r"([A-Za-z_]\w*):?\?.*", re.DOTALL)
_ALTERNATIVE: Final = re.compile(r"([A-Za-z_]\w*):?\+(.*)", re.DOTALL)
_SIMPLE: Final = re.compile(r"(?![A-Za-z_]\w*=)[^;|&<>()`\n]*")
"""A text that is only words."""
_SPACE: Final = re.compile(r"\s+")
_ARRAY: Final = re.compile(r"\$\{[A-Za-z_]\w*\[[@*]\]\}")
_WHICH: Final = re.compile(r"\s*(?:which|command\s+-v)\s+([\w./-]+)\s*")
_LISTED: Final = re.compile(r"\bnvidia-smi\s[^|]{0,200}(?:((?<!\S)-L\b|--list-gpus)|noheader)")
"""nvidia-smi with a line a GPU; the group says that MIG slices have lines, too."""
_DEVICE_FILES: Final = re.compile(
    r"\s*ls\s+(?:-\w{1,4}\s+)?/dev/nvidia(?:\[0-9\]\*?|\?)\s*(?:2>\s*/dev/null\s*)?"
)
"""The files of GPUs, without those of the driver, such as nvidiactl."""
_COUNT: Final = re.compile(r"\bnvidia-smi\s[^|]{0,100}--query-gpu=count\s[^|]{0,100}noheader[^|]{0,60}")
_ITEMS: Final = re.compile(
    r"\s*echo\s+[\"']?\$\{?(\w{1,80})\}?[\"']?\s*\|\s*"
    r"(?:tr\s+[\"']?,[\"']?\s+[\"'](?:\\n|\s)[\"']\s*\|\s*wc\s+-[lw]"
    r"|awk\s+-F\s*[\"']?,[\"']?\s+'\{\s?print NF;?\s?\}')\s*(?:\|\s*xargs\s*)?"
)
"""The number of items between commas in a variable, such as CUDA_VISIBLE_DEVICES."""
_FIRST: Final = re.compile(r"(?:head|tail)\s+(?:-n\s*)?-?1|uniq|sort\s+-u")
"""What leaves one of several equal lines."""
_LINES: Final = re.compile(r"e?grep\s+(-c\s+)?[\"']?(\^?GPU|\.)\s?[\"']?")
"""grep that keeps the lines of all GPUs."""
_SPACES: Final = re.compile(r"(?:cut|sed|tr)\s.{0,80}|xargs|awk\s+'\{\s?print \$(?:1|NF)\s?\}'", re.DOTALL)
"""Commands that take the spaces off a number."""
_DEVICES: Final = re.compile(r"print\((?:max\(1,\s?)?[\w.]{0,40}\bdevice_count\(\)(?:\s?or 1|,\s?1)?[,)]")
"""Python that prints how many devices PyTorch sees, and no part of them."""
_COMPUTED: Final = re.compile(r"[\w\s$+*/%=<>!&|?:,()-]*")
_PREFIXES: Final = frozenset({"then", "else", "elif", "do", "if", "while", "until", "{", "!"})
_MAX_NAME: Final = 64
_MAX_PREFIXES: Final = 4
"""Maximum number of them in front of a function, such as `then`."""
_LOOPS: Final = frozenset({"for", "while", "until", "select"})
_CLOSED: Final = {"fi": "if", "done": "loop", "esac": "case"}
_HARMLESS: Final = frozenset(
    {"activate", "conda.sh", "mamba.sh", "bashrc", ".bashrc", ".profile", ".bash_profile", "setvars.sh"}
)
"""Files that scripts source for the paths of an environment."""
_DECLARING: Final = frozenset({"export", "declare", "local", "readonly", "typeset"})
_HEREDOC: Final = re.compile(r"(?<!<)<<-?[ \t]*([\"']?)(\w+)\1([^\n]*\n)")
_MAX_UNENDED: Final = 16
"""Maximum number of `<<` that no end follows, and of `((` that are no arithmetic: each costs a search."""
_MAX_SUBSHELLS: Final = 16
_MAX_BLOCKS: Final = 64
_MAX_CALLS: Final = 1000
"""Maximum number of calls of functions."""
_MAX_NESTED_CALLS: Final = 8
_MAX_NESTED: Final = 4
"""Maximum number of `${...}` within each other."""
_FUNCTION: Final = re.compile(
    r"(?:function[ \t]{1,8}([\w.:-]{1,80})[ \t]{0,8}(?:\([ \t]{0,8}\))?"
    r"|([\w.:-]{1,80})[ \t]{0,8}\([ \t]{0,8}\))\s{0,80}\{(?=\s)"
)
_BODY: Final = re.compile(r"\\.|'[^']*'|\"(?:\\.|[^\"\\])*\"|\$\{|(?<![^\s;&|()])#[^\n]*|[{}]", re.DOTALL)
"""What is read of a function to find its end."""
_ALL: Final = re.compile(r"\$(?:@|\{@(?::([1-9]))?\})")
"""All arguments of a script or function, each a word: `"$@"`, `"${@:2}"`."""
_ARGUMENT: Final = re.compile(r"([0-9]{1,2})(?::?-(.*))?", re.DOTALL)
_COMPARED: Final = re.compile(
    r"\s{0,8}\$?\{?(\w{1,80})\}?\s{0,8}(==|!=|>=?|<=?)\s{0,8}\$?\{?(\w{1,80})\}?\s{0,8}"
)
_COMPARISONS: Final = {"==": "-eq", "!=": "-ne", ">=": "-ge", ">": "-gt", "<=": "-le", "<": "-lt"}
_CHANGED: Final = re.compile(r"(?<![=<>!])=(?!=)|\+\+|--")
_TERMS: Final = re.compile(r"(\$\{[^{}]*\}|\$\([^()]*\))")
_NAMED: Final = re.compile(r"\0\w{1,40}\0|[A-Za-z_]\w*")
_MARKER: Final = re.compile(r"\0\w{1,40}\0")
_DOCUMENT: Final = "\0document"
_QUOTED: Final = "\0quoted"
"""A here-document whose end is in quotes: its variables stay."""
_IN_DOCUMENT: Final = re.compile(r"\\([$`\\])|\$(?=[{\w(])")

_ABSENT: Final = "\0absent"
_OWN: Final = "\0own"
"""In front of the name of a variable that the shell does not pass on, with an empty value."""
_EXPORTS_ALL: Final = "\0exports"

Branches = tuple[tuple[object, int], ...]
"""For each block, what stands for it, and the number of its branch."""
Variables = MutableMapping[str, str | None]
"""Values by name; None for a variable that is set to something unknown."""


@dataclass(frozen=True, slots=True)
class Command:
    """A simple command.

    Args:
        words: Its words after quotes and variables, without the assignments in front of it.
        variables: The variables that it sees, with those assignments.
        is_background: Whether it ends with `&`.
        is_repeated: Whether a loop starts it in the background, any number of times.
        document: The here-document that it reads, or None.
        output: The file that its output goes to, or empty.
        branches: The blocks of `if` and `case` that it is in, and its branch of each.
    """

    words: tuple[str, ...]
    variables: Variables
    is_background: bool = False
    is_repeated: bool = False
    document: str | None = None
    output: str = ""
    branches: Branches = ()


def is_exported(variables: Variables, name: str) -> bool:
    """Return whether a shell passes a variable on to the programs that it starts."""
    return variables.get(_OWN + name) is None


def exported(variables: Variables) -> Variables:
    """Return the variables as a program sees them that a shell starts; changes stay in it."""
    hidden = [name.removeprefix(_OWN) for name in variables if name.startswith(_OWN)]
    return ChainMap({name: "" for name in hidden if not is_exported(variables, name)}, variables)


class ScriptTooLong(ValueError):
    """The script, or the expansion of its variables, is too long."""


def commands(script: str, variables: Variables, arguments: Sequence[str] | None = None) -> Iterator[Command]:
    """Yield the simple commands of a script in order; its assignments are added to `variables` meanwhile.

    `arguments` are the words that it is given, from `$0` on; None if they are unknown.

    Raises:
        ScriptTooLong: Past `MAX_SCRIPT` characters.
    """
    if len(script) > MAX_SCRIPT:
        raise ScriptTooLong(f"a script of {len(script)} characters")
    text, documents = without_documents(script)
    yield from _Reader(text, variables, documents, arguments=arguments).commands()


def without_documents(script: str) -> tuple[str, list[str]]:
    """Return a script with a reference in place of each here-document, and the documents.

    A document is data, such as a Python program, unless a shell reads it.
    """
    kept: list[str] = []
    documents: list[str] = []
    at = searched = unended = 0
    while unended < _MAX_UNENDED and (match := _HEREDOC.search(script, searched)) is not None:
        start = searched = match.end()
        end = _end_of_document(script, start, match[2])
        if end is None:
            unended += 1
            continue
        kind = _QUOTED if match[1] else _DOCUMENT
        kept += [script[at : match.start()], f"< {kind}{len(documents)} ", match[3]]
        documents.append(script[start : end[0]])
        at = searched = end[1]
    kept.append(script[at:])
    return "".join(kept), documents


def _end_of_document(script: str, start: int, name: str) -> tuple[int, int] | None:
    """Return where the line that ends a here-document begins and ends."""
    at = start
    while at < len(script):
        end = script.find("\n", at)
        end = len(script) if end < 0 else end
        if script[at:end].lstrip("\t").rstrip() == name:
            return at, end
        at = end + 1
    return None


class _Reader:
    """Reads one script from its start to its end."""

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
        self._text, self._variables = text.replace("\\\n", " "), variables
        self._documents, self._outer = documents, list[Variables]()
        self._document: str | None = None
        self._redirection = self._output = ""
        self._at, self._left = 0, MAX_SCRIPT
        self._is_array, self._nested = is_array, nested
        self._words: list[str] = []
        self._word: list[str] | None = None
        self._is_conditional = False
        self._uncomputed = 0
        self._arguments = None if arguments is None else list(arguments)
        self._functions: dict[str, str] = {}
        self._calls: list[str] = []
        self._level = 0
        self._around: Branches = ()
        self._may_not_run = self._is_in_loop = False
        self._locals: dict[str, str | None] = {}
        self._was_pattern = self._is_over = self._is_left = False
        self._left_by: list[object] = []
        self._blocks: list[tuple[object, Block]] = []

    def commands(self) -> Iterator[Command]:
        """Yield the commands in order; each sees the assignments before it."""
        text = self._text
        while self._at < len(text):
            character = text[self._at]
            if self._defines():
                continue
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
                end = _closing(value, inner + 1) + 1
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
        if self._is_array or not self._word or len(self._words) > _MAX_PREFIXES:
            return False
        is_first = all(w in _PREFIXES | _DECLARING or _ASSIGNMENT.fullmatch(w) for w in self._words)
        return is_first and _ASSIGNMENT.match("".join(self._word[:_MAX_NAME])) is not None

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
        number = word.removeprefix(_DOCUMENT).removeprefix(_QUOTED)
        if word.startswith((_DOCUMENT, _QUOTED)) and number.isdecimal():
            text = self._documents[int(number[:6])] if int(number[:6]) < len(self._documents) else None
            is_raw = text is None or word.startswith(_QUOTED) or len(text) > self._left
            self._document = text if is_raw or text is None else self._filled(text)
        elif self._redirection == "<<<":
            self._document = word
        elif ">" in self._redirection and not self._redirection.startswith("2"):
            self._output = word

    def _filled(self, document: str) -> str:
        """Return a here-document with the values of its variables; unknown ones stay."""
        inner = _Reader(document, self._variables, nested=self._nested, arguments=self._arguments)
        inner._left, inner._text = self._left, document
        kept: list[str] = []
        while (match := _IN_DOCUMENT.search(document, inner._at)) is not None:
            kept.append(document[inner._at : match.start()])
            inner._at = match.end() if match[1] else match.start()
            kept.append(match[1] or inner._expansion())
            self._left -= len(kept[-1])
            if self._left < 0:
                raise ScriptTooLong("the expansion of a here-document")
        return "".join([*kept, document[inner._at :]])

    def _array(self) -> None:
        """Read `NAME=( ... )`: its elements as one text between spaces, which is what `${NAME[@]}` gives."""
        end = _closing(self._text, self._at)
        if self._text[end : end + 1] != ")":
            end = self._text.find(")", self._at)
            end = len(self._text) if end < 0 else end
        inner = _Reader(self._text[self._at + 1 : end], self._variables, is_array=True)
        inner._left = self._left
        if "".join(self._word or ()).endswith("+="):
            self._add(" ")
        self._add(" ".join(word for command in inner.commands() for word in command.words))
        self._at = end + 1

    # --- functions and their arguments -------------------------------------------------------------------

    def _defines(self) -> bool:
        """Read the definition of a function, which runs only where it is called."""
        is_first = (
            self._word is None and len(self._words) <= _MAX_PREFIXES and _PREFIXES.issuperset(self._words)
        )
        if self._is_array or not is_first:
            return False
        match = _FUNCTION.match(self._text, self._at)
        end = None if match is None else self._end_of_body(match.end())
        if match is None or end is None:
            return False
        self._functions[match[1] or match[2]] = self._text[match.end() : end]
        self._words, self._at = [], end + 1
        return True

    def _end_of_body(self, start: int) -> int | None:
        """Return where the braces close that are open here."""
        if self._uncomputed >= _MAX_UNENDED:
            return None
        depth = 1
        for match in _BODY.finditer(self._text, start):
            depth += match[0] in {"{", "${"}
            depth -= match[0] == "}"
            if depth == 0:
                return match.start()
        self._uncomputed += 1
        return None

    def _call(
        self, words: Sequence[str], variables: Variables, operator: str, *, is_conditional: bool
    ) -> Iterator[Command]:
        """Yield the commands of a function, with its arguments and what it has for itself alone."""
        self._calls.append(words[0])
        if len(self._calls) > _MAX_CALLS:
            raise ScriptTooLong("its functions")
        nothing = {"$@", "$*"} if self._arguments is not None and len(self._arguments) == 1 else set[str]()
        arguments = [words[0], *(word for word in words[1:] if word not in nothing)]
        body = self._functions[words[0]]
        inner = _Reader(body, variables, self._documents, arguments=arguments)
        inner._left, inner._level = self._left, self._level + 1
        inner._functions, inner._calls = self._functions, self._calls
        inner._around, inner._may_not_run = self._branches(), self._may_not_happen()
        inner._is_in_loop = self._repeats()
        yield from inner.commands()
        self._left = inner._left
        if inner._is_left:
            self._leave(["exit"], operator, is_conditional=is_conditional)
        for name, value in inner._locals.items():
            if value == _ABSENT:
                variables.pop(name, None)
            else:
                variables[name] = value

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
            self._at = _closing(text, start + 1) + 1
            inner = text[start + 2 : self._at - 1]
            if inner.startswith("("):
                return f"$(({self._arithmetic(inner[1:-1])}))"
            return self._substituted(inner)
        if following.isdecimal() or (following and following in "@*#"):
            self._at = start + 2
            return self._braced(following) if self._arguments is not None else f"${following}"
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
        if text.startswith("$(") and _closing(text, 1) == len(text) - 1:
            return self._substituted(text[2:-1])
        return self._words_of(text) if "$" in text else text.strip("\"'")

    def _words_of(self, text: str) -> str:
        """Return a text within `${...}` with its variables replaced, or as it is if it is no simple one."""
        if self._nested >= _MAX_NESTED or _SIMPLE.fullmatch(text) is None:
            return text
        inner = _Reader(text, self._variables, is_array=True, nested=self._nested + 1)
        inner._left = self._left
        return " ".join(word for command in inner.commands() for word in command.words)

    def _substituted(self, inner: str) -> str:
        """Return the value of `$(...)` if it is known: a program's name, or the GPUs of the pod."""
        match = _WHICH.fullmatch(inner)
        if match is not None:
            return match[1]
        items = _ITEMS.fullmatch(inner)
        listed = None if items is None else self._variables.get(items[1])
        if listed and re.fullmatch(r"[\w:-]+(?:,[\w:-]+)*", listed):
            return str(listed.count(",") + 1)
        # The variables hide GPUs from PyTorch only.
        is_count = _DEVICES.search(inner) is not None and not any(name in self._variables for name in VISIBLE)
        return (GPUS if is_count else _counted(inner)) or f"$({inner})"

    def _arithmetic(self, inner: str) -> str:
        return "".join(map(self._term, _TERMS.split(inner)))

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

    # --- commands ----------------------------------------------------------------------------------------

    def _operator(self) -> Iterator[Command]:
        text = self._text
        operator = text[self._at]
        if text.startswith("((", self._at) and self._word is None and self._computes():
            return
        if text[self._at : self._at + 2] in {"&&", "||", ";;"}:
            operator = text[self._at : self._at + 2]
        self._at += len(operator)
        self._was_pattern = False
        tested = self._tested(operator)
        yield from self._end_command(operator)
        self._go_on(tested, operator)
        if operator == ";;" and self._blocks and self._blocks[-1][1].kind == "case":
            self._blocks[-1][1].next()
        if self._was_pattern:
            # The brackets of a pattern are no subshell.
            return
        if operator == "(" and len(self._outer) < _MAX_SUBSHELLS:
            # A subshell's assignments end with it.
            self._outer.append(self._variables)
            self._variables = ChainMap({}, self._variables)
        elif operator == ")" and self._outer:
            self._variables = self._outer.pop()

    def _computes(self) -> bool:
        """Read `(( ... ))`, which may change whatever it names; return False if it is no arithmetic."""
        if self._uncomputed >= _MAX_UNENDED:
            return False
        end = _closing(self._text, self._at)
        inner = self._text[self._at + 2 : end - 1]
        is_whole = _closing(self._text, self._at + 1) == end - 1
        if not is_whole or _COMPUTED.fullmatch(inner) is None:
            self._uncomputed += 1
            return False
        if _CHANGED.search(inner) is not None:
            self._variables.update({name: None for name in _NAME.findall(inner) if name in self._variables})
        elif self._words[-1:] in (["if"], ["elif"]) and (match := _COMPARED.fullmatch(inner)) is not None:
            left, right = (self._value(match[n], match[n]) for n in (1, 3))
            self._words += ["[", left, _COMPARISONS[match[2]], right, "]"]
        self._at = end + 1
        return True

    def _end_command(self, operator: str) -> Iterator[Command]:
        self._end_word()
        self._redirection = ""
        words, self._words = self._words, []
        document, self._document = self._document, None
        output, self._output = self._output, ""
        if operator == "|" and words[:1] == ["cat"]:
            self._document = document
        words = self._follow(words, operator)
        is_declared = bool(words) and words[0] in _DECLARING
        assigned, rest = ([], ()) if is_declared else self._assignments(words)
        was_conditional = self._is_conditional
        if self._is_dead():
            rest = ()
        elif is_declared:
            self._declare(words)
        elif not rest:
            for name, value in assigned:
                self._assign(name, value)
        self._is_conditional = operator in {"&&", "||"}
        if words[:1] == ["}"] and self._blocks and self._blocks[-1][1].kind == "list":
            self._blocks[-1][1].is_waiting = False
        if not rest or rest[0] == "}":
            return
        self._set_by(rest)
        self._leave(rest, operator, is_conditional=was_conditional)
        # An assignment in front of a command holds for that command only.
        given = dict(assigned) | {_OWN + name: None for name, _ in assigned}
        seen = ChainMap(given, self._variables) if assigned else self._variables
        is_background = operator == "&"
        is_repeated = is_background and self._repeats()
        if rest[0] in self._functions and self._level < _MAX_NESTED_CALLS:
            is_next_conditional, self._is_conditional = self._is_conditional, was_conditional
            for each in self._call(rest, seen, operator, is_conditional=was_conditional):
                in_background = each.is_background or is_background
                yield replace(each, is_background=in_background, is_repeated=each.is_repeated or is_repeated)
            self._is_conditional = is_next_conditional
            return
        yield Command(
            tuple(rest),
            seen,
            is_background,
            is_repeated,
            document=document,
            output=output,
            branches=self._branches(),
        )

    # --- blocks ------------------------------------------------------------------------------------------

    def _follow(self, words: list[str], operator: str) -> list[str]:
        """Return the words of a command without those that open, divide and close blocks."""
        block = self._blocks[-1][1] if self._blocks else None
        if block is not None and block.kind == "case" and block.is_waiting and words[:1] != ["esac"]:
            self._pattern(words, operator, block)
            return []
        words, is_negated = self._without_prefixes(words)
        block = self._blocks[-1][1] if self._blocks else None
        if words[:1] == ["case"] and "in" in words:
            middle = words.index("in")
            self._pattern(words[middle + 1 :], operator, self._open("case", " ".join(words[1:middle])))
            return []
        if words and words[0] in {"for", "select"}:
            self._open("loop")
        elif words and words[0] in _CLOSED:
            if self._blocks and self._blocks[-1][1].kind == _CLOSED[words[0]]:
                self._blocks.pop()
            words = []
        self._test(words, operator, block, is_negated=is_negated)
        return words

    def _without_prefixes(self, words: list[str]) -> tuple[list[str], bool]:
        """Return a command behind `if`, `then` and the like, and whether its result is negated."""
        block = self._blocks[-1][1] if self._blocks else None
        is_negated = False
        while words and words[0] in _PREFIXES:
            word, words = words[0], words[1:]
            if word in {"elif", "else"} and block is not None and block.kind == "if":
                block.next()
                if word == "else":
                    block.decide(True)
            elif word == "if" or word in _LOOPS:
                block = self._open("if" if word == "if" else "loop")
            if block is not None and block.kind == "list" and word == "{":
                block.is_waiting = True
            if block is not None and word in {"then", "else"}:
                block.is_testing = False
            is_negated = word == "!"
        return words, is_negated

    def _tested(self, operator: str) -> Sequence[str]:
        """Return the words of a test that begins a list such as `[ ... ] && ... || ...`."""
        self._end_word()
        if operator not in {"&&", "||"} or self._is_conditional or self._redirection:
            return ()
        return self._words if self._words[:1] and self._words[0] in {"[", "[["} else ()

    def _go_on(self, tested: Sequence[str], operator: str) -> None:
        """Go on in a list behind a command that ended with this operator."""
        block = self._blocks[-1][1] if self._blocks else None
        if tested:
            words = [_MARKER.sub(lambda m: self._variables.get(m[0]) or m[0], word) for word in tested]
            block, found = self._open("list"), holds(words)
            block.branch = int(operator == "||")
            block.decide(found if found is None else found == (operator == "&&"))
        elif block is None or block.kind != "list":
            return
        elif operator in {"(", ")"} or block.is_waiting:
            # Within a group all commands are of its branch.
            block.is_waiting = operator == "(" or (operator != ")" and block.is_waiting)
            return
        elif operator == "||" and block.branch == 0:
            block.next()
            block.decide(True)
        elif operator == "&&" and block.branch == 0:
            return
        else:
            self._blocks.pop()
            return
        # Whether the next command runs is the block's matter.
        self._is_conditional = False

    def _test(self, words: Sequence[str], operator: str, block: Block | None, *, is_negated: bool) -> None:
        """Note whether the condition of an `if` holds."""
        if block is not None and block.kind == "if" and block.is_waiting and words:
            tested = [_MARKER.sub(lambda m: self._variables.get(m[0]) or m[0], word) for word in words]
            found = holds(tested) if operator in {";", "\n"} else None
            block.decide(found if found is None else found != is_negated)

    def _open(self, kind: str, word: str = "") -> Block:
        if len(self._blocks) >= _MAX_BLOCKS:
            raise ScriptTooLong("blocks within blocks")
        block = Block(kind, word)
        self._blocks.append((object(), block))
        return block

    def _pattern(self, words: Sequence[str], operator: str, block: Block) -> None:
        """Read a pattern of `case`; the last one of a branch ends with a bracket."""
        self._was_pattern = True
        block.patterns += words
        if operator == ")":
            word = _MARKER.sub(lambda m: self._variables.get(m[0]) or m[0], block.word)
            block.decide(matches(word, block.patterns))

    def _branches(self) -> Branches:
        own = ((place, block.branch) for place, block in self._blocks if _divides(block))
        open_ones = {id(place) for place, _ in self._blocks}
        after = ((place, -1) for place in self._left_by if id(place) not in open_ones)
        return (*self._around, *own, *after)

    def _leave(self, words: Sequence[str], operator: str, *, is_conditional: bool) -> None:
        """Note that what follows does not run, or only if this branch does not."""
        is_return = words[0] == "return" and self._level > 0
        is_end = is_return or words[0] == "exit" or (words[0] == "exec" and len(words) > 1)
        if not is_end or self._outer or is_conditional or operator in {"&", "|"}:
            return
        uncertain = [(place, block) for place, block in self._blocks if not block.is_certain]
        if not uncertain:
            self._is_over, self._is_left = True, not is_return
        elif all(_divides(block) for _, block in uncertain):
            self._left_by.append(uncertain[-1][0])

    def _may_not_happen(self) -> bool:
        return self._may_not_run or self._is_conditional or not all(b.is_certain for _, b in self._blocks)

    def _is_dead(self) -> bool:
        return self._is_over or any(block.is_dead for _, block in self._blocks)

    def _repeats(self) -> bool:
        return self._is_in_loop or any(block.kind == "loop" for _, block in self._blocks)

    # --- variables ---------------------------------------------------------------------------------------

    def _localise(self, words: Sequence[str]) -> None:
        """Keep what variables had before a function declares them."""
        for word in words if self._level else ():
            match = _NAME.match(word)
            if match is not None:
                self._locals.setdefault(match[0], self._variables.get(match[0], _ABSENT))

    def _assignments(self, words: Sequence[str]) -> tuple[list[tuple[str, str | None]], Sequence[str]]:
        """Return the assignments that words begin with, and the rest."""
        assigned: list[tuple[str, str | None]] = []
        for at, word in enumerate(words):
            match = _ASSIGNMENT.fullmatch(word)
            if match is None:
                return assigned, words[at:]
            assigned.append((match[1], self._appended(match[1], match[3]) if match[2] else match[3]))
        return assigned, ()

    def _set_by(self, words: Sequence[str]) -> None:
        """Record the variables that a command of the shell sets."""
        if words[0] == "unset":
            for name in set(words[1:]).intersection(self._variables):
                self._assign(name, "")
        elif words[0] in {"read", "mapfile", "readarray"}:
            self._variables.update(dict.fromkeys((word for word in words[1:] if _NAME.fullmatch(word)), None))
        elif words[0] in {"for", "select"}:
            self._variables.update(dict.fromkeys(words[1:2], None))
        elif words[0] == "let":
            self._variables.update(dict.fromkeys(_NAME.findall(" ".join(words[1:])), None))
        elif words[:2] == ["printf", "-v"]:
            self._variables.update(dict.fromkeys(words[2:3], None))
        elif words[0] in {"set", "shift"}:
            self._set_arguments(words)
        elif words[0] in {"source", "."} and "".join(words[1:2]).rsplit("/", 1)[-1] not in _HARMLESS:
            self._variables[OTHERS] = None

    def _set_arguments(self, words: Sequence[str]) -> None:
        """Follow `shift`, and `set` with options or arguments."""
        if words[0] == "shift" and self._arguments is not None:
            number = "".join(words[1:2]) or "1"
            is_known = re.fullmatch(r"\d{1,2}", number) is not None and not self._may_not_happen()
            self._arguments[1 : 1 + int(number) if is_known else 1] = []
            self._arguments = self._arguments if is_known else None
        elif words[0] == "set" and any(re.match(r"-\w*a|allexport", word) for word in words[1:3]):
            self._variables[_EXPORTS_ALL] = ""
        elif words[0] == "set" and "--" in words:
            given = list(words[words.index("--") + 1 :])
            first = "sh" if self._arguments is None else self._arguments[0]
            self._arguments = None if self._may_not_happen() else [first, *given]

    def _declare(self, words: Sequence[str]) -> None:
        """Record what `export`, `local` and the like set and pass on."""
        # Names and assignments come in any order.
        rest = sorted((w for w in words[1:] if w[:1] != "-"), key=lambda w: _ASSIGNMENT.fullmatch(w) is None)
        if words[0] != "export":
            self._localise(rest)
        assigned, names = self._assignments(rest)
        for name, value in assigned:
            self._assign(name, value)
        if words[0] == "export" or any(re.match(r"-\w*x", word) for word in words[1:]):
            self._variables.update({_OWN + name: None for name in (*(n for n, _ in assigned), *names)})
        if any(word.startswith("$") for word in names):  # export $(cat .env)
            self._variables[OTHERS] = None

    def _appended(self, name: str, value: str) -> str | None:
        known = self._variables.get(name, "")
        return None if known is None else known + value

    def _assign(self, name: str, value: str | None) -> None:
        if name not in self._variables and _EXPORTS_ALL not in self._variables:
            self._variables[_OWN + name] = ""
        known = self._variables.get(name)
        unknown = value is None or len(value) > MAX_VALUE
        if unknown or (self._may_not_happen() and name in self._variables and known != value):
            self._variables[name] = None
        else:
            self._variables[name] = value


def _divides(block: Block) -> bool:
    return block.kind in {"case", "list"} or (block.kind == "if" and not block.is_testing)


def _counted(pipeline: str) -> str:
    """Return what a pipeline stands for that counts the lines of nvidia-smi; empty if it may drop some."""
    first, *filters = pipeline.partition("||")[0].split("|")
    if _COUNT.search(first) is not None:
        rest = [each.strip() for each in filters if not _SPACES.fullmatch(each.strip())]
        return GPUS if rest and all(map(_FIRST.fullmatch, rest)) else ""
    has_header = re.search(r"\bnvidia-smi\s[^|]{0,200}--format=csv\s*$", first) is not None
    if has_header and filters and re.fullmatch(r"\s*tail\s+(?:-n\s*)?\+2\s*", filters[0]):
        # The lines behind the heading.
        first, filters = first + ",noheader", filters[1:]
    match = _LISTED.search(first)
    has_files = _DEVICE_FILES.fullmatch(first) is not None
    if match is None and not has_files:
        return ""
    has_slices, is_counted = has_files or (match is not None and match[1] is not None), False
    for each in filters:
        words = each.partition(";")[0].strip()
        lines = _LINES.fullmatch(words)
        if is_counted and _SPACES.fullmatch(words):
            continue
        if is_counted or not (lines or re.fullmatch(r"wc\s+-l", words)):
            return ""
        is_counted = lines is None or lines[1] is not None
        has_slices = has_slices and not (lines and lines[2].startswith("^"))
    return "" if not is_counted else LISTED if has_slices else GPUS


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
