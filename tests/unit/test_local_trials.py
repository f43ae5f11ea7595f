"""Reading a local trial from the files in its folder."""

from __future__ import annotations

import json

from autotuner.backends.local import supervisor
from autotuner.backends.local.trials import SUGGESTION, TrialReader
from autotuner.study.suggestions import encode_suggestion
from autotuner.trial import Outcome
from tests.builders import spec, suggestion


def test_a_long_log_is_read_in_parts_and_the_trial_ends_when_it_is_read(tmp_path):
    folder = tmp_path / "0"
    folder.mkdir()
    about = {"suggestion": json.loads(encode_suggestion(suggestion(0))), "devices": 1, "template": ""}
    (folder / SUGGESTION).write_text(json.dumps(about))
    (folder / supervisor.PODS).write_text(json.dumps([{"name": "master", "environment": {}}]))
    ending = {"exit_code": 0, "pod": "master", "started_at": 0, "ended_at": 60}
    (folder / supervisor.ENDING).write_text(json.dumps(ending))
    noise = ("#" * 99_999 + "\n") * 100  # 10 MB
    (folder / "master.log").write_text(f"val_accuracy=0.5 epoch=1\n{noise}val_accuracy=0.6 epoch=2\n")

    reader, parts = TrialReader(tmp_path, lambda _: False), []
    for _ in range(10):
        parts.append(reader.read(spec(target="val_accuracy >= 0.9", search_space=None), folder))
        if parts[-1].outcome is not None:
            break
    assert len(parts) > 2
    assert [len(trial.measurements) for trial in parts] == [1] * (len(parts) - 1) + [2]
    assert [trial.outcome for trial in parts] == [None] * (len(parts) - 1) + [Outcome.MISSED]
