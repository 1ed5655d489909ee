"""How much the mAP varies with the images that are drawn, beside what it varies when training is repeated on them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from fewshot_cli.evaluation.interval import CONFIDENCE
from fewshot_cli.sweeps.pivot import Results
from fewshot_cli.sweeps.studies.contract import HOLDS, UNCLEAR, Lines, Study, Verdict, by_seed, values_of


def _judge(results: Results) -> Iterator[Verdict]:
    repeats = [list(by_seed(results, "ap", subset=subset).values()) for subset in values_of(results, "subset")]
    repeated = [values for values in repeats if len(values) > 1]
    if len(repeated) < 2:
        yield Verdict(CLAIM, "not measured", UNCLEAR)
        return
    from scipy.stats import f_oneway

    within = statistics.mean(statistics.variance(values) for values in repeated) ** 0.5
    between = statistics.stdev(statistics.mean(values) for values in repeated)
    # Repeats that all agree leave nothing that subsets could differ by.
    p = float(f_oneway(*repeated).pvalue) if within else 0.0 if between else 1.0
    measured = (
        f"standard deviation of the mAP between subsets {between:.3f}, between repeats {within:.3f}; "
        f"one-way analysis of variance: p = {p:.2g}"
    )
    yield Verdict(CLAIM, measured, HOLDS if p < 1 - CONFIDENCE else UNCLEAR)


CLAIM = "Which images are drawn changes the mAP, beyond what repeated training does."
STUDY = Study(
    source=(
        "W. Zheng, Impact of Input Dataset Size and Fine-tuning on Faster R-CNN with Transfer Learning, "
        "University of Tartu, 2023; the claim is in our words"
    ),
    preset={
        "policies": ("all",),
        "baselines": False,
        "seeds": 3,
        "draw_seed": 0,
        "fetch_options": {"fraction": 0.25},
        "vary": {"subset": (1, 2, 3, 4)},
        "rows": "subset",
        "options": {"train_neck": True, "schedule": "steps:0.615,0.846"},
    },
    measures=("ap",),
    figures=(Lines("mAP by subset, with the interval over repeats (Fig. 8 and 9)", "ap", "subset"),),
    judge=_judge,
    notes=("A seed stands for a repeat: its augmentation, batch order and new weights, on the same images.",),
)
