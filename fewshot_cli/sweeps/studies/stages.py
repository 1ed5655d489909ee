"""How many stages of the backbone should train, and how that depends on the amount of data."""

from __future__ import annotations

from collections.abc import Iterator

from fewshot_cli.sweeps.pivot import Results, paired
from fewshot_cli.sweeps.studies.contract import (
    Curves,
    Lines,
    Study,
    Verdict,
    by_seed,
    costs_more,
    ends,
    higher,
    minus,
    share_text,
    two_sided,
    values_of,
)


def _judge(results: Results) -> Iterator[Verdict]:
    none, every = ends(values_of(results, "backbone_stages"))
    least, most = ends(values_of(results, "fraction"))

    def of(measure: str, stages: int, fraction: float) -> dict[int, float]:
        return by_seed(results, measure, backbone_stages=stages, fraction=fraction)

    def gain(measure: str, fraction: float) -> dict[int, float]:
        return minus(of(measure, every, fraction), of(measure, none, fraction))

    stages = f"{every} trainable stages − {none}"
    yield higher(
        "With all data, mAP is higher the more stages train.",
        f"mAP, {stages}, at {share_text(most)} of the images",
        paired(of("ap", every, most), of("ap", none, most)),
        "ap",
    )
    yield higher(
        "That advantage is smaller with less data.",
        f"mAP, ({stages}) at {share_text(most)} − the same at {share_text(least)}",
        paired(gain("ap", most), gain("ap", least)),
        "ap",
    )
    yield higher(
        "With little data, training more stages overfits.",
        f"train − test mAP, {stages}, at {share_text(least)}",
        paired(of("gap", every, least), of("gap", none, least)),
        "gap",
    )
    yield costs_more(
        "Fewer trainable stages save training time.",
        f"seconds, {every} trainable stages against {none}, at {share_text(most)}",
        of("training_seconds", every, most),
        of("training_seconds", none, most),
    )
    yield two_sided(
        "The gain at the first decay of the learning rate depends on the amount of data.",
        f"gain in mAP at the first decay, {share_text(most)} − {share_text(least)}",
        paired(by_seed(results, "decay_gain", fraction=most), by_seed(results, "decay_gain", fraction=least)),
        "ap",
    )


STUDY = Study(
    source=(
        "W. Zheng, Impact of Input Dataset Size and Fine-tuning on Faster R-CNN with Transfer Learning, "
        "University of Tartu, 2023"
    ),
    preset={
        "policies": ("all",),
        "baselines": False,
        "seeds": 3,
        "vary": {"fraction": (0.25, 0.5, 1.0), "backbone_stages": (0, 1, 2, 3, 4, 5)},
        "rows": "backbone_stages",
        "columns": "fraction",
        "options": {"train_neck": True, "schedule": "steps:0.615,0.846", "measure_train": True},
    },
    measures=("ap", "best_ap", "gap", "training_seconds", "decay_gain"),
    figures=(
        Lines("mAP after the last iteration by trainable stages (Fig. 10)", "ap", "backbone_stages", "fraction"),
        Lines("Best mAP by trainable stages (Fig. 10)", "best_ap", "backbone_stages", "fraction"),
        Curves("mAP on test and training images (Fig. 11 and 12)", "backbone_stages", "fraction"),
        Lines("Training time (Fig. 13)", "training_seconds", "backbone_stages", "fraction"),
        Lines("Gain in mAP at the first decay (Table 2, Fig. 14)", "decay_gain", "backbone_stages", "fraction"),
    ),
    judge=_judge,
    notes=(
        "The best mAP of a run is chosen on the test set: it is shown because the source shows it, and decides"
        " nothing.",
        "The source trains Faster R-CNN R50-FPN on tens of thousands of images of COCO.",
    ),
)
