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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from autotuner.job.branches import Block, holds, matches
from autotuner.job.here_documents import without_documents
from autotuner.job.shell_words import (
    ASSIGNMENT,
    DECLARING,
    MAX_PREFIXES,
    MAX_SCRIPT,
    MAX_VALUE,
    NAME,
    OTHERS,
    PREFIXES,
    ScriptTooLong,
    Variables,
    Words,
    closing,
)

_COMPUTED: Final = re.compile(r"[\w\s$+*/%=<>!&|?:,()-]*")
_LOOPS: Final = frozenset({"for", "while", "until", "select"})
_CLOSED: Final = {"fi": "if", "done": "loop", "esac": "case"}
_HARMLESS: Final = frozenset(
    {"activate", "conda.sh", "mamba.sh", "bashrc", ".bashrc", ".profile", ".bash_profile", "setvars.sh"}
)
"""Files that scripts source for the paths of an environment."""
_MAX_SUBSHELLS: Final = 16
_MAX_BLOCKS: Final = 64
_MAX_CALLS: Final = 1000
"""Maximum number of calls of functions."""
_MAX_NESTED_CALLS: Final = 8
_FUNCTION: Final = re.compile(
    r"(?:function[ \t]{1,8}([\w.:-]{1,80})[ \t]{0,8}(?:\([ \t]{0,8}\))?"
    r"|([\w.:-]{1,80})[ \t]{0,8}\([ \t]{0,8}\))\s{0,80}\{(?=\s)"
)
_BODY: Final = re.compile(r"\\.|'[^']*'|\"(?:\\.|[^\"\\])*\"|\$\{|(?<![^\s;&|()])#[^\n]*|[{}]", re.DOTALL)
"""What is read of a function to find its end."""
_COMPARED: Final = re.compile(
    r"\s{0,8}\$?\{?(\w{1,80})\}?\s{0,8}(==|!=|>=?|<=?)\s{0,8}\$?\{?(\w{1,80})\}?\s{0,8}"
)
_COMPARISONS: Final = {"==": "-eq", "!=": "-ne", ">=": "-ge", ">": "-gt", "<=": "-le", "<": "-lt"}
_CHANGED: Final = re.compile(r"(?<![=<>!])=(?!=)|\+\+|--")
_MARKER: Final = re.compile(r"\0\w{1,40}\0")
_ABSENT: Final = "\0absent"
_OWN: Final = "\0own"
"""In front of the name of a variable that the shell does not pass on, with an empty value."""
_EXPORTS_ALL: Final = "\0exports"
_MAX_UNENDED: Final = 16
"""Maximum number of `((` that are no arithmetic, and of functions without an end: each costs a search."""

Branches = tuple[tuple[object, int], ...]
"""For each block, what stands for it, and the number of its branch."""


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


class _Reader(Words):
    """Reads the commands of one script from its start to its end."""

    def __init__(  # noqa: PLR0913 (as that of the words)
        self,
        text: str,
        variables: Variables,
        documents: Sequence[str] = (),
        *,
        is_array: bool = False,
        nested: int = 0,
        arguments: Sequence[str] | None = None,
    ) -> None:
        super().__init__(text, variables, documents, is_array=is_array, nested=nested, arguments=arguments)
        self._outer = list[Variables]()
        self._is_conditional = False
        self._uncomputed = 0
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

    # --- functions and their arguments -------------------------------------------------------------------

    def _defines(self) -> bool:
        """Read the definition of a function, which runs only where it is called."""
        is_first = (
            self._word is None and len(self._words) <= MAX_PREFIXES and PREFIXES.issuperset(self._words)
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
        end = closing(self._text, self._at)
        inner = self._text[self._at + 2 : end - 1]
        is_whole = closing(self._text, self._at + 1) == end - 1
        if not is_whole or _COMPUTED.fullmatch(inner) is None:
            self._uncomputed += 1
            return False
        if _CHANGED.search(inner) is not None:
            self._variables.update({name: None for name in NAME.findall(inner) if name in self._variables})
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
        is_declared = bool(words) and words[0] in DECLARING
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
        while words and words[0] in PREFIXES:
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
            match = NAME.match(word)
            if match is not None:
                self._locals.setdefault(match[0], self._variables.get(match[0], _ABSENT))

    def _assignments(self, words: Sequence[str]) -> tuple[list[tuple[str, str | None]], Sequence[str]]:
        """Return the assignments that words begin with, and the rest."""
        assigned: list[tuple[str, str | None]] = []
        for at, word in enumerate(words):
            match = ASSIGNMENT.fullmatch(word)
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
            self._variables.update(dict.fromkeys((word for word in words[1:] if NAME.fullmatch(word)), None))
        elif words[0] in {"for", "select"}:
            self._variables.update(dict.fromkeys(words[1:2], None))
        elif words[0] == "let":
            self._variables.update(dict.fromkeys(NAME.findall(" ".join(words[1:])), None))
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
        rest = sorted((w for w in words[1:] if w[:1] != "-"), key=lambda w: ASSIGNMENT.fullmatch(w) is None)
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

    def _elements(self, text: str, nested: int = 0) -> list[str]:
        inner = _Reader(text, self._variables, is_array=True, nested=nested)
        inner._left = self._left
        return [word for command in inner.commands() for word in command.words]

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
