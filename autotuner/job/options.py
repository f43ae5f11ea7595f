"""Read what the manifest of a job passes on to its program: options, variables, code and configuration."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from autotuner import keys
from autotuner.job.here_documents import without_documents
from autotuner.job.lookup import mapping, sequence

REFERENCE: Final = re.compile(r"\$(?:\((\w{1,200})\)|\{?(\w{1,200})\}?)")
"""A variable in command, args or a script: `$(NAME)`, `$NAME`, `${NAME}`."""
MAX_TEXT: Final = 65_536
"""Maximum characters of a command line, and of a script."""
_CONTAINER: Final = "pytorch"
_SHELLS: Final = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh"})
_OVERRIDE: Final = re.compile(r"\+{0,2}([A-Za-z_][\w.@/-]{0,200})=(.*)", re.DOTALL)
_PYTHON: Final = re.compile(r"(?:\S*/)?(?:python|pypy)[\d.]*")
_CODE: Final = re.compile(r"^\s*(?:import\s+\w|from\s+[\w.]+\s+import\s|def\s+\w+\()", re.MULTILINE)
"""A here-document of Python."""
_VALUE_IN_CODE: Final = re.compile(
    r"(?<![\w.])([\"']?)(?P<name>[A-Za-z_]\w{0,60})\1\s?[=:]\s?(?:(?P<value>\.?\d[\w.+-]{0,20})"
    r"|(?P<variable>[A-Za-z_][\w.]{0,60})"
    r"|(?P<int>int\()?(?:os\.)?(?:environ|getenv)(?:\.get)?[\[(][\"'](?P<read>\w{1,80})[\"']"
    r"(?:,\s?[\"']?\w{0,20}[\"']?)?[\])](?(int)\)))"
    r"(?=\s{0,40}(?:[,)}\n;#]|$))"
)
"""`lr=0.1`, `'lr': 0.1`, `batch_size=hp.batch_size` or `batch_size=int(os.environ["NAME"])`."""
_IN_CONFIG: Final = re.compile(
    r"(?<![\w.$])[\"']?(?P<name>[A-Za-z][\w.]{0,60})[\"']?:[ \t]{1,20}"
    r"[\"']?(?P<value>\.?\d[\d.e+-]{0,20}|\$[\w{(:$ )}-]{1,100})[\"']?(?=[ \t]{0,20}(?:[,}#\n]|$))"
)
"""A number, or a variable, in a configuration file of YAML or JSON."""
_EDITED: Final = re.compile(
    rf"\b(?P<name>[A-Za-z]\w{{0,60}})[\"']?[ ]?[:=][ ]?[\"']?"
    rf"(?:\$[({{]?|(?:str)?env\()(?P<value>{keys.ENV_PREFIX}\w{{1,80}})[)}}]?"
)
"""What a program of an editor writes into a file: `.name = $NAME`, `s/name: .*/name: $NAME/`."""
_EDITORS: Final = frozenset({"jq", "sed", "yq"})
_MOST_OF_EDITOR: Final = 8
"""Maximum number of words of one call that are read."""
_UNEXPANDED: Final = re.compile(rf"\$\(({keys.ENV_PREFIX}\w{{1,200}})\)")
_WORDS: Final = r"(?:\"[^\"\n]*\"|'[^'\n]*'|[^\n\"'`|<>;&])*"
_PRINTING: Final = re.compile(
    rf"^[ \t]*(?:(?:echo|printf)[ \t](?!-v){_WORDS}"
    r"|:[ \t][^\n=|<>;&]*"
    rf"|(?:if[ \t]+)?(?:\[\[?|test)[ \t]{_WORDS}(?:&&[ \t]*exit[ \t]*\d*|;[ \t]*then)?[ \t]*)(?<!\\)$",
    re.MULTILINE,
)
"""A line of a script that passes nothing on: `echo $NAME`, `: ${NAME:?}`, `[ -z $NAME ] && exit 1`."""
_COLLECTED: Final = re.compile(r"(?:[})]|\b(?:done|fi))[ \t]*[>|]|\(\)[ \t]*\{")
"""Blocks and functions whose output may go to a file."""
_EVALUATION: Final = re.compile(r"(?:eval|evaluation|test|val|valid|validation)(?:_\w{0,40})?")
_COMMENT: Final = re.compile(r"(?:^|(?<=\s))#[^\n]*", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Text:
    """One entry of command, args or env.

    `is_shell` says that it is a shell script, `is_code` that it is Python's, and `is_dropped` that it follows
    a script of a shell that does not use it. `is_file` says that it is a file from a ConfigMap.
    """

    where: str
    text: str
    is_shell: bool = False
    is_code: bool = False
    is_dropped: bool = False
    is_file: bool = False
    variable: str = ""

    @property
    def uncommented(self) -> str:
        """The text without the comments of a script."""
        return _COMMENT.sub("", self.text) if self.is_shell or self.is_code else self.text

    @property
    def read(self) -> str:
        """That without lines of a script that print or test only, and `$(NAME)` that nothing expands."""
        text = self.uncommented
        if self.is_shell and _COLLECTED.search(text) is None:
            text = _PRINTING.sub("", text)
        return _UNEXPANDED.sub("", text) if self.is_file else text


@dataclass(frozen=True, slots=True)
class Option:
    """An option of the command line, or a variable; `value` is None for a flag without a value."""

    where: str
    name: str
    value: str | None
    written: str
    form: str


def containers(manifest: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the containers that train, each with the role of its replica, or `trainer`."""
    spec = mapping(manifest.get("spec"))
    for role, replica in mapping(spec.get("pytorchReplicaSpecs")).items():
        pod = mapping(mapping(mapping(replica).get("template")).get("spec"))
        for container in sequence(pod.get("containers")):
            if mapping(container).get("name") == _CONTAINER:
                yield str(role), mapping(container)
    if trainer := mapping(spec.get("trainer")):
        yield "trainer", trainer


def texts_of(role: str, container: Mapping[str, Any], inherited: Collection[str] = ()) -> Iterator[Text]:
    """Yield the entries of a container's command, arguments and environment.

    `inherited` names the fields that are those of a TrainJob's runtime.
    """
    words = [
        (f"{'runtime' if field in inherited else role} {field}[{index}]", str(word)[:MAX_TEXT])
        for field in ("command", "args")
        for index, word in enumerate(sequence(container.get(field)))
    ]
    is_after_shell = is_script = is_after_python = is_code = False
    script: str | None = None
    given = 0
    for where, word in words:
        given += script is not None
        is_dropped = script is not None and not _uses(script, given)
        is_shell = is_script and word != "--"
        yield Text(where, word, is_shell=is_shell, is_code=is_code, is_dropped=is_dropped)
        script = word if is_shell and script is None else script
        is_code = (
            is_after_python and not is_after_shell and re.fullmatch(r"-[a-zA-Z]{0,8}c", word) is not None
        )
        is_after_python = is_after_python or _PYTHON.fullmatch(word) is not None
        # `sh -c SCRIPT` and `bash -lc SCRIPT`: the word after the flag is a script.
        if is_script and word == "--":
            continue
        is_script = is_after_shell and re.fullmatch(r"-[a-z]{0,8}c", word) is not None
        is_after_shell = is_after_shell or word.rsplit("/", 1)[-1] in _SHELLS
    for entry in sequence(container.get("env")):
        name = str(mapping(entry).get("name"))
        value = mapping(entry).get("value")
        if isinstance(value, str):
            yield Text(f"{role} env {name}", value[:MAX_TEXT], variable=name)


def _uses(script: str, number: int) -> bool:
    """Return whether the script of `sh -c` uses the word after it of this number: the first is its `$0`."""
    if number == 1:
        return re.search(r"\$\{?0", script) is not None
    # `for NAME; do` goes through the words, too.
    return re.search(r"\$\{?[@*#1-9!]|\bfor\s+\w+\s*(?:;|\n\s*do\b)|\bgetopts\b", script) is not None


def texts_of_files(files: Mapping[str, str]) -> Iterator[Text]:
    """Yield the scripts among files that a job brings along, by their path."""
    for path, text in files.items():
        first = text.partition("\n")[0]
        is_code = path.endswith(".py") or ("python" in first and first.startswith("#!"))
        is_shell = path.endswith((".sh", ".bash")) or (first.startswith("#!") and not is_code)
        if is_code or is_shell:
            yield Text(path, text, is_shell=is_shell, is_code=is_code, is_file=True)


def options_of(texts: Sequence[Text]) -> Iterator[Option]:
    """Yield the options of the command line and the variables of the environment."""
    words = [t for t in texts if not (t.variable or t.is_shell or t.is_code or t.is_dropped)]
    yield from _parsed([(word.where, word.text) for word in words])
    for text in texts:
        if text.is_code:
            yield from in_code(text.where, text.text)
        elif text.is_shell:
            script, documents = without_documents(text.text)
            code = [each for each in documents if _CODE.search(each)]
            script = "\n".join([script, *(each for each in documents if each not in code)])
            words_of_script = _split(script)
            yield from _parsed([(text.where, word) for word in words_of_script])
            yield from _edited(text.where, words_of_script)
            for each in documents:
                yield from (in_code if each in code else _in_config)(text.where, each)
        elif text.variable and not text.variable.startswith(keys.ENV_PREFIX):
            yield Option(text.where, text.variable.lower(), text.text, text.text, "env")


def codes_of(texts: Sequence[Text]) -> Iterator[tuple[str, str]]:
    """Yield the Python programs in the command line and in its scripts, each with its place."""
    for text in texts:
        if text.is_code:
            yield text.where, text.text
        elif text.is_shell:
            yield from ((text.where, each) for each in without_documents(text.text)[1] if _CODE.search(each))


def in_code(where: str, code: str) -> Iterator[Option]:
    """Yield the numbers that Python code in the manifest gives a name."""
    has_sdk = "hyperparameters(" in code
    for match in _VALUE_IN_CODE.finditer(code):
        name, written = plain(match["name"]), match[0].strip()
        if match["value"] is not None:
            yield Option(where, name, match["value"], written, "code")
        elif match["read"] is not None:
            yield Option(where, name, f"$({match['read']})", written, "read")
        elif has_sdk and match["variable"].endswith(".batch_size"):
            yield Option(where, name, f"$({keys.ENV_BATCH_SIZE})", written, "read")
        else:
            yield Option(where, name, match["variable"], written, "name")


def _in_config(where: str, text: str) -> Iterator[Option]:
    """Yield the numbers and variables of a configuration file that a script writes."""
    for match in _IN_CONFIG.finditer(text):
        yield Option(where, plain(match["name"]), match["value"], match[0].strip(), "config")


def _edited(where: str, words: Sequence[str]) -> Iterator[Option]:
    """Yield the variables of a trial that a script writes into a configuration file by an editor."""
    left = 0
    for word in words:
        left = _MOST_OF_EDITOR if word.rsplit("/", 1)[-1] in _EDITORS else left - 1
        for match in _EDITED.finditer(word) if left >= 0 else ():
            yield Option(where, plain(match["name"]), f"$({match['value']})", match[0], "edit")


def _parsed(words: Sequence[tuple[str, str]]) -> Iterator[Option]:
    for index, (where, word) in enumerate(words):
        following = words[index + 1][1] if index + 1 < len(words) else None
        if word.startswith("-") and word.strip("-"):
            name, has_value, value = word.lstrip("-").partition("=")
            if has_value:
                yield Option(where, plain(name), value, word, "flag=")
            elif following is not None and not following.startswith("-"):
                yield Option(where, plain(name), following, f"{word} {following}", "flag ")
            else:
                yield Option(where, plain(name), None, word, "flag")
        elif match := _OVERRIDE.fullmatch(word):
            yield Option(where, plain(re.sub(r"[/@]", ".", match[1])), match[2], word, "override")


def _split(text: str) -> list[str]:
    try:
        return [word.rstrip(";") for word in shlex.split(text, comments=True)]
    except ValueError:
        return text.split()


def plain(name: str) -> str:
    """Return the name of an option in one spelling: `optim.Base-LR` is `base_lr`.

    That of an evaluation keeps its section: `val_loader.batch_size` is `val_loader_batch_size`.
    """
    *sections, last = name.replace("-", "_").lower().split(".")
    return f"{sections[-1]}_{last}" if sections and _EVALUATION.fullmatch(sections[-1]) else last
