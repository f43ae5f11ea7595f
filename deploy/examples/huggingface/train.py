"""Train a small vision transformer on scikit-learn's digits with Hugging Face's Trainer.

The only line for the autotuner is the callback: it sets the trial's batch size, learning rate and every other
hyperparameter that is named like a training argument, and reports what `Trainer` logs. Without the tuner, the
script trains with the arguments given here.
"""

from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from transformers import EvalPrediction, Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

from autotuner.train.callbacks.huggingface import HuggingFaceCallback


def samples() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return training and test samples; the split is the same in every run."""
    digits = load_digits()
    pixels = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 6 - 0.8
    everything = [
        {"pixel_values": image, "labels": label}
        for image, label in zip(pixels, digits.target.tolist(), strict=True)
    ]
    train, test = train_test_split(everything, test_size=0.25, random_state=0, stratify=digits.target)
    return train, test


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Return the metric; `Trainer` puts `eval_` before its name."""
    return {"accuracy": float((prediction.predictions.argmax(1) == prediction.label_ids).mean())}


def main() -> None:
    """Train, evaluating after each epoch."""
    torch.set_num_threads(1)
    args = TrainingArguments(
        output_dir="/tmp/digits-vit",  # noqa: S108 (nothing is saved)
        num_train_epochs=15,
        per_device_train_batch_size=32,
        learning_rate=3e-3,
        warmup_steps=0.1,  # less than one: a fraction of the run, so it fits every batch size
        lr_scheduler_type="cosine",
        eval_strategy="epoch",
        logging_strategy="epoch",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    tuner = HuggingFaceCallback(args)  # before the model, so that its weights follow the trial's seed
    model = ViTForImageClassification(
        ViTConfig(
            image_size=8,
            patch_size=2,
            num_channels=1,
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_labels=10,
        )
    )
    train, test = samples()
    Trainer(
        model=model,
        args=args,
        train_dataset=train,
        eval_dataset=test,
        compute_metrics=accuracy,
        callbacks=[tuner],
    ).train()


if __name__ == "__main__":
    main()
