"""The known log formats, by name.

With `autotuner.dev/log-format: auto`, each line is passed to the readers in the order of `READERS`, the most
specific first; a line belongs to the first reader that recognises it. So a log may mix formats, as most do.
The name of a framework selects the readers of all the formats that it prints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from autotuner.study.formats import bars, language_models, meters, records, tables, text
from autotuner.study.formats.reading import Format, Metric, Reader

AUTO: Final = "auto"

READERS: Final[tuple[Format, ...]] = (
    records.KATIB,
    records.MLPERF,
    records.DLLOGGER,
    records.NESTED,
    records.DICTIONARY,
    bars.CHECKPOINT,
    language_models.OLMO,
    language_models.FAIRSEQ,
    language_models.MEGATRON,
    language_models.LITGPT,
    meters.MNIST,
    meters.METERS,
    tables.COCO,
    tables.TABLE,
    bars.TQDM,
    bars.RICH,
    bars.KERAS,
    text.FORMAT,
)
"""The readers, in the order in which they get a line."""

RICH: Final = bars.RICH.name
TABLE: Final = tables.TABLE.name
TEXT: Final = text.FORMAT.name
STRUCTURED: Final = frozenset(
    known.name
    for known in (
        records.DICTIONARY,
        records.NESTED,
        records.DLLOGGER,
        records.MLPERF,
        bars.KERAS,
        language_models.FAIRSEQ,
        language_models.MEGATRON,
        meters.METERS,
        meters.MNIST,
    )
)
"""Formats of programs that print every measurement in them: free text between them is a remark."""

FRAMEWORKS: Final[dict[str, tuple[str, tuple[Format, ...]]]] = {
    "huggingface": (
        "Transformers, Accelerate, Sentence Transformers: dictionaries, tables, `***** eval metrics *****`",
        (records.NESTED, records.DICTIONARY, tables.TABLE, text.FORMAT),
    ),
    "lightning": (
        "Lightning and NeMo: bars of tqdm and rich, ModelCheckpoint's lines, tables of validate and test",
        (bars.CHECKPOINT, bars.TQDM, bars.RICH, tables.TABLE, text.FORMAT),
    ),
    "nemo": ("NeMo: bars and ModelCheckpoint's lines", (bars.CHECKPOINT, bars.TQDM, bars.RICH, text.FORMAT)),
    "timm": ("timm: `Test: [12/12]  Acc@1: 99.671 (53.050)`", (meters.METERS,)),
    "torchvision": (
        "torchvision's references: meters, `Test:  Acc@1 76.1`, COCO",
        (meters.METERS, tables.COCO),
    ),
    "imagenet": ("PyTorch's ImageNet example: ` * Acc@1 76.130 Acc@5 92.862`", (meters.METERS,)),
    "gpt-neox": (
        "GPT-NeoX: `validation results at iteration 10 | lm_loss value: 1.04E+01 |`",
        (language_models.MEGATRON,),
    ),
    "ultralytics": ("Ultralytics YOLO: the validation table's row `all`", (tables.TABLE,)),
    "detectron2": ("detectron2: tables and `copypaste:` lines", (tables.TABLE,)),
    "mmengine": (
        "MMEngine, MMDetection, MMPretrain: `Epoch(val) [11][10]  bbox_mAP: 0.3640`",
        (records.DICTIONARY, text.FORMAT),
    ),
    "nanogpt": ("nanoGPT: `step 3000: train loss 4.0390, val loss 4.0427`", (text.FORMAT,)),
    "torchtune": ("torchtune: `1|25|Loss: 1.5: 10%|#` and `Step 25 | loss:1.5`", (bars.TQDM, text.FORMAT)),
    "composer": (
        "Composer: `[epoch=1][batch=50/50]:`, then `Eval metrics/eval/Accuracy: 0.9`",
        (text.FORMAT,),
    ),
    "nnunet": ("nnU-Net: `Epoch 195`, then `val_loss -0.771`, `Pseudo dice [0.84]`", (text.FORMAT,)),
    "fastai": ("fastai: columns `epoch train_loss valid_loss accuracy time`", (tables.TABLE,)),
    "csv": ("rows of comma-separated values below a header", (tables.TABLE,)),
    "transfer-learning": (
        "PyTorch's transfer-learning tutorial: `val Loss: 0.3100 Acc: 0.9100`",
        (text.FORMAT,),
    ),
}

NAMES: Final[dict[str, str]] = {
    AUTO: "detected from the lines (default)",
    **{known.name: known.description for known in READERS},
    **{name: description for name, (description, _) in FRAMEWORKS.items()},
}
"""The values of `log-format`, with descriptions."""


def readers(metric: Metric, log_format: str = AUTO) -> Sequence[tuple[str, Reader]]:
    """Return new readers of a format, each with its name, in the order of use.

    Raises:
        ValueError: If no format has this name.
    """
    if log_format == AUTO:
        chosen: Sequence[Format] = READERS
    elif log_format in FRAMEWORKS:
        chosen = FRAMEWORKS[log_format][1]
    else:
        chosen = [known for known in READERS if known.name == log_format]
    if not chosen:
        raise ValueError(f"must be one of {', '.join(NAMES)}")
    name: Callable[[Format], str] = (
        (lambda known: known.name) if log_format == AUTO else (lambda _: log_format)
    )
    return [(name(known), known.reader(metric)) for known in chosen]
