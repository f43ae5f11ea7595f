"""Why a trial of several processes failed."""

from __future__ import annotations

import pytest

from autotuner.study.endings.cause import MAX_SAID, find_cause, uncaught
from autotuner.study.endings.log_errors import ProcessLog
from autotuner.trial import Outcome

OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\n"
PEER = (
    "torch.distributed.DistBackendError: NCCL error in: NCCLUtils.hpp:268, remote process exited or there was"
    " a network error\n"
)
BUG = "Traceback (most recent call last):\n  File 't.py', line 1\nKeyError: 'label'\n"
OOM_RAISED = BUG.replace("KeyError: 'label'\n", OOM)
ECC = "RuntimeError: CUDA error: uncorrectable ECC error encountered\n"


def cause(*logs: tuple[str, int | None]):
    return find_cause(
        [ProcessLog(text, code, f"pod-{i}", f"node-{i}") for i, (text, code) in enumerate(logs)]
    )


@pytest.mark.parametrize(
    ("logs", "outcome", "pod"),
    [
        ([(PEER, 1), (OOM, 1)], Outcome.OUT_OF_MEMORY, "pod-1"),
        ([(BUG, 1), (OOM, 1)], Outcome.OUT_OF_MEMORY, "pod-1"),
        ([(PEER, 1), (BUG, 1)], Outcome.FAILED, "pod-1"),
        ([(PEER, 1), (ECC, 1)], Outcome.LOST, "pod-1"),
        ([(ECC, 1), (BUG, 1)], Outcome.LOST, "pod-0"),
        ([(BUG, 1), (ECC, 1)], Outcome.FAILED, "pod-0"),
        ([(PEER, 1), (PEER, 1)], Outcome.LOST, "pod-0"),
        ([("", 1), ("", 143)], Outcome.FAILED, "pod-0"),
        ([("", 1), ("", 137)], Outcome.LOST, "pod-1"),
        ([(PEER, 1), ("", -9)], Outcome.LOST, "pod-0"),
        # Nobody sends SIGBUS, and no node lacks a command.
        ([(PEER, 1), ("step 1\n", 135)], Outcome.OUT_OF_MEMORY, "pod-1"),
        ([(PEER, 1), ("sh: 1: trian: not found\n", 127)], Outcome.FAILED, "pod-1"),
        ([("step 1\n", 137), (PEER, 1)], Outcome.LOST, "pod-0"),
        ([("", 143), ("", None)], Outcome.LOST, "pod-0"),
        ([(BUG, 143)], Outcome.LOST, "pod-0"),
    ],
)
def test_processes_that_die_together_die_of_one_cause(logs, outcome, pod):
    found = cause(*logs)
    assert (found.outcome, found.pod) == (outcome, pod)
    assert found.node == found.pod.replace("pod", "node")


def test_what_a_program_survived_before_a_signal_is_no_cause():
    trained = "".join(f"epoch {n} loss 0.1\n" for n in range(10))
    assert cause((OOM + trained, 137)).outcome is Outcome.LOST
    assert cause((OOM + trained, 1)).outcome is Outcome.FAILED


@pytest.mark.parametrize(
    ("text", "code", "is_sure"),
    [
        ("ModuleNotFoundError: No module named 'timm'\n", 1, True),
        ("python: can't open file '/app/trian.py': [Errno 2] No such file or directory\n", 2, True),
        ("train.py: error: unrecognized arguments: --lr=1\n", 2, True),
        ("", 127, True),
        (BUG, 1, False),
        (OOM, 1, False),
    ],
)
def test_only_what_no_setting_changes_is_sure_to_repeat(text, code, is_sure):
    assert cause((text, code)).is_sure_to_repeat is is_sure


def test_a_long_error_is_cut_after_a_sentence():
    said = OOM.strip() + ". GPU 0 has 79.18 GiB. " + "Of it 64.36 GiB is allocated by PyTorch. " * 12
    found = cause((said + "See https://pytorch.org/docs/stable/notes/cuda.html\n", 1))
    assert found.line.startswith(OOM.strip())
    assert found.line.endswith("allocated by PyTorch.")
    assert len(found.line) <= MAX_SAID


def test_a_long_error_without_sentences_shows_that_it_is_cut():
    assert cause((BUG.strip() + "x" * 600 + "\n", 1)).line.endswith("x...")


FAILED_CHILD = "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:\ntrain.py FAILED\n"
GIT = (
    'Traceback (most recent call last):\n  File "t.py", line 1, in f\n'
    "subprocess.CalledProcessError: Command '['git', 'rev-parse']' returned non-zero exit status 128.\n"
)


@pytest.mark.parametrize(
    "log",
    [
        PEER + FAILED_CHILD + "epoch 2 accuracy=0.9\n",
        "epoch 2 accuracy=0.9\n" + GIT,
        "epoch 2 accuracy=0.9\n" + GIT.replace("git", "python") + "plot failed, the results are saved\n",
        "epoch 2 accuracy=0.9\nsee the documentation of ProcessRaisedException\n",
        "Traceback (most recent call last):\n  File 't.py', line 1\n"
        + OOM
        + "now with 32\nepoch 1 accuracy=0.9\n",
        "epoch 2 accuracy=0.9\n" + BUG + "Results are in out/\nbest 0.9\nTotal time 1h\nBye\n",
    ],
)
def test_a_run_that_went_on_after_a_launchers_error_has_ended_well(log):
    assert uncaught(log) is None
    assert uncaught(PEER + FAILED_CHILD).outcome is Outcome.LOST


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(ECC, Outcome.LOST), (PEER, Outcome.LOST), ("requests.exceptions.ReadTimeout: Read timed out.\n", None)],
)
def test_an_error_of_the_device_ends_a_program_behind_a_pipe_and_one_of_an_upload_may_not(error, outcome):
    found = uncaught(
        "epoch 2 accuracy=0.9\nTraceback (most recent call last):\n  File 't.py', line 1\n" + error
    )
    assert (found and found.outcome) is outcome


NAN = "step 20 loss nan\nLoss is nan, stopping training\n"


@pytest.mark.parametrize("level", ["WARNING: ", "[2026-01-01 10:00:00] INFO train: "])
def test_a_warning_that_it_stops_for_nan_is_enough(level):
    found = uncaught("epoch 1 accuracy=0.1\n" + level + "loss is NaN, stopping training\n")
    assert found is not None
    assert found.outcome is Outcome.DIVERGED


@pytest.mark.parametrize("after", ["", "Training time 0:01:03\n", "saved model.pt\n"])
def test_a_program_that_says_that_it_stops_for_nan_has_diverged_although_it_exits_with_0(after):
    found = uncaught("epoch 1 accuracy=0.1\n" + NAN + after)
    assert found is not None
    assert (found.outcome, found.line) == (Outcome.DIVERGED, "Loss is nan, stopping training")


@pytest.mark.parametrize(
    "log",
    [
        NAN + "restored the best weights\nepoch 2 accuracy=0.4\n",
        "epoch 1 accuracy=0.4\nval_loss: nan\nfinished\n",
        "step 10 loss is nan, skipping batch\nepoch 1 accuracy=0.4\n",
        "epoch 1 accuracy=0.4\nEarly stopping: no better loss than (best nan)\n",
        "epoch 1 accuracy=0.4\nINFO terminate_on_nan: training stops if loss is nan\n",
        "epoch 1 accuracy=0.4\nrestart will be refused when the loss is nan, exit with 3\n",
    ],
)
def test_a_program_that_does_not_say_so_has_ended_well(log):
    assert uncaught(log) is None


IN_THREAD = (
    "Exception in thread Thread-3:\nTraceback (most recent call last):\n"
    '  File "/opt/conda/lib/python3.11/threading.py", line 1045, in _bootstrap_inner\n    self.run()\n{}'
    '  File "/opt/conda/lib/python3.11/site-packages/torch/utils/data/_utils/pin_memory.py", line 31, in f\n'
    "    r = in_queue.get(timeout=30)\nFileNotFoundError: [Errno 2] No such file or directory\n"
)


def test_a_thread_of_a_library_that_misses_the_ended_program_fails_no_run():
    assert uncaught("epoch 2 accuracy=0.9\n" + IN_THREAD.format("")) is None


def test_a_thread_of_the_program_itself_may_be_its_training():
    own = '  File "/app/train.py", line 9, in train\n    fit()\n'
    assert uncaught("epoch 2 accuracy=0.9\n" + IN_THREAD.format(own)).outcome is Outcome.FAILED


@pytest.mark.parametrize("text", ["MemoryError\n", "Killed\n", "ValueError: found NaN in loss column\n"])
def test_what_prepares_a_training_has_no_batch_in_its_memory(text):
    found = find_cause([ProcessLog(text, 1, "p", "n", "init container fetch")])
    assert (found.outcome, found.preparer) == (Outcome.FAILED, "init container fetch")
    assert find_cause([ProcessLog(OOM, 1, "p", "n")]).outcome is Outcome.OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "ResourceExhaustedError: Graph execution error:\n\nNode: 'conv'\nOOM when allocating tensor\n",
            "ResourceExhaustedError: Graph execution error: OOM when allocating tensor",
        ),
        (
            "ValueError: to satisfy the constraint Real(), but found invalid values:\ntensor([nan])\n",
            "ValueError: to satisfy the constraint Real(), but found invalid values: tensor([nan])",
        ),
        ("RuntimeError: Failed to open a shard:\nConnection reset by peer\n", "Connection reset by peer"),
    ],
)
def test_an_error_whose_first_line_only_introduces_it_is_shown_with_the_rest(message, said):
    found = cause(("Traceback (most recent call last):\n  File 't.py', line 1\n" + message, 1))
    assert found.outcome is not Outcome.FAILED
    assert found.line == said


@pytest.mark.parametrize("call", ["torch._C._cuda_setDevice(device)", "torch._C._cuda_init()"])
def test_memory_that_lacks_when_the_device_is_opened_is_held_by_others(call):
    log = (
        f'Traceback (most recent call last):\n  File "t.py", line 9, in f\n    {call}\n'
        "torch.AcceleratorError: CUDA error: out of memory\n"
    )
    assert cause((log, 1)).outcome is Outcome.LOST
    # A process that begins beside the training may lack what the training has taken.
    assert cause(("step 100 loss 0.3\n" + log, 1)).outcome is Outcome.OUT_OF_MEMORY
    in_training = log.replace(call, "loss.backward()")
    assert cause((in_training, 1)).outcome is Outcome.OUT_OF_MEMORY


@pytest.mark.parametrize(
    "end",
    [
        "Received SIGTERM, saving checkpoint and exiting\nsaved /out/last.pt\n",
        "[rank0]: Received SIGTERM\n[rank1]: Received SIGTERM\nstep 9 loss 0.4\nsaved last.pt\n",
        BUG + "no plots, ignored\n" + "epoch 2 accuracy=0.5\n" * 4 + "Received SIGTERM, saving checkpoint\n",
        "WARNING spot interruption notice received\ncheckpoint written to /out/last.pt\nexiting\n",
    ],
)
def test_a_training_that_a_signal_ended_early_is_lost_although_it_exits_with_0(end):
    found = uncaught("epoch 1 accuracy=0.4\n" + end)
    assert found is not None
    assert found.outcome is Outcome.LOST
    assert "receive" in found.line.lower()


@pytest.mark.parametrize(
    "log",
    [
        "epoch 1 accuracy=0.4\nTensorBoard caught SIGTERM; exiting...\n",
        "epoch 1 accuracy=0.4\n(raylet) received SIGTERM, shutting down\nTraining completed\n",
        "epoch 1 accuracy=0.4\nTraining finished\nworker received SIGTERM, saving its state\n",
        "Received SIGUSR1, saving checkpoint\n" + "epoch 1 accuracy=0.4\n" * 4,
        "epoch 1 accuracy=0.4\nif SIGTERM is received, a checkpoint is saved\n",
    ],
)
def test_a_signal_that_ended_no_training_is_no_loss(log):
    assert uncaught(log) is None


def test_a_bar_that_is_drawn_after_the_words_that_nan_ends_the_run_shows_no_progress():
    bar = "33/782 ━━━━ 2s 60ms/step - accuracy: 0.0977 - loss: nan\n"
    found = uncaught("epoch 1 accuracy=0.1\nBatch 33: Invalid loss, terminating training\n" + bar)
    assert found is not None
    assert found.outcome is Outcome.DIVERGED
    assert uncaught("Batch 33: Invalid loss, terminating training\n" + bar.replace("nan", "0.4")) is None


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        ("Training failed: CUDA out of memory. Tried to allocate 2.00 GiB.\n", Outcome.OUT_OF_MEMORY),
        ("2026-01-01 10:00:00 - train - ERROR - Training failed: 'label'\n", Outcome.FAILED),
        ("NCCL error: unhandled system error\nTraining aborted\nwandb: Run summary:\n", Outcome.LOST),
        ("Error during training: NCCL error: unhandled system error\n", Outcome.LOST),
        ("Error in training: 0.12\n", None),
        ("Training failed to improve for 3 epochs, stopping\n", None),
        ("Training aborted early by EarlyStopping\n", None),
        ("mean error of a training failed to shrink\n", None),
        ("export failed: CUDA out of memory. Tried to allocate 2.00 GiB.\n", None),
        ("Training failed: loss is nan\nepoch 2 accuracy=0.4\n", None),
    ],
)
def test_a_program_whose_last_words_are_that_its_training_failed_has_failed(end, outcome):
    found = uncaught("epoch 1 accuracy=0.4\n" + end)
    assert (found and found.outcome) is outcome


LAST_WORDS = (
    "mpirun noticed that process rank 2 with PID 0 on node w-1 exited on signal 11 (Segmentation fault).\n",
    "=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES\n=   EXIT CODE: 1\n=   CLEANING UP\n",
    "srun: error: gpu-12: task 3: Exited with exit code 1\nsrun: error: gpu-12: tasks 0-2: Terminated\n",
    "srun: error: gpu-12: tasks 1,3: Segmentation fault (core dumped)\n",
    "ERROR:composer.cli.launcher:Rank 1 crashed with exit code 1.\nGlobal rank 1 exited with code 1\n",
    "[rank: 1] Child process with PID 221 terminated with code -11. Forcefully terminating all\n",
    (
        "Process 1 exit with status code 1.\nTraceback (most recent call last):\n  File 'h.py', line 8\n"
        "RuntimeError: Horovod detected that one or more processes exited with non-zero status\nExit: 1\n"
    ),
    "Traceback (most recent call last):\n  File 'a.py', line 8\nRuntimeError: rank 1 exited with code 1\n",
)


@pytest.mark.parametrize("words", LAST_WORDS)
def test_the_last_words_of_a_launcher_show_a_failure_that_a_pipe_hides(words):
    found = uncaught("epoch 1 accuracy=0.4\n" + words)
    assert found is not None
    assert found.outcome is Outcome.FAILED
    found = uncaught("epoch 1 accuracy=0.4\n" + OOM + words)
    assert found is not None
    assert found.outcome is Outcome.OUT_OF_MEMORY
    assert uncaught(words + "epoch 2 accuracy=0.5\n") is None


@pytest.mark.parametrize(
    "log",
    [
        "epoch 1 accuracy=0.4\nChild process with PID 221 terminated with code -15\n",
        "epoch 1 accuracy=0.4\nsrun: error: gpu-12: tasks 0-2: Terminated\n",
        "epoch 1 accuracy=0.4\nrun.sh: line 20:    33 Killed                  nvidia-smi dmon > gpu.log\n",
        "epoch 1 accuracy=0.4\n2 workers failed to load an image, and loaded the next\n",
    ],
)
def test_a_process_that_is_ended_at_the_end_of_a_run_is_no_failure(log):
    assert uncaught(log) is None


def test_a_signal_that_a_launcher_sends_after_an_error_hides_it_behind_no_pipe():
    log = "[rank1]: " + OOM_RAISED.replace("\n", "\n[rank1]: ").removesuffix("[rank1]: ")
    found = uncaught("epoch 1 accuracy=0.4\n" + log + "[rank0]: Received SIGTERM, saving checkpoint\n")
    assert found is not None
    assert found.outcome is Outcome.OUT_OF_MEMORY
