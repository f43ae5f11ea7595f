"""The code that the README shows for a training script is one that trains."""

import json
import re
import runpy
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

README = Path(__file__).parents[3] / "README.md"


def test_the_training_loop_of_the_readme_trains_and_reports(tmp_path, capsys, monkeypatch):
    torch.manual_seed(0)
    inputs = torch.randn(512, 4)
    labels = (inputs.sum(1) > 0).long()
    names = {
        "DataLoader": DataLoader,
        "Network": lambda: nn.Linear(4, 2),
        "data": TensorDataset(inputs, labels),
        "loss": lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1]),
        "evaluate": lambda model: (model(inputs).argmax(1) == labels).float().mean(),
    }
    for name, value in {"EPOCHS": 4, "OPTIMIZER": "lamb", "WARMUP": 0.1, "BATCH_SIZE": 64}.items():
        monkeypatch.setenv(f"AUTOTUNER_{name}", str(value))
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    script = tmp_path / "train.py"
    script.write_text(code)
    runpy.run_path(str(script), names)
    written = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    reports = [line for line in written if "reads" not in line]
    assert [report["step"] for report in reports] == [1, 2, 3, 4]
    assert reports[-1]["accuracy"] > 0.9
    assert reports[-1]["samples_per_second"] > 0
