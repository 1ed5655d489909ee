"""Whether a classifier's backbone should stay frozen, by the capacity of what is built behind it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fewshot_cli.sweeps.pivot import Results, paired
from fewshot_cli.sweeps.studies.contract import (
    Lines,
    Study,
    Verdict,
    by_seed,
    costs_more,
    ends,
    higher,
    minus,
    values_of,
)


def _judge(results: Results) -> Iterator[Verdict]:
    _, all_stages = ends(values_of(results, "backbone_stages"))
    necks, channels = values_of(results, "neck"), values_of(results, "head_channels")
    small = {"neck": necks[0], "head_channels": channels[0]}
    large = {"neck": necks[-1], "head_channels": channels[-1]}

    def of(measure: str, stages: int, capacity: dict[str, Any]) -> dict[int, float]:
        return by_seed(results, measure, backbone_stages=stages, **capacity)

    def gain(capacity: dict[str, Any]) -> dict[int, float]:
        """Frozen − fine-tuned."""
        return minus(of("ap", 0, capacity), of("ap", all_stages, capacity))

    yield higher(
        "With enough capacity behind it, a frozen backbone is better than a fine-tuned one.",
        f"mAP, frozen − fine-tuned, {large['neck']} with {large['head_channels']} channels",
        paired(of("ap", 0, large), of("ap", all_stages, large)),
        "ap",
    )
    yield higher(
        "Freezing costs less the more capacity there is.",
        f"mAP, (frozen − fine-tuned) with {large['neck']} {large['head_channels']} − with "
        f"{small['neck']} {small['head_channels']}",
        paired(gain(large), gain(small)),
        "ap",
    )
    for measure, what in (("training_seconds", "time"), ("peak_memory_mb", "memory")):
        yield costs_more(
            f"Freezing saves {what}.",
            f"{what}, fine-tuned against frozen, {large['neck']} with {large['head_channels']} channels",
            of(measure, all_stages, large),
            of(measure, 0, large),
        )


STUDY = Study(
    source=(
        "C. Vasconcelos, V. Birodkar, V. Dumoulin, Proper Reuse of Image Classification Features Improves Object "
        "Detection, CVPR 2022, arXiv 2204.00484"
    ),
    preset={
        "policies": ("all",),
        "baselines": False,
        "seeds": 3,
        "vary": {"neck": ("fpn", "bifpn"), "head_channels": (64, 256), "backbone_stages": (0, 5)},
        "rows": "backbone_stages",
        "columns": "neck",
        "panels": ("head_channels",),
        "weights": "imagenet",
        "options": {"train_neck": True, "backbone_lr": 0.1},
    },
    measures=("ap", "training_seconds", "peak_memory_mb"),
    figures=(
        Lines("mAP, frozen and fine-tuned", "ap", "neck", "backbone_stages", "head_channels"),
        Lines("Training time", "training_seconds", "neck", "backbone_stages", "head_channels"),
        Lines("Peak memory", "peak_memory_mb", "neck", "backbone_stages", "head_channels"),
    ),
    judge=_judge,
    notes=("The source trains on COCO and LVIS, for up to hundreds of epochs.",),
)
