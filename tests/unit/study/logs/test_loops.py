"""What the lengths of a log's loops show of the batch that is trained."""

from __future__ import annotations

import math

import pytest

from autotuner.study.finding import Reason
from autotuner.study.findings.proof import findings
from autotuner.study.logs.log_reader import LogReader
from autotuner.study.logs.loops import LoopLengths, follows_batch, loop_doubts
from autotuner.trial import Outcome
from tests.builders import spec as spec_of
from tests.builders import suggestion, trial

SAMPLES, VALIDATION, EPOCHS = 25_000, 40, 30


def run(number, asked, trained=None, *, loops=None, **changed):
    """Return an ended run whose log shows its epochs, its validation and its loop over the data."""
    shown = (EPOCHS, VALIDATION, math.ceil(SAMPLES / (trained or asked))) if loops is None else loops
    tried = suggestion(number, batch_size=asked, **changed)
    return trial(number, outcome=Outcome.REACHED, tried=tried, loops=tuple(sorted(shown)))


@pytest.mark.parametrize(
    "line",
    [
        "Epoch: [3][{i}/391]\tTime 0.4 (0.5)\tLoss 2.1 (2.3)",
        "Train: 3 [ {i}/391 ( 25%)]  Loss: 2.1",
        "Epoch 3/30 Step {i}/391 loss 2.1",
        " 25%|██▌       | {i}/391 [00:10<00:30,  9.70it/s]",
        "{i}/391 [=====>......] - ETA: 10s - loss: 2.1",
        "INFO Epoch(train) [3][{i}/391]  lr: 1e-2",
        "epoch: 3, iter: {i}/391, loss: 2.1",
    ],
)
def test_the_length_of_a_loop_over_the_data_is_read(line):
    found = LoopLengths()
    for i in (1, 100, 200):
        found.note(line.format(i=i))
    assert 391 in found.lengths


@pytest.mark.parametrize(
    "line",
    [
        "2026/11/{i} 10:00:00 loss 0.3",
        "saved to /data/run/{i}/391",
        "ratio 0.{i}/391",
        "at {i}/391.5",
        "eta 3/{i}",
        "lr 1e-{i}/391",
        "{i}/391abc",
    ],
)
def test_what_is_no_progress_is_no_loop(line):
    found = LoopLengths()
    for i in (11, 12, 13):
        found.note(line.format(i=i))
    assert found.lengths == ()


def test_a_loop_that_does_not_advance_is_none_and_few_are_kept():
    found = LoopLengths()
    for _ in range(3):
        found.note("fold 1/5")
    assert found.lengths == ()
    for i in range(1, 500):
        found.note(f"{i}/{1000 + i % 90}")
    assert len(found.lengths) == 8


def test_a_log_has_the_loops_of_its_run():
    reader = LogReader(spec_of().target)
    lines = [f"Epoch {e}/2 [{i}/391]\nval_accuracy=0.5 epoch={e}\n" for e in (1, 2) for i in (100, 391)]
    reader.feed("".join(lines))
    assert reader.loops == (2, 391)


def test_loops_in_proportion_show_the_batch():
    runs = [run(0, 64), run(1, 512), run(2, 1000)]
    assert loop_doubts(runs) == []
    assert follows_batch(runs, runs[1])
    assert follows_batch(runs, runs[2])


@pytest.mark.parametrize(
    ("asked", "trained"), [(2048, 512), (2048, 1024), (512, 128), (512, 2048), (4096, 100)]
)
def test_another_batch_than_the_one_asked_for_is_told(asked, trained):
    runs = [run(0, 64), run(1, asked, trained)]
    (found,) = loop_doubts(runs)
    assert found.reason is Reason.BATCH_NOT_FOLLOWED
    assert found.trials == (0, 1)
    said = float(found.message.split("as with a batch size of ")[1].split(";")[0])
    assert said == pytest.approx(trained, rel=0.1)
    assert not follows_batch(runs, runs[1])
    assert found in findings(runs, 1)


@pytest.mark.parametrize("batch", [128, 192, 256, 512])
def test_a_loop_over_several_epochs_of_which_each_drops_its_last_batch_is_in_proportion(batch):
    # total_steps = 10 * (3000 // batch_size): 460 at 64, and 110 at 256, as if that were 268.
    runs = [run(0, 64, loops=(460,)), run(1, batch, loops=(10 * (3000 // batch),))]
    assert loop_doubts(runs) == []
    assert len(loop_doubts([runs[0], run(1, 2 * batch, loops=(10 * (3000 // batch),))])) == 1


def test_all_loops_that_change_must_agree():
    runs = [run(0, 64, loops=(30, 391, 11_730)), run(1, 2048, loops=(30, 49, 1470))]
    assert len(loop_doubts(runs)) == 1
    assert loop_doubts([runs[0], run(1, 2048, loops=(30, 49, 9000))]) == []
    assert loop_doubts([runs[0], run(1, 2048, loops=(30, 49))]) == []


@pytest.mark.parametrize("after", [(781, 1562, 390), (781, 390, 195), (390, 195, 97)])
def test_a_batch_that_grows_during_a_run_has_a_loop_of_each_size(after):
    batch = {390: 128, 195: 256, 97: 512}[min(after)]
    runs = [run(0, 64, loops=(3125, 1562, 781)), run(1, batch, loops=after)]
    assert loop_doubts(runs) == []


@pytest.mark.parametrize(
    ("before", "after", "parameters"),
    [
        ((30, 391), (30, 391), {}),  # optimizer steps of a fixed number, or samples
        ((30, 391), (30,), {}),  # too short to advance
        ((30, 391), (30, 3), {}),  # processes round
        ((30, 391), (), {}),
        ((10,), (20,), {"epochs": 20}),
        ((391,), (13,), {}),
        ((390,), (12,), {}),  # without the last batch
    ],
)
def test_what_may_be_otherwise_is_not_told(before, after, parameters):
    tried = {"learning_rate": 0.1, **parameters}
    first = run(0, 64, loops=before, parameters={"learning_rate": 0.1, **dict.fromkeys(parameters, 10)})
    assert loop_doubts([first, run(1, 2048, loops=after, parameters=tried)]) == []


def test_an_iteration_of_a_loop_takes_a_part_of_the_batch_that_is_accumulated():
    layout = {"micro_batch_size": 64, "accumulation_steps": 8}
    runs = [run(0, 64), run(1, 1024, 128, **layout | {"micro_batch_size": 128})]
    assert loop_doubts(runs) == []
    assert loop_doubts([run(0, 64), run(1, 512, 64, **layout)]) == []


def test_similar_batch_sizes_are_not_compared():
    assert loop_doubts([run(0, 64), run(1, 80, 32)]) == []


def test_a_running_trial_is_not_judged():
    runs = [run(0, 64), run(1, 2048, 512)]
    running = trial(1, outcome=None, tried=runs[1].suggestion, loops=runs[1].loops)
    assert loop_doubts([runs[0], running]) == []
