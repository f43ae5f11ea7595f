"""The names of the log formats that `autotuner.study.formats` reads; a test keeps the two in agreement."""

from __future__ import annotations

from typing import Final

LOG_FORMATS: Final = frozenset(
    {
        "auto",
        "katib",
        "mlperf",
        "dllogger",
        "nested-json",
        "json",
        "model-checkpoint",
        "olmo",
        "fairseq",
        "megatron",
        "litgpt",
        "mnist",
        "meters",
        "coco",
        "table",
        "tqdm",
        "rich",
        "keras",
        "key-value",
        "huggingface",
        "lightning",
        "nemo",
        "timm",
        "torchvision",
        "imagenet",
        "gpt-neox",
        "ultralytics",
        "detectron2",
        "mmengine",
        "nanogpt",
        "torchtune",
        "composer",
        "nnunet",
        "fastai",
        "csv",
        "transfer-learning",
    }
)
"""Values of the annotation `log-format`."""
