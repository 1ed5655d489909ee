"""What a pretrained backbone is worth against random weights, by the amount of data."""

from __future__ import annotations

from collections.abc import Iterator

from fewshot_cli.sweeps.pivot import Results
from fewshot_cli.sweeps.studies.contract import (
    Curves,
    Lines,
    Study,
    Verdict,
    by_seed,
    ends,
    higher,
    minus,
    share_text,
    values_of,
)
from fewshot_cli.sweeps.summary import estimate

SCRATCH = "none"


def _judge(results: Results) -> Iterator[Verdict]:
    least, most = ends(values_of(results, "fraction"))
    pretrained = next((value for value in values_of(results, "weights") if value != SCRATCH), "default")

    def gain(fraction: float) -> dict[int, float]:
        first, second = (
            by_seed(results, "ap", weights=weights, fraction=fraction) for weights in (pretrained, SCRATCH)
        )
        return minus(first, second)

    for fraction in (most, least):
        yield higher(
            f"A pretrained backbone is better than one from scratch ({share_text(fraction)} of the images).",
            "mAP, pretrained − from scratch",
            estimate(list(gain(fraction).values())),
            "ap",
        )


STUDY = Study(
    source=(
        "W. Zheng, Impact of Input Dataset Size and Fine-tuning on Faster R-CNN with Transfer Learning, "
        "University of Tartu, 2023"
    ),
    preset={
        "policies": ("full",),
        "baselines": False,
        "seeds": 3,
        "vary": {"fraction": (0.25, 0.5, 1.0), "weights": ("imagenet", SCRATCH)},
        "rows": "weights",
        "columns": "fraction",
        "options": {"schedule": "plateau", "measure_train": True},
    },
    measures=("ap", "best_ap", "gap"),
    figures=(
        Lines("mAP, pretrained and from scratch (Fig. 17)", "ap", "fraction", "weights"),
        Curves("mAP on test and training images (Fig. 17)", "weights", "fraction"),
    ),
    judge=_judge,
)
