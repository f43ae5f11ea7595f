"""The causes of real failures: every case of the field, and ours."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
import yaml

from autotuner.study.endings.cause import find_cause
from autotuner.study.endings.log_errors import ProcessLog
from autotuner.study.endings.log_tail import MAX_LOG
from autotuner.study.endings.outcome import Ending, classify
from autotuner.trial import Measurement
from tests.builders import spec

FOLDER = Path(__file__).parent
CASES = [
    case
    for name in ("endings.yaml", "own_endings.yaml")
    for case in yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
]
TARGET = spec().target


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_an_ending_has_the_outcome_that_a_careful_person_reads(case):
    values = case.get("measurements", ())
    measurements = tuple(Measurement(float(step), value) for step, value in enumerate(values, start=1))
    outcome, message = classify(Ending(case["exit_code"], case["log_tail"]), measurements, TARGET)
    assert outcome.value in case["outcome"]
    assert case.get("shown", "") in message


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_cause_does_not_depend_on_what_was_printed_long_before(case):
    trained = "".join(f"epoch {n} loss {1 / n:.3f} accuracy={1 - 1 / n:.3f}\n" for n in range(1, 400))
    log = ProcessLog(trained + case["log_tail"], case["exit_code"])
    assert find_cause([log]).outcome.value in case["outcome"]


@pytest.mark.parametrize("prefix", ["[rank3]: ", "[default0]:", "[1,0]<stderr>:", "\x1b[31m"])
@pytest.mark.parametrize("case", CASES[:14], ids=lambda case: case["name"])
def test_a_launchers_prefix_or_a_colour_hides_nothing(case, prefix):
    log = "".join(prefix + line + "\n" for line in case["log_tail"].splitlines())
    assert find_cause([ProcessLog(log, case["exit_code"])]).outcome.value in case["outcome"]


PREFIXES = ["worker-1: ", "[trainer0]:", "stderr: ", "[default0]:[rank0]: ", "2025-06-25T10:45:0{}.123Z "]
ERRORS = {
    "torch.distributed.DistBackendError: NCCL error in: NCCLUtils.hpp:268, network error": "lost",
    "ConnectionResetError: [Errno 104] Connection reset by peer": "lost",
    "ValueError: loss is nan": "diverged",
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.": "out_of_memory",
    "KeyError: 'network error'": "failed",
}


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(("error", "outcome"), ERRORS.items())
def test_what_stands_before_each_line_of_a_traceback_is_no_part_of_it(error, outcome, prefix):
    lines = [
        "Traceback (most recent call last):",
        '  File "train.py", line 20, in <module>',
        "    main()",
        error,
    ]
    written = [prefix.format(n) + line + "\n" for n, line in enumerate(lines)]
    for log in ("epoch 1 loss 2.0\n" + "".join(written), "".join(written[1:])):
        found = find_cause([ProcessLog(log, 1)])
        assert (found.outcome.value, found.line) == (outcome, error)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("error", "outcome"), [*list(ERRORS.items())[:-1], ("KeyError: 'lr'", "failed")])
def test_processes_that_write_their_tracebacks_at_once_died_of_what_each_says(error, outcome, seed):
    # Python writes a traceback in pieces, and without a launcher's prefix nothing keeps them apart.
    draw = random.Random(seed)
    frame = ['  File "', "train.py", '", line ', "20", ", in ", "step", "\n", "    ", "loss = f(x)", "\n"]
    carets = ["    ", *"^^^^", "\n"]
    name, message = error.split(": ", maxsplit=1)
    whole = ["Traceback (most recent call last):\n", *(frame + carets) * 3, name, ": ", message, "\n"]
    processes = [list(whole) for _ in range(4)]
    written = []
    while left := [process for process in processes if process]:
        process = draw.choice(left)
        for _ in range(draw.choice([1, 3, 20])):
            written += process[:1]
            del process[:1]
    log = "epoch 1 loss 2.0\n" + "".join(written)
    assert find_cause([ProcessLog(log, 1)]).outcome.value == outcome


HOSTILE = {
    "one line": "x" * 10_000_000,
    "spaces": " " * 1_000_000,
    "empty lines": "\n" * 1_000_000,
    "short lines": "Error\n" * 200_000,
    "tracebacks": "Traceback (most recent call last):\n" * 100_000,
    "names without an end": "a." * 500_000 + "Error",
    "almost an error": "CUDA " * 200_000,
    "almost a rank": "(pid=" * 200_000,
    "escapes": "\x1b[" * 500_000,
    "chains": ("KeyError: 1\nDuring handling of the above exception, another exception occurred:\n" * 20_000),
    "brackets": "[1," * 300_000,
    "JSON": '{"exc_info": "Traceback (most recent call last):' + "\\n" * 1_000_000,
    "prefixes": "".join(
        f'{n} Traceback (most recent call last):\n{n}   File "x"\n' for n in range(1_000, 3_000)
    ),
    "deaths": "[rank3]: KeyError: 1\nfailed (exitcode: 1) local_rank: 3\n" * 20_000,
    "losses": "loss_" * 400_000,
    "advice": ("retry " + "please try " * 100) * 2_000,
    "nothing printable": "\x00\x0c\u2028" * 300_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_log_costs_more_than_a_moment(text):
    started = time.process_time()
    cause = find_cause([ProcessLog(text, 1)] * 4)
    assert time.process_time() - started < 4
    assert len(cause.line) <= 500
    assert all(c.isprintable() for c in cause.line)


def test_the_cost_does_not_grow_with_the_log_beyond_the_bound():
    oom = "torch.OutOfMemoryError: CUDA out of memory.\n"
    hidden = oom + "x\n" * MAX_LOG + "ValueError: bad\n"
    assert find_cause([ProcessLog(hidden, 1)]).line == "ValueError: bad"
