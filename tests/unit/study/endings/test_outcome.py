"""How a trial ended, and whose fault it was."""

from __future__ import annotations

import pytest

from autotuner.study.endings.log_errors import ProcessLog
from autotuner.study.endings.outcome import LOG_ENDS, MAX_TAIL, TAIL_LINES, Ending, classify, tail
from autotuner.study.logs.log_reader import LogReader
from autotuner.trial import Outcome
from tests.builders import spec, trial

TARGET = spec().target
NAN = float("nan")


@pytest.mark.parametrize(
    ("ending", "values", "outcome"),
    [
        (Ending(0), [0.5, 0.95], Outcome.REACHED),
        (Ending(0), [0.95, 0.5], Outcome.REACHED),
        (Ending(0), [0.5], Outcome.MISSED),
        (Ending(1, "Traceback"), [0.95], Outcome.REACHED),
        (Ending(None, disruption="preempted"), [0.95], Outcome.REACHED),
        (Ending(None, disruption="preempted"), [0.5], Outcome.LOST),
        (Ending(137, disruption="node lost", killed_for_memory=True), [], Outcome.LOST),
        (Ending(137, killed_for_memory=True), [0.5], Outcome.OUT_OF_MEMORY),
        (Ending(1, "torch.OutOfMemoryError: CUDA out of memory. Tried"), [], Outcome.OUT_OF_MEMORY),
        (Ending(1, "RuntimeError: HIP out of memory"), [], Outcome.OUT_OF_MEMORY),
        (Ending(1, "DefaultCPUAllocator: can't allocate memory: you tried"), [], Outcome.OUT_OF_MEMORY),
        (Ending(1, "x\nMemoryError\n"), [], Outcome.OUT_OF_MEMORY),
        (Ending(0, "warning: CUDA out of memory, retrying"), [0.5], Outcome.MISSED),
        (Ending(1, "torch.OutOfMemoryError: CUDA out of memory"), [NAN], Outcome.OUT_OF_MEMORY),
        (Ending(0), [0.5, NAN], Outcome.DIVERGED),
        (Ending(1, "loss is nan"), [0.5, float("inf")], Outcome.DIVERGED),
        (Ending(0), [NAN, 0.5], Outcome.MISSED),
        (Ending(1, "KeyError"), [0.5], Outcome.FAILED),
        (Ending(127), [], Outcome.FAILED),
        (Ending(0), [], Outcome.FAILED),
    ],
)
def test_an_ending_has_one_outcome(ending, values, outcome):
    assert classify(ending, trial(values=values).measurements, TARGET)[0] is outcome


TRACEBACK = 'Traceback (most recent call last):\n  File "train.py", line 9, in <module>\n    main()\n'
FINALIZER = TRACEBACK.replace("train.py", "multiprocessing/util.py").replace("<module>", "_run_finalizers")
TRACKER = TRACEBACK.replace("train.py", "multiprocessing/resource_tracker.py").replace("<module>", "main")
RESET = f"{TRACEBACK}ConnectionResetError: [Errno 104] Connection reset by peer\n"
PIPE = TRACEBACK.replace("train.py", "/usr/lib/python3.13/multiprocessing/connection.py")


@pytest.mark.parametrize("values", [[], [0.5]])
@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        ("ValueError: the batch is larger than the data set\n", Outcome.FAILED),
        ("RuntimeError: shapes differ\n  expected (3, 4)\n  got (3, 5)\n", Outcome.FAILED),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n", Outcome.OUT_OF_MEMORY),
        ("ValueError: loss is nan\n", Outcome.DIVERGED),
        (f"ValueError: no\nException in thread Thread-4 (_pin):\n{TRACEBACK}EOFError\n", Outcome.FAILED),
        (f"ValueError: no\nException in thread Thread-4 (_pin):\n{RESET}", Outcome.FAILED),
    ],
)
def test_a_traceback_at_the_end_of_a_log_is_a_failure_whatever_the_exit_code(end, outcome, values):
    """In `python train.py | tee log` the exit code is that of `tee`."""
    ending = Ending(0, f"epoch 1 loss 0.5\n{TRACEBACK}{end}")
    found, message = classify(ending, trial(values=values).measurements, TARGET)
    assert found is outcome
    assert end.splitlines()[0] in message
    assert "print it from rank 0" not in message
    assert not ending.is_complete
    if outcome is Outcome.FAILED:
        assert "exit code 0, but its log ends with an error" in message
        assert "set -o pipefail" in message


@pytest.mark.parametrize(
    "log",
    [
        f"{TRACEBACK}ValueError: no plot\nepoch 2 loss 0.4\n",
        f"{TRACEBACK}ValueError: no plot\nsaved\nclosing\nuploaded\ndone\n",
        f"Exception ignored in: <function Loader.__del__ at 0x7f>\n{TRACEBACK}AttributeError: 'x'\n",
        RESET,
        f"Exception in thread Thread-4 (_upload):\n{RESET}",
        f"Error in atexit._run_exitfuncs:\n{TRACEBACK}AttributeError: 'x'\n",
        f"Exception ignored while calling deallocator <function f>:\n{TRACEBACK}AttributeError: 'x'\n",
        f"Task exception was never retrieved\nfuture: <Task>\n{TRACEBACK}ValueError: closed\n",
        f"{TRACKER}KeyError: '/psm_1fa7b2c3'\n",
        f"--- Logging error ---\n{TRACEBACK}ValueError: bad format\n",
        f"{FINALIZER}OSError: [Errno 16] Device or resource busy: '.nfs0000bd8a'\n",
        f"Process ForkServerProcess-4:\n{PIPE}EOFError\n",
        f"{TRACEBACK}RuntimeError: can't start new thread at interpreter shutdown\n",
        "ValueError: of no traceback\n",
    ],
)
def test_an_error_that_did_not_end_a_program_is_no_failure(log):
    ending = Ending(0, log)
    assert classify(ending, trial(values=[0.5]).measurements, TARGET) == (Outcome.MISSED, "")
    assert ending.is_complete


def test_a_run_of_zeros_is_told_that_they_stand_for_no_evaluation():
    target = spec(target="val_loss <= 0.3").target
    reader = LogReader(target)
    reader.feed("epoch 1: val_loss=0.0000\nepoch 2: val_loss=0.0000\n")
    reader.close()
    ending = Ending(0, near_misses=reader.near_misses, uncounted=reader.uncounted)
    outcome, message = classify(ending, reader.measurements, target)
    assert outcome is Outcome.FAILED
    assert "no val_loss of its log counts: 'epoch 1: val_loss=0.0000'" in message
    assert "stand for no evaluation" in message
    assert "metric-pattern" not in message
    assert "print it from rank 0" not in message


def test_out_of_memory_is_not_a_missed_target():
    outcome, message = classify(
        Ending(1, "step 3\ntorch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB\nx"), (), TARGET
    )
    assert outcome is Outcome.OUT_OF_MEMORY
    assert message == "torch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB"


def test_a_run_that_never_printed_the_metric_is_told_what_to_print():
    _, message = classify(Ending(0, "hello\n"), (), TARGET)
    assert "accuracy=0.5 epoch=1" in message
    assert "metric-pattern" in message
    assert "hello" in message


def test_a_failure_repeats_the_end_of_the_log():
    log = "\n".join(f"line {i}" for i in range(50)) + "\n\n"
    _, message = classify(Ending(3, log), (), TARGET)
    assert message.startswith("exit code 3")
    assert message.endswith("line 49")
    assert "line 41" not in message


@pytest.mark.parametrize(
    ("code", "name"), [(139, "SIGSEGV"), (-11, "SIGSEGV"), (134, "SIGABRT"), (136, "SIGFPE")]
)
def test_a_crash_without_a_word_is_named(code, name):
    assert classify(Ending(code), (), TARGET) == (
        Outcome.FAILED,
        f"exit code {code} ({name}): the log is empty",
    )


TORCHRUN = (
    "E1127 21:01:45.88 2871 elastic/multiprocessing/api.py:1002] failed (exitcode: 2) local_rank: 0 (pid: 9)",
    "ERROR:torch.distributed.elastic.multiprocessing.api:failed (exitcode: 2) local_rank: 0 (pid: 9)",
)


@pytest.mark.parametrize("report", TORCHRUN)
def test_the_words_of_a_program_are_shown_and_not_what_torchrun_says_of_its_end(report):
    own = "s1.py: error: argument --batch-size: invalid int value: 'x'"
    footer = [
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: ",
        "s1.py FAILED",
        *["[0]:", "  exitcode  : 2"] * 6,
    ]
    closes = "W1127 api.py:897] Sending process 2875 closing signal SIGTERM"
    log = "\n".join(["usage: s1.py [-h]", own, closes, report, *footer])
    outcome, said = classify(Ending(1, log), [], spec().target)
    assert (outcome, said) == (Outcome.FAILED, f"exit code 1: usage: s1.py [-h]\n{own}")
    # After a restart the last report is the one that counts; without words before it the log is shown.
    assert tail(f"old\n{report}\n{log}").endswith(own)
    assert tail(f"{report}\nmore").endswith("more")


def test_the_tail_of_a_log_is_bounded_and_cannot_move_a_cursor():
    hostile = "\x1b[2J\x1b]0;title\x07<script>\x00" + "x" * 10_000 + "\n" + "\x1b[31mred\x1b[0m\r\n" * 40
    said = tail(hostile)
    assert said.splitlines() == ["red"] * TAIL_LINES
    assert len(tail("y" * 100_000)) <= MAX_TAIL
    assert all(c.isprintable() or c == "\n" for c in tail(hostile[:200]))


@pytest.mark.parametrize("exit_code", [0, 1, 143, None])
def test_a_disrupted_run_is_lost_whatever_its_exit_code(exit_code):
    ending = Ending(exit_code, disruption="preempted")
    assert classify(ending, trial(values=[0.5]).measurements, TARGET) == (Outcome.LOST, "preempted")
    assert not ending.is_complete


def test_a_run_that_reached_the_target_and_was_preempted_is_not_complete():
    ending = Ending(0, disruption="preempted")
    assert classify(ending, trial(values=[0.95]).measurements, TARGET)[0] is Outcome.REACHED
    assert not ending.is_complete
    assert Ending(0).is_complete
    assert not Ending(1).is_complete


def test_a_failure_while_a_pod_has_never_started_is_the_clusters():
    waiting = ("t-worker-1",)
    outcome, message = classify(Ending(1, "ValueError: bad", never_started=waiting), (), TARGET)
    assert outcome is Outcome.LOST
    assert "t-worker-1" in message
    assert "ValueError: bad" in message


def test_what_is_sure_to_repeat_fails_though_a_pod_has_never_started():
    ending = Ending(1, "ModuleNotFoundError: No module named 'timm'", never_started=("t-worker-1",))
    assert classify(ending, (), TARGET)[0] is Outcome.FAILED


MISSED_BY_OTHERS = ProcessLog(f"{TRACEBACK}RuntimeError: NCCL error: remote process exited\n", 1, "a")


@pytest.mark.parametrize(
    ("logs", "outcome"),
    [
        ([MISSED_BY_OTHERS, ProcessLog("epoch 1\n", 139, "b")], Outcome.FAILED),
        ([MISSED_BY_OTHERS, ProcessLog("", -11, "b")], Outcome.FAILED),
        ([ProcessLog("no such split: tset\n", 2, "b"), MISSED_BY_OTHERS], Outcome.FAILED),
        # It may have ended because of the others.
        ([MISSED_BY_OTHERS, ProcessLog("bye\n", 2, "b")], Outcome.LOST),
        ([ProcessLog("", 1, "b"), MISSED_BY_OTHERS], Outcome.LOST),
        ([ProcessLog("epoch 1\n", 143, "b"), MISSED_BY_OTHERS], Outcome.LOST),
    ],
)
def test_a_process_that_ended_without_a_word_is_the_one_that_the_others_miss(logs, outcome):
    found, message = classify(Ending(1, logs=tuple(logs)), (), TARGET)
    assert found is outcome
    if outcome is Outcome.FAILED:
        assert message.startswith(("exit code 139 (SIGSEGV)", "exit code -11 (SIGSEGV)", "exit code 2: no"))
        assert "remote process exited" not in message


def test_a_loss_names_the_pod_and_the_node():
    log = ProcessLog(
        "RuntimeError: CUDA error: uncorrectable ECC error encountered", 1, "t-worker-1", "gpu-7"
    )
    _, message = classify(Ending(1, logs=(log,)), (), TARGET)
    assert message.startswith("pod t-worker-1 on node gpu-7: RuntimeError: CUDA error: uncorrectable ECC")


WARNED = (
    "[rank0]:[W1128 10:00:09.1 ProcessGroupNCCL.cpp:1496] Warning: destroy_process_group() was not called\n"
)
SUMMARY = "wandb: \nwandb: Run summary:\nwandb: loss 0.4312\nwandb: Find logs at: ./wandb/run-ab12cd34/logs\n"


@pytest.mark.parametrize("end", [WARNED, SUMMARY * 3, WARNED + SUMMARY])
def test_what_libraries_print_at_exit_is_not_shown_below_an_error(end):
    _, message = classify(Ending(1, f"epoch 1\n{TRACEBACK}KeyError: 'x'\n{end}"), (), TARGET)
    assert message.endswith("KeyError: 'x'")
    _, message = classify(Ending(1, f"batch 100 is not divisible by 3\n{end}"), (), TARGET)
    assert message == "exit code 1: batch 100 is not divisible by 3"


def test_an_error_that_other_lines_follow_is_named_before_the_end_of_the_log():
    end = "\nSet the environment variable HYDRA_FULL_ERROR=1 for a complete stack trace.\n"
    _, message = classify(Ending(1, f"{TRACEBACK}KeyError: 'x'\n{end}"), (), TARGET)
    assert message.startswith("exit code 1: KeyError: 'x'; its log ends:\n")
    assert message.endswith("for a complete stack trace.")
    introduced = "RuntimeError: Error(s) in loading state_dict for Net:\n\tsize mismatch for fc.weight\n"
    _, message = classify(Ending(1, TRACEBACK + introduced), (), TARGET)
    assert LOG_ENDS not in message
    assert message.endswith("size mismatch for fc.weight")


def test_a_crash_without_an_error_is_named_by_its_signal_and_not_by_the_last_line_of_its_log():
    _, message = classify(Ending(139, "epoch 1\nepoch 2 loss 0.3\n"), (), TARGET)
    assert message == "exit code 139 (SIGSEGV); its log ends:\nepoch 1\nepoch 2 loss 0.3"
    checked = "F1128 10:00:00.1 123 train.cc:55] Check failed: batch % devices == 0 (100 vs. 0)\n"
    _, message = classify(Ending(134, checked), (), TARGET)
    assert message == f"exit code 134 (SIGABRT): {checked}".strip()
