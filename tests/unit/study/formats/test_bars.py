"""Progress bars that are redrawn: a value counts once, at the epoch of its evaluation."""

import pytest

from autotuner.spec.target import parse_target
from autotuner.study.logs.log_reader import LogReader


def read(log: str, target: str = "val_acc >= 0.9") -> list[list[float]]:
    """Return the measurements of a log; fail on a doubt, and on a poll that shows what the end does not."""
    reader = LogReader(parse_target(target))
    polled: set[tuple[float, float]] = set()
    for line in log.splitlines(keepends=True):
        reader.feed(line)
        polled |= {(m.step, m.value) for m in reader.measurements}
    reader.close()
    assert reader.doubt is None
    measured = [(m.step, m.value) for m in reader.measurements]
    assert polled <= set(measured)
    return [list(each) for each in measured]


def tqdm(epoch: int, count: int, shown: str = "") -> str:
    """Return Lightning's bar of the training."""
    percent, values = 100 * count // 4, f", train_loss=0.5{shown}"
    return f"Epoch {epoch}: {percent:3}%|####      | {count}/4 [00:00<00:00, 200.0it/s{values}]"


def rich(epoch: int, count: int, shown: str = "") -> str:
    """Return Lightning's bar with rich, and the values below it."""
    values = "".join(f"{' ' * 60}{value}\n" for value in ("train_loss: 0.5", *shown.split()))
    return f"Epoch {epoch}/3  ━━━━━━━━━━━━━━━━ {count}/4 0:00:00 • 0:00:00 200.0it/s v_num: 0\n" + values


VALIDATION = (
    "\rValidation: |          | 0/? [00:00<?, ?it/s]\rValidation DataLoader 0: 100%|####| 2/2 [00:00<00:00]"
)
RICH_VALIDATION = "Validation ━━━━╺━━━━━━━━━━━ 1/2   0:00:00 • 0:00:01 634.51it/s\n"


def epoch_of(number: int, before: str, after: str) -> str:
    """Return the bars of one epoch; without a value after it, it ends without a validation."""
    bars = [tqdm(number, count, before) for count in range(5)]
    evaluated = (
        [VALIDATION.removeprefix("\r"), tqdm(number, 4, after), tqdm(number, 4, after)] if after else []
    )
    return "\r".join([*bars, *evaluated]) + "\r"


def test_an_epoch_without_an_evaluation_does_not_repeat_the_value_of_the_last_one():
    one, two = ", val_acc=0.506", ", val_acc=0.474"
    log = epoch_of(0, "", "") + epoch_of(1, "", one) + epoch_of(2, one, "") + epoch_of(3, one, two)
    assert read(log + epoch_of(4, two, "") + "\n") == [[1, 0.506], [3, 0.474]]


def test_an_evaluation_with_the_value_of_the_last_one_counts():
    one = ", val_acc=0.506"
    assert read(epoch_of(0, "", one) + epoch_of(1, one, one) + "\n") == [[0, 0.506], [1, 0.506]]


def test_the_end_of_an_epoch_does_not_repeat_the_value_of_an_evaluation_within_it():
    log, shown = "", ""
    for epoch, values in enumerate([(0.196, 0.254), (0.468, 0.466)]):
        log += tqdm(epoch, 0, shown) + "\r"
        for count, value in zip((1, 3), values, strict=True):
            log += tqdm(epoch, count, shown) + VALIDATION + "\r"
            shown = f", val_acc={value}"
            log += "\r".join(tqdm(epoch, each, shown) for each in (count, count + 1)) + "\r"
    assert read(log + "\n") == [[0.25, 0.196], [0.75, 0.254], [1.25, 0.468], [1.75, 0.466]]


def test_a_bar_of_the_whole_run_counts_each_value_between_lines_that_name_epochs():
    log = ""
    for epoch, value in enumerate([0.334, 0.446, 0.532]):
        for count in range(4 * epoch, 4 * epoch + 4):
            log += f" 20%|##        | {count}/12 [00:00<00:00, 769.12it/s, loss=2.27]\r"
        log += f" 20%|##        | {4 * epoch + 4}/12 [00:00<00:00, 769.12it/s, loss=2.27, val_acc={value}]\r"
        log += f"epoch {epoch} is over\n"
    assert read(log) == [[4, 0.334], [8, 0.446], [12, 0.532]]


@pytest.mark.parametrize("name", ["val_acc", "acc"])
def test_the_first_bar_of_an_epoch_shows_the_value_of_the_epoch_before(name):
    values = ["", f"{name}: 0.246", f"{name}: 0.526", f"{name}: 0.522"]
    log = ""
    for epoch, value in enumerate(values):
        log += "".join(rich(epoch, count, value) for count in (0, 2, 4)) + RICH_VALIDATION
    log += rich(3, 4, f"{name}: 0.464")
    assert read(log, f"{name} >= 0.9") == [[0, 0.246], [1, 0.526], [2, 0.522], [3, 0.464]]


def test_a_value_that_changes_with_the_batches_counts_with_the_last_one_of_the_epoch():
    log = ""
    for epoch, losses in enumerate([(2.3, 2.1, 2.1), (1.9, 1.7, 1.6), (1.5, 1.5, 1.5)]):
        for count, loss in enumerate(losses, start=2):
            log += rich(epoch, count, f"loss: {loss}")
        log += rich(epoch, 4, f"loss: {losses[-1]}") + RICH_VALIDATION
        log += rich(epoch + 1, 0, f"loss: {losses[-1]}")
    assert read(log, "loss <= 1") == [[0, 2.1], [1, 1.6], [2, 1.5]]


def test_equal_values_of_two_epochs_count_where_a_bar_of_the_validation_is_between_them():
    log = rich(0, 0) + rich(0, 4) + RICH_VALIDATION
    for epoch in (1, 2):
        log += rich(epoch, 0, "val_acc: 0.246") + rich(epoch, 4, "val_acc: 0.246") + RICH_VALIDATION
    assert read(log + rich(2, 4, "val_acc: 0.464")) == [[0, 0.246], [1, 0.246], [2, 0.464]]


def test_the_check_before_the_training_is_no_evaluation():
    checked = "val_acc: 0.141"
    log = rich(0, 0) + rich(0, 0, checked) + rich(0, 2, checked) + rich(0, 4, checked) + RICH_VALIDATION
    log += rich(1, 0, "val_acc: 0.246") + rich(1, 4, "val_acc: 0.246") + RICH_VALIDATION
    assert read(log + rich(1, 4, "val_acc: 0.526")) == [[0, 0.246], [1, 0.526]]


def test_a_value_that_changes_within_an_epoch_counts_there():
    log = ""
    for epoch, (before, within) in enumerate([("", "val_acc: 0.196"), ("val_acc: 0.254", "val_acc: 0.468")]):
        log += rich(epoch, 0, before) + rich(epoch, 2, before) + RICH_VALIDATION
        log += rich(epoch, 3, within) + rich(epoch, 4, within) + RICH_VALIDATION
    log += rich(1, 4, "val_acc: 0.466")
    assert read(log) == [[0.75, 0.196], [1.0, 0.254], [1.75, 0.468], [2.0, 0.466]]


def test_a_bar_that_is_drawn_once_at_the_end_counts_there():
    assert read(rich(3, 4, "val_acc: 0.464")) == [[3, 0.464]]


@pytest.mark.parametrize(("epochs_drawn", "is_warned"), [((3,), True), ((0,), False), ((0, 1, 2, 3), False)])
def test_a_bar_that_shows_the_last_of_several_epochs_alone_is_warned_about(epochs_drawn, is_warned):
    reader = LogReader(parse_target("val_acc >= 0.9"))
    reader.feed("".join(rich(epoch, 4, f"val_acc: 0.4{epoch}") for epoch in epochs_drawn))
    reader.close()
    assert [each for each in reader.warnings if "only the last value" in each] == list(reader.warnings)
    assert bool(reader.warnings) is is_warned


@pytest.mark.parametrize("name", ["Train eval", "Training set evaluation", "train_eval"])
def test_a_bar_of_an_evaluation_of_the_training_set_is_of_the_training(name):
    log = ""
    for epoch in (1, 2):
        for each, value in ((name, 0.95), ("Val eval", [0.81, 0.82][epoch - 1])):
            log += f"Epoch {epoch} {each}: [4/4] 100%|####, accuracy={value} [00:00<00:00]\n"
            log += f"{each}: [3/4]  75%|### , accuracy={value} [00:00<00:00]\r"
            log += f"{each}: [4/4] 100%|####, accuracy={value} [00:00<00:00]\n"
    assert read(log, "accuracy >= 0.9") == [[1, 0.81], [2, 0.82]]


def epochs(count: int, shown: str) -> str:
    """Return the bar of a loop over epochs."""
    return f"Epochs: {20 * count:3}%|##        | {count}/5 [00:00<00:00,  4.37it/s{shown}]\r"


@pytest.mark.parametrize("inner", ["", "\nEpoch {}/5: 100%|####| 13/13 [00:00<00:00, 57.1it/s, acc=0.97]\n"])
@pytest.mark.parametrize("name", ["val_acc", "acc"])
def test_a_bar_that_counts_epochs_shows_the_value_of_the_last_one_until_the_next(name, inner):
    values = [0.342, 0.456, 0.456, 0.57, 0.57]
    shown = ["", *(f", {name}={value}" for value in values)]
    log = epochs(0, "")
    for epoch in range(5):
        log += (inner if name == "val_acc" else inner.replace("acc=", "loss=")).format(epoch + 1)
        log += epochs(epoch, shown[epoch + 1]) + epochs(epoch + 1, shown[epoch + 1])
    assert read(log + epochs(5, shown[5]) + "\n", f"{name} >= 0.9") == [[n, v] for n, v in enumerate(values)]
