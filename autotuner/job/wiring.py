"""Warn if a job does not pass on the variables of a trial, or if trials would share a path.

A script that ignores AUTOTUNER_BATCH_SIZE trains the same batch in every trial, and a study of it
"confirms" the largest allowed batch. So before the first trial the manifest is searched for references:
`$(NAME)` in command, args and env, `$NAME` in shell scripts, and the text of the training script if it is
available. If the variables may be read elsewhere (in a configuration file, or a script inside an image), one
warning says so.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from autotuner import keys
from autotuner.job.batch_of_all import given_to_each
from autotuner.job.batch_options import NAMES, is_of_all, is_of_others, is_of_process
from autotuner.job.command_line import read_command_line
from autotuner.job.config_maps import named_files
from autotuner.job.expansion import words_of
from autotuner.job.lookup import mapping, sequence
from autotuner.job.lost_options import lost_options
from autotuner.job.options import (
    MAX_TEXT,
    REFERENCE,
    Option,
    Text,
    codes_of,
    containers,
    options_of,
    texts_of,
    texts_of_files,
)
from autotuner.job.validation import CONTAINER
from autotuner.job.wiring_warning import SET_WITH, WiringWarning, replaced
from autotuner.job.wrappers import base

_ALIKE: Final = 0.8
"""Least similarity of two names of which one may be a misspelling of the other (difflib's ratio)."""
_ONLY: Final = frozenset(
    {
        "batch_size_per_gpu",
        "imgs_per_gpu",
        "per_device_train_batch_size",
        "per_gpu_train_batch_size",
        "samples_per_gpu",
    }
)
"""Names of a process's batch in scripts that have no option for the whole one."""
_ALIASES: Final = (
    frozenset({"lr", "learning_rate", "base_lr", "blr", "max_lr", "peak_lr", "lr0"}),
    frozenset({"wd", "weight_decay"}),
    frozenset({"opt", "optim", "optimizer"}),
    frozenset({"momentum", "sgd_momentum"}),
    frozenset({"warmup", "warmup_steps", "num_warmup_steps", "warmup_epochs", "warmup_ratio"}),
)
_PLACES: Final = frozenset(
    {
        "output", "output_dir", "out", "out_dir", "outdir", "save", "save_dir", "checkpoint_dir",
        "checkpoints_dir", "ckpt_dir", "checkpoint_path", "work_dir", "workdir", "log_dir", "logdir",
        "logging_dir", "run_dir", "exp_dir", "experiment_dir", "results_dir", "result_dir", "model_dir",
        "default_root_dir", "save_path", "dirpath", "save_folder", "train_dir",
    }
)  # fmt: skip
_RESUMES: Final = frozenset(
    {
        "resume", "auto_resume", "autoresume", "resume_from", "resume_from_checkpoint", "resume_path",
        "resume_dir", "restore_file", "restore_from", "continue_training", "ckpt_path",
    }
)  # fmt: skip
_CONFIGS: Final = re.compile(r"\.(?:ya?ml|json|toml|ini|cfg|gin)$")
_CONFIG_FLAGS: Final = frozenset(
    {"config", "cfg", "config_file", "config_name", "config_path", "deepspeed", "deepspeed_config", "conf"}
)
_OFF: Final = frozenset({"", "0", "false", "no", "none", "null", "off", "never", "''", '""'})
_UNDIVIDED: Final = re.compile(r"(?:--?[A-Za-z][\w.-]*|[\w./-]{1,200}\.py)\s")
"""An option or a script, with another word behind it."""
_OPTION_AND_VALUE: Final = re.compile(r"--[a-z][\w-]{1,60} [\w./:$()-]{1,100}")
_TRIAL_REFERENCE: Final = re.compile(rf"(?<!\$)\$\(({keys.ENV_PREFIX}\w{{1,200}})\)")
_CALLBACKS: Final = re.compile(r"(?<!\w)(?:HuggingFaceCallback|LightningCallback)\s{0,8}\(")
_ASSIGNED: Final = re.compile(
    rf"(?<!\w){keys.ENV_PREFIX}\w{{1,80}}=(?=[\"']?[\w.+-]{{1,40}}[\"']?(?:[\s;&|]|$))"
)
"""A script that sets a variable of the trial to a value of its own."""
_SSH_SERVICE: Final = re.compile(r"\bservice ssh start\b|/etc/init\.d/ssh start\b")
_PASSED_ON: Final = """["sh", "-c", 'python train.py "$@"', "--"]"""
_OWN: Final = (keys.ENV_OUTPUT_DIR, keys.ENV_TRIAL)


def wiring_warnings(  # noqa: PLR0913 (five of them are optional)
    manifest: Mapping[str, Any],
    names: Sequence[str],
    script: str | None = None,
    read: Collection[str] | None = None,
    *,
    processes: int = 1,
    inherited: Collection[str] = (),
    files: Mapping[str, str] = MappingProxyType({}),
) -> list[WiringWarning]:
    """Return the warnings about variables that may not reach the training, and about shared paths.

    Args:
        manifest: A PyTorchJob or a TrainJob. Parts of another type are ignored.
        names: The hyperparameters of the search space; the batch size is always checked.
        script: The text of the training script, if it can be read on this machine.
        read: The names that runs have read through the SDK; None if no run has reported them.
        processes: Processes of the job, which share a batch.
        inherited: The fields of the containers that are those of a TrainJob's runtime.
        files: Files of ConfigMaps that the containers have, by path.
    """
    text = None if script is None else script[:MAX_TEXT]
    searched = ["batch_size", *(name for name in names if name != "batch_size")]
    # If runs have reported what they read through the SDK, the text of the script is not evidence.
    is_read = _names if read is not None else reads
    known = {name for name in searched if text is not None and is_read(text, name)} | set(read or ())
    if keys.parameter_name(keys.ENV_MICRO_BATCH_SIZE) in known:
        known.add("batch_size")
    unread = [name for name in searched if name not in known]
    by_whom = " and the script does not read it" if text is not None else ""
    by_whom = " and no run has read it through autotuner.sdk" if read is not None else by_whom
    found: list[WiringWarning] = []
    training = list(containers(manifest))
    for role, container in training:
        if len(training) > 1 and _only_serves(container):
            # The launcher of another pod starts its processes, with its own words.
            continue
        texts = [*texts_of(role, container, inherited), *texts_of_files(named_files(container, files))]
        options = list(options_of(texts))
        found += _unread(role, texts, options, unread, by_whom)
        found += _fixed(texts, options, names, processes)
        codes = [*codes_of(texts), *([] if text is None else [("the script", text)])]
        found += given_to_each(codes, options, processes)
        found += _misplaced(texts, options, searched)
        found += _undivided(texts)
        found += lost_options(texts)
        found += _shared(
            options, {text.variable: text.text for text in texts if text.variable}, _names_of_pod(container)
        )
    found += _in_other_containers(manifest)
    # A Worker usually has the same text as its Master.
    first: dict[tuple[str, str, str], WiringWarning] = {}
    for warning in found:
        first.setdefault((warning.value, warning.rule, warning.remedy), warning)
    return list(first.values())


def _in_other_containers(manifest: Mapping[str, Any]) -> Iterator[WiringWarning]:
    """Yield a warning for each container beside the training that refers to a variable of a trial."""
    for role, replica in mapping(mapping(manifest.get("spec")).get("pytorchReplicaSpecs")).items():
        pod = mapping(mapping(mapping(replica).get("template")).get("spec"))
        for part in ("initContainers", "containers"):
            for other in map(mapping, sequence(pod.get(part))):
                if other.get("name") == CONTAINER and part == "containers":
                    continue
                # It may share the list of variables, and use none of them.
                text = next((text for text in texts_of(role, other) if keys.ENV_PREFIX in text.text), None)
                if text is not None:
                    rule = (
                        "trials set their variables in the training container only, so that this one has the"
                        " same values in all of them: use them there"
                    )
                    where = f"{role} container {other.get('name')}"
                    yield WiringWarning(where, text.text, rule, f"- name: {CONTAINER}")


def _only_serves(container: Mapping[str, Any]) -> bool:
    """Return whether a container runs nothing but a server that launchers of other pods use."""
    words = words_of(container)
    line = read_command_line(words, {})
    names = [base(program.text.split(" ")[0]) for program in line.programs]
    has_server = "sshd" in names or any(_SSH_SERVICE.search(word) for word in words)
    return has_server and not line.launches and set(names) <= {"sshd"}


@dataclass(frozen=True, slots=True)
class Reference:
    """A `$(NAME)` that stands for a variable of a trial; `is_in_env` if the container's own env has it."""

    where: str
    text: str
    variable: str
    is_in_env: bool


def references(manifest: Mapping[str, Any], inherited: Collection[str] = ()) -> Iterator[Reference]:
    """Yield the references to variables of a trial, once for each variable and container.

    A container whose env comes from elsewhere (`envFrom`) may have any variable, and is left out. `inherited`
    names the fields of the containers that are those of a TrainJob's runtime.
    """
    for role, container in containers(manifest):
        if container.get("envFrom"):
            continue
        own = {str(mapping(entry).get("name")) for entry in sequence(container.get("env"))}
        seen: set[str] = set()
        for text in texts_of(role, container, inherited):
            for variable in _TRIAL_REFERENCE.findall(text.text):
                if variable not in seen:
                    seen.add(variable)
                    yield Reference(text.where, text.text, variable, variable in own)


def _unread(
    role: str, texts: Sequence[Text], options: Sequence[Option], names: Sequence[str], by_whom: str
) -> Iterator[WiringWarning]:
    """Yield a warning for each name without a reference, or one warning if the text cannot be read.

    `by_whom` says what else was checked and does not read them; empty if nothing was.
    """
    has_reference = False
    missing: list[str] = []
    for name in names:
        if _is_referenced(name, texts):
            has_reference = True
            continue
        variable = keys.environment_name(name)
        dropped = next((t for t in texts if t.is_dropped and variable in t.text), None)
        if dropped is not None:
            has_reference = True
            rule = (
                "the script of the shell before it does not use this word, so no program gets it: write it in"
                ' the script, or write "$@" there, and -- behind the script in place of $0'
            )
            yield WiringWarning(dropped.where, dropped.text, rule, _PASSED_ON, name=name)
            continue
        file = next((t for t in texts if t.is_file and f"$({variable})" in t.text), None)
        if file is not None:
            has_reference = True
            rule = f"Kubernetes expands $(NAME) in command, args and env only: write ${variable} in this file"
            yield WiringWarning(file.where, f"$({variable})", rule, f"${variable}", name=name)
            continue
        is_bare = (t for t in texts if not (t.is_shell or t.is_code) and _shell_reference(variable, t.text))
        bare = next(is_bare, None)
        if bare is not None:
            has_reference = True
            rule = f"no shell runs here, and Kubernetes expands only $(NAME): write $({variable})"
            yield WiringWarning(bare.where, bare.text, rule, _expanded(bare.text, variable), name=name)
        else:
            missing.append(name)
    if not missing:
        return
    if not by_whom and not has_reference:
        variables = ", ".join(map(keys.environment_name, missing))
        config = next((o for o in options if o.name in _CONFIG_FLAGS or _CONFIGS.search(o.value or "")), None)
        what = f"the file {config.value or config.written}" if config is not None else "the script"
        rule = (
            f"nothing in command, args or env refers to {variables}, and the manifest does not show whether"
            f" {what} reads them: pass them on, or check that it does"
        )
        where = config.where if config else role
        yield WiringWarning(where, _written(texts), rule, _example("batch_size"), is_seen=False)
        return
    passed = {keys.parameter_name(v) for text in texts for v in _TRIAL_REFERENCE.findall(text.text)}
    for name in missing:
        variable = keys.environment_name(name)
        # A name that is spelt in two ways: the script's option is there, and its value never changes.
        alike = difflib.get_close_matches(name, passed.difference(names), n=1, cutoff=_ALIKE)
        is_printed = any(text.is_shell and _mentions(variable, text.uncommented) for text in texts)
        what = (
            "the script only prints or tests" if is_printed else "nothing in command, args or env refers to"
        )
        rule = f"{what} {variable}{by_whom and ',' + by_whom}"
        if alike:
            other = keys.environment_name(alike[0])
            rule = f"{rule}; {other} is passed on, but no trial changes it: use one name for both"
            example = f"{alike[0]} in {keys.key_of('search_space')}"
        else:
            rule, example = f"{rule}: pass it on", _example(name)
        yield WiringWarning(role, _written(texts), rule, example, name=name)


def _fixed(
    texts: Sequence[Text], options: Sequence[Option], names: Sequence[str], processes: int
) -> Iterator[WiringWarning]:
    """Yield a warning for each fixed value of a variable that a trial sets."""
    # Then the batch of a process may be the same in all trials.
    accumulates = any(
        "accum" in o.name
        and re.search(rf"{keys.ENV_BATCH_SIZE}|{keys.ENV_ACCUMULATION_STEPS}", o.value or "")
        for o in options
    )
    for name in ("batch_size", *(name for name in names if name != "batch_size")):
        spellings = _spellings(name)
        mine = [
            option
            for option in options
            if option.name in spellings
            or (name == "batch_size" and (is_of_process(option.name) or is_of_all(option.name)))
        ]
        passed = {o.name for o in mine if _refers(o.value, name)}
        for option in mine:
            if not _is_literal(option.value) or option.form == "name":
                continue
            is_own = option.name == keys.environment_name(name).lower()
            if is_own and any(_is_tested(name, text.uncommented) for text in texts if text.is_shell):
                continue
            if option.name in _ONLY and accumulates:
                continue
            is_part = name != "batch_size" or (is_of_process(option.name) and option.name not in _ONLY)
            if option.name not in passed and passed and is_part and not is_own:
                # With `--lr=$(...)`, `--lr0` may be another option; with the global batch, a micro-batch is.
                continue
            if option.form in {"env", "code", "config"} and _is_referenced(name, texts):
                continue
            addition = ", in addition to a reference to the variable" if _is_referenced(name, texts) else ""
            variable = keys.environment_name(name)
            ignored, what = variable, "the variable"
            if is_of_process(option.name) and processes > 1:
                variable = keys.ENV_MICRO_BATCH_SIZE
                what = f"each process's part of it, {variable}, {SET_WITH}"
            rule = f"a fixed value ignores {ignored}{addition}: pass on {what}"
            yield WiringWarning(option.where, option.written, rule, replaced(option, variable), name=name)


def _misplaced(
    texts: Sequence[Text], options: Sequence[Option], names: Sequence[str]
) -> Iterator[WiringWarning]:
    """Yield a warning for each option that is given the value of another one, or an evaluation's alone."""
    groups = (NAMES, *_ALIASES)
    for name in names:
        variable = keys.environment_name(name)
        exact = {f"$({variable})", f"${variable}", f"${{{variable}}}"}
        given = [option for option in options if option.value in exact]
        own = next((group for group in groups if name in group), None)
        others = [group for group in groups if group is not own] if own is not None else []
        for option in given:
            if any(option.name in group for group in others):
                rule = f"is given {variable}, the value of another option: pass it to the option of its name"
                yield WiringWarning(option.where, option.written, rule, _example(name), name=name)
        evaluated = [o for o in given if is_of_others(o.name)]
        mentions = sum(text.read.count(variable) for text in texts if not text.is_dropped)
        has_part = any(keys.ENV_MICRO_BATCH_SIZE in text.read for text in texts)
        if name == "batch_size" and evaluated and mentions == len(evaluated) and not has_part:
            rule = f"is no batch of the training, and nothing else is given {variable}: pass it on to that"
            yield WiringWarning(evaluated[0].where, evaluated[0].written, rule, _example(name), name=name)


def _undivided(texts: Sequence[Text]) -> Iterator[WiringWarning]:
    """Yield a warning for each option that is one word with its value, where no shell divides it."""
    words = [text for text in texts if not text.variable]
    program = next((word.text for word in words if word.where.endswith(" command[0]")), None)
    # An image's entrypoint, and a script, may give their words to a shell.
    if program is None or program.endswith(".sh"):
        return
    for before, word in zip([None, *words], words, strict=False):
        references = _TRIAL_REFERENCE.findall(word.text)
        is_plain = not (word.is_shell or word.is_code or word.is_dropped)
        # Such a word may be the value of an option, `--extra-args "--lr 0.1"`.
        is_value = before is not None and before.text.startswith("-") and "=" not in before.text
        is_undivided = _UNDIVIDED.match(word.text) is not None or word.text is program
        is_option = references or _OPTION_AND_VALUE.fullmatch(word.text) is not None
        if is_option and is_plain and not is_value and is_undivided and len(word.text.split()) > 1:
            rule = "is one word with a blank, which no shell divides here: write a word for each part"
            name = keys.parameter_name(references[0]) if references else ""
            yield WiringWarning(word.where, word.text, rule, json.dumps(word.text.split()), name=name)


def _names_of_pod(container: Mapping[str, Any]) -> set[str]:
    """Return the variables that name the pod or its job, which are other ones in each trial."""
    # HOSTNAME is the node's with hostNetwork.
    found = set[str]()
    for entry in map(mapping, sequence(container.get("env"))):
        path = str(mapping(mapping(entry.get("valueFrom")).get("fieldRef")).get("fieldPath"))
        if path in {"metadata.name", "metadata.uid"} or "job-name" in path:
            found.add(str(entry.get("name")))
    return found


def _shared(
    options: Sequence[Option], environment: Mapping[str, str], names_of_pod: Collection[str]
) -> Iterator[WiringWarning]:
    """Yield a warning for each path that all trials write to, and for resuming another trial's run."""
    for option in options:
        if option.value is None:
            value = ""
        else:
            value = REFERENCE.sub(lambda m: environment.get(m[1] or m[2], m[0]), option.value)
        used = {match[1] or match[2] for match in REFERENCE.finditer(value)}
        if any(name in value for name in _OWN) or not used.isdisjoint(names_of_pod):
            continue
        is_off = option.value is not None and value.lower() in _OFF
        # The value of a variable with `valueFrom` is unknown.
        is_unseen = REFERENCE.match(value) is not None
        is_place = "/" in value or option.name.endswith(("dir", "path", "folder"))
        if option.name in _RESUMES and not is_off and not is_unseen:
            rule = (
                "a trial that resumes continues another trial's training:"
                " drop it, or resume from the trial's own folder alone"
            )
            yield WiringWarning(option.where, option.written, rule, replaced(option, keys.ENV_OUTPUT_DIR))
        elif option.name in _PLACES and option.value and is_place and not is_off and not is_unseen:
            rule = (
                "trials share this path, overwrite each other and may resume from it: use one path per trial"
            )
            yield WiringWarning(option.where, option.written, rule, replaced(option, keys.ENV_OUTPUT_DIR))


# --- the texts of a manifest ---------------------------------------------------------------------------


def _written(texts: Sequence[Text]) -> str:
    return " ".join(text.text for text in texts if not (text.variable or text.is_file))


# --- references ----------------------------------------------------------------------------------------


def _variables(name: str) -> tuple[str, ...]:
    own = keys.environment_name(name)
    return (own, keys.ENV_MICRO_BATCH_SIZE) if name == "batch_size" else (own,)


def _is_referenced(name: str, texts: Sequence[Text]) -> bool:
    return any(
        variable in _TRIAL_REFERENCE.findall(text.read)
        or (text.is_shell and _mentions(variable, _ASSIGNED.sub("", text.read)))
        for text in texts
        for variable in _variables(name)
        if text.variable != variable and not text.is_dropped
    ) or any(reads(_ASSIGNED.sub("", text.read), name) for text in texts if text.is_shell or text.is_code)


def _mentions(variable: str, shell: str) -> bool:
    """Return whether a shell script names a variable: as `$NAME`, or in a program inside it."""
    return re.search(rf"(?<!\w){variable}(?!\w)", shell) is not None


def _is_tested(name: str, shell: str) -> bool:
    """Return whether a shell script sets a variable of the trial only if it has no value."""
    return re.search(rf"-z\s+\"?\$\{{?{keys.environment_name(name)}(?!\w)", shell) is not None


def _shell_reference(variable: str, text: str) -> bool:
    return re.search(rf"\$(?:{variable}(?!\w)|\{{{variable}[}}:])", text) is not None


def _expanded(text: str, variable: str) -> str:
    return re.sub(rf"\$(?:{variable}(?!\w)|\{{{variable}[^}}]{{0,80}}\}})", f"$({variable})", text)


def _refers(value: str | None, name: str) -> bool:
    return value is not None and any(variable in value for variable in _variables(name))


def reads(script: str, name: str) -> bool:
    """Return whether the text of a script reads a variable, by its name or through the SDK."""
    # The callbacks apply the options of their framework.
    if _names(script, name) or _CALLBACKS.search(script):
        return True
    return "hyperparameters" in script and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", script) is not None


def _names(script: str, name: str) -> bool:
    """Return whether a script names a variable; a composed name (f"AUTOTUNER_{x}") may be any."""
    if any(_mentions(variable, script) for variable in _variables(name)):
        return True
    return re.search(rf"{keys.ENV_PREFIX}(?:\{{|[\"']\s*\+|%s)", script) is not None


def _is_literal(value: str | None) -> bool:
    # `auto` is filled in by a framework, such as DeepSpeed.
    return value is not None and "$" not in value and value.lower() not in (_OFF | {"auto"}) - {"0"}


def _spellings(name: str) -> frozenset[str]:
    if name == "batch_size":
        return NAMES | {keys.ENV_BATCH_SIZE.lower()}
    others = next((group for group in _ALIASES if name in group), frozenset())
    return others | {name.lower(), keys.environment_name(name).lower()}


def _example(name: str) -> str:
    flag = name.replace("_", "-")
    return f'args: ["--{flag}=$({keys.environment_name(name)})"]'
