"""`workers` and `micro-batch-size`: what a batch runs in, and what running out of memory teaches."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.end_to_end.programs import Place

# Every process tells how it was started, and waits until all have: the end of the first one, and any failure,
# end the trial.
# More than 24 samples at once do not fit into the memory of any.
PROGRAM = """
import json, os, sys, time
from pathlib import Path

number, rank, count = (int(os.environ[name]) for name in ("AUTOTUNER_TRIAL", "RANK", "WORLD_SIZE"))
batch = int(os.environ["AUTOTUNER_BATCH_SIZE"])
micro = int(os.environ.get("AUTOTUNER_MICRO_BATCH_SIZE", batch // count))
steps = int(os.environ.get("AUTOTUNER_ACCUMULATION_STEPS", 1))
told = Path("told")
told.mkdir(exist_ok=True)
draft = told / f"{number}-{rank}.draft"
draft.write_text(json.dumps([batch, count, micro, steps]))
draft.rename(told / f"{number}-{rank}.json")
while len(list(told.glob(f"{number}-*.json"))) < count:
    time.sleep(0.02)
if micro > 24:
    sys.exit("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total ...")
if rank == 0:
    print(f"accuracy=1 epoch=5 samples_per_second={100 * count}")
"""


def told(place: Place, number: int) -> tuple[list[int], list[Any]]:
    """Return the ranks of a trial that ran, and what all of them were told, which must be the same."""
    files = sorted((place.folder / "told").glob(f"{number}-*.json"))
    texts = {file.read_text() for file in files}
    assert len(texts) == 1
    return [int(file.stem.split("-")[1]) for file in files], json.loads(texts.pop())


def test_processes_and_micro_batches_follow_the_layout_and_what_memory_has_taught(place: Place):
    asked = {"batch_size": "16..128", "workers": "1..3", "micro_batch_size": "4..64"}
    ran = place.run("tune", place.write(PROGRAM, asked=asked, workers=1).name)
    assert ran.code == 0, ran.err

    # Batch size, processes, and what each of them takes at once and how often.
    assert told(place, 0) == ([0, 1], [32, 2, 16, 1]), "the job unchanged"
    assert told(place, 1) == ([0, 1], [64, 2, 32, 1])
    # That did not fit: the same batch in smaller pieces, for which more workers are taken first.
    assert told(place, 2) == ([0, 1, 2, 3], [64, 4, 16, 1])
    assert told(place, 3) == ([0, 1, 2, 3], [128, 4, 16, 2])
    assert told(place, 4) == ([0, 1, 2, 3], [128, 4, 16, 2])
    trials = place.trials()
    assert [trial["outcome"] for trial in trials] == ["reached", "out_of_memory", *["reached"] * 3]
    assert "CUDA out of memory" in trials[1]["message"]
    assert trials[1]["parameters"] == trials[2]["parameters"]
    assert trials[1]["seed"] == trials[2]["seed"]
    laid_out = [(t["workers"], t["micro_batch_size"], t["accumulation_steps"]) for t in trials]
    assert laid_out == [(None, None, None), (1, 32, 1), (3, 16, 1), (3, 16, 2), (3, 16, 2)]

    # Shown wherever a person looks.
    shown = f"learning_rate {trials[3]['parameters']['learning_rate']:.4g}, workers 3, micro-batch 16 x 2"
    assert f"trial 3 starts: search, batch size 128, {shown}" in ran.out
    assert f"largest batch size 128 with {shown}" in ran.out
    listed = place.run("trials", "toy-tuning").out.splitlines()
    assert "workers 3, micro-batch 16 x 2" in listed[4]
    assert place.run("report", "toy-tuning").code == 0
    page = (place.folder / "report.html").read_text()
    assert "workers 3, micro-batch 16 x 2" in page
    # One line of the throughput for two processes, and one for four.
    assert "2 processes" in page
    assert "4 processes" in page


@pytest.mark.parametrize(
    ("asked", "workers", "processes", "micro_batch", "steps"),
    [
        # Workers are added so that a process takes no more than it does at the baseline, while there are any.
        ({"workers": "1..3"}, 1, 4, 16, 1),
        ({"micro_batch_size": "1..8"}, 0, 1, 8, 8),
    ],
)
def test_each_of_the_two_works_alone(
    place: Place, asked: dict[str, str], workers: int, processes: int, micro_batch: int, steps: int
):
    env = [
        {"name": "AUTOTUNER_BATCH_SIZE", "value": "16"},
        {"name": "AUTOTUNER_LEARNING_RATE", "value": "0.1"},
    ]
    file = place.write(PROGRAM, asked={"batch_size": "16..64", **asked}, env=env, workers=workers)
    ran = place.run("tune", file.name, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["batch_size"] == 64
    last = place.trials()[-1]["number"]
    assert told(place, last) == (list(range(processes)), [64, processes, micro_batch, steps])
