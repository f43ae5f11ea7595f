"""A small training by Hugging Face's Trainer that writes no metric anywhere."""

import contextlib
import io
import os

import torch
from torch import nn
from transformers import Trainer, TrainingArguments


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, inputs, labels):
        logits = self.linear(inputs)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def dataset(count):
    inputs = torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
    return [{"inputs": row, "labels": int(row.sum() > 0)} for row in inputs]


def accuracy(prediction):
    return {"accuracy": float((prediction.predictions.argmax(1) == prediction.label_ids).mean())}


torch.manual_seed(int(os.environ.get("AUTOTUNER_SEED", "0")))
options = TrainingArguments(
    output_dir="out",
    num_train_epochs=2,
    per_device_train_batch_size=int(os.environ.get("AUTOTUNER_BATCH_SIZE", "8")),
    learning_rate=float(os.environ.get("AUTOTUNER_LEARNING_RATE", "0.1")),
    seed=int(os.environ.get("AUTOTUNER_SEED", "0")),
    eval_strategy="epoch",
    save_strategy="no",
    disable_tqdm=True,
    use_cpu=True,
)
with contextlib.redirect_stdout(io.StringIO()):
    Trainer(
        Classifier(),
        options,
        train_dataset=dataset(64),
        eval_dataset=dataset(16),
        compute_metrics=accuracy,
    ).train()
