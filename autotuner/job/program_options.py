"""The options of a program that tell its processes, and its part of a batch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from autotuner.job.batch_options import OF_RECIPE, is_size
from autotuner.job.wrappers import names

NODES: Final = names("nnodes num_machines num_nodes")
"""Options whose value is the number of pods."""
PER_NODE: Final = names(
    """
    nproc_per_node nprocs_per_node procs_per_node num_procs_per_node num_processes_per_node processes_per_node
    """
)
"""Options whose value is the number of processes on a node."""
COUNTS: Final = (
    PER_NODE
    | NODES
    | names(
        """
    devices devices_per_node gpus gpus_per_node multiprocessing_distributed n_gpu n_gpus n_gpus_per_node ngpu
    ngpus ngpus_per_node num_devices num_gpu num_gpus num_gpus_per_node
    """
    )
)
"""Options that may tell how many processes a program starts."""
_STRATEGIES: Final = re.compile(r"(?:ddp|deepspeed|fsdp)(?:_\w{1,60})?")
"""Values of Lightning's options with which it starts a process on each GPU."""
OF_SCRIPTS: Final = names("nprocs world_size")
"""Options of scripts that start as many processes by themselves."""
_SPLITS: Final = names(
    """
    autotp_size cp cp_degree cp_size megatron_lm_pp_degree megatron_lm_tp_degree parallelism_config_cp_size
    parallelism_config_sp_size parallelism_config_tp_size pp pp_degree pp_size ring_attn_size ring_degree
    ring_size sp_degree sp_size tp tp_degree tp_size ulysses_degree ulysses_size
    """
)
"""Options whose value is the number of processes that share one part of a batch."""
_PARALLEL: Final = re.compile(
    r"(?:ds_|pipeline_|tensor_|ulysses_)?(?:context|model|pipe(?:line)?|seq(?:uence)?|tensor|ulysses)"
    r"_parallel(?:ism)?"
    r"(?:_(?:degree|dim|size|world_size))?"
)
"""And those of a longer name, such as `tensor_model_parallel_size`."""
STARTED: Final = names("nproc nprocs num_proc num_processes num_procs")
"""Options of an image's program that starts as many processes by itself."""
_OPTION: Final = re.compile(r"(-{1,2}|\+{0,2})([A-Za-z][\w./-]{0,100})(?:=(.*))?", re.DOTALL)


def numbers_in(words: Sequence[str], wanted: frozenset[str]) -> dict[str, str]:
    """Return the options of a program that may be a number of processes: `--gpus 8`, `trainer.devices=8`."""
    return {name: text for name, text in pairs_in(words) if name in wanted}


def is_strategy(name: str, text: str) -> bool:
    """Return whether an option of Lightning starts a process on each GPU."""
    return name in {"accelerator", "strategy"} and _STRATEGIES.fullmatch(text) is not None


def splits_in(words: Sequence[str]) -> dict[str, str]:
    """Return the options of a program with which processes may share a part of the batch."""
    return {name: text for name, text in pairs_in(words) if name in _SPLITS or _PARALLEL.fullmatch(name)}


def sizes_in(words: Sequence[str], *, has_recipe: bool = False) -> dict[str, str]:
    """Return the options of a program that have a part in the size of its batch.

    The batch size of a recipe of torchtune is that of a process.
    """
    also = OF_RECIPE if has_recipe else ""
    return {name: text for name, text in pairs_in(words) if is_size(name) or name == also}


def pairs_in(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the options of a program, the last part of their names with underscores, and their values."""
    for word, following in zip(words, [*words[1:], ""], strict=False):
        match = _OPTION.fullmatch(word)
        if match is None or not (match[1].startswith("-") or match[3] is not None):
            continue
        name = match[2].rsplit(".", 1)[-1].rsplit("/", 1)[-1].lower().replace("-", "_")
        is_flag = following.startswith("-") and not following[1:].isdecimal()
        yield name, match[3] if match[3] is not None else "" if is_flag else following
