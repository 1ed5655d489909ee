"""Rich tables of what was measured. Functions take plain values, so that --json and a table say the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from fewshot_cli.report.choices import averaged_text, chosen_text, trained_text

LISTED_CLASSES = 10
"""Classes whose AP is listed; of more, half as many of the best and of the worst."""
SHOWN_CLASSES = 20
"""Classes of a table that are listed although nothing was found of them, if there are no more."""

_MEANINGS = {
    "AP": "mAP@[.50:.95]",
    "AP50": "mAP@.50",
    "AP75": "mAP@.75",
    "AP_small": "mAP, area below 32²",
    "AP_medium": "mAP, area 32² to 96²",
    "AP_large": "mAP, area above 96²",
    "AR_1": "recall, 1 detection an image",
    "AR_10": "recall, 10 detections",
    "AR_100": "recall, 100 detections",
    "AR_small": "recall, area below 32²",
    "AR_medium": "recall, area 32² to 96²",
    "AR_large": "recall, area above 96²",
}


def number(value: float | None) -> str:
    """A metric to three places; a dash where there is nothing to measure."""
    return "–" if value is None else f"{value:.3f}"


def mean_ap(result: Mapping[str, Any]) -> str:
    """The mAP on the test set of a result.json, with its 95 % interval if it has one: `0.270 (0.201 to 0.344)`."""
    interval = result.get("ap_interval")
    return number(result["ap"]) + (f" ({number(interval[0])} to {number(interval[1])})" if interval else "")


def metrics_table(numbers: Mapping[str, float | None]) -> Table:
    """COCO's twelve numbers."""
    table = Table("metric", "meaning", box=box.SIMPLE_HEAD, title="COCO metrics", title_justify="left")
    table.add_column("value", justify="right")
    for name, value in numbers.items():
        table.add_row(name, _MEANINGS[name], number(value), style="bold" if name == "AP" else None)
    return table


def per_class_table(per_class: Mapping[str, float | None]) -> Table:
    """AP of each class."""
    table = Table("class", box=box.SIMPLE_HEAD, title="AP per class", title_justify="left")
    table.add_column("AP", justify="right")
    for name, value in per_class.items():
        table.add_row(name, number(value))
    return table


def telling(per_class: Mapping[str, float | None]) -> list[tuple[str, str]]:
    """Classes and their AP as texts; of more than LISTED_CLASSES the best and the worst, with how many lie between."""
    if len(per_class) <= LISTED_CLASSES:
        return [(name, number(value)) for name, value in per_class.items()]
    # Classes without an object in the test set come last.
    ordered = sorted(per_class, key=lambda name: -1.0 if (value := per_class[name]) is None else value, reverse=True)
    half = LISTED_CLASSES // 2
    best, worst = ([(name, number(per_class[name])) for name in part] for part in (ordered[:half], ordered[-half:]))
    return [*best, (f"… {len(ordered) - 2 * half} more", ""), *worst]


def result_table(result: Mapping[str, Any]) -> Table:
    """What one fine-tune did, from its result.json."""
    table = Table(box=box.SIMPLE, show_header=False, title=f"Run {result['run']}", title_justify="left")
    trained, total = result["parameters"]["trained"], result["parameters"]["total"]
    rows = {
        **_optional("chosen", chosen_text, result.get("search")),
        "trained": f"{trained_text(result)}: {trained:,} of {total:,} parameters ({trained / total:.1%})",
        **_optional("averaged", averaged_text, result),
        "frozen": f"{result['frozen']['changed']} of {result['frozen']['tensors']} frozen tensors changed",
        **_optional("base classes", kept_base_classes, result.get("keep_base_classes")),
        **_test_rows(result),
        **_validation_rows(result.get("cross_validation")),
        **({"caution": "\n".join(result["caveats"])} if result.get("caveats") else {}),
        "train mAP": f"{number(result['train_ap'])} on the {result['images']['train']} shots{gap_text(result)}",
        "time": ", ".join(f"{name.replace('_', '-')} {value:.1f} s" for name, value in result["seconds"].items()),
        "memory": memory_text(result),
    }
    for name, text in rows.items():
        table.add_row(name, text, style="bold" if name == "test mAP" else None)
    return table


def gap_text(result: Mapping[str, Any]) -> str:
    """By how much the mAP on the training images is higher than on the test images; empty where it was not measured."""
    gap = result.get("generalisation_gap")
    return "" if gap is None else f" (generalisation gap {gap:+.3f})"


def memory_text(result: Mapping[str, Any]) -> str:
    """The peak, and the cached features where they were counted."""
    cached = result.get("cached_mb")
    features = "" if cached is None else f", cached features {cached:,.0f} MB"
    return f"{result['peak_memory_mb']:,} MB at the peak{features}"


def kept_base_classes(kept: Mapping[str, Any]) -> str:
    """What keeping the base classes takes, in words."""
    return (
        f"{len(kept['classes'])} kept; from {kept['start']} on both heads run: {kept['parameters']:,} parameters "
        f"and {kept['operations']:.0%} of the computation more"
    )


def _optional(
    name: str, describe: Callable[[Mapping[str, Any]], str | None], content: Mapping[str, Any] | None
) -> dict[str, str]:
    """A row that describes the content; none where there is nothing to describe."""
    text = describe(content) if content else None
    return {name: text} if text else {}


def _test_rows(result: Mapping[str, Any]) -> dict[str, str]:
    if result["metrics"] is None:
        return {"test mAP": "not measured: the data set has no test set"}
    numbers, best = result["metrics"]["numbers"], result["best"]
    return {
        "test mAP": f"{mean_ap(result)} after {result['iterations']} iterations "
        f"(AP50 {number(numbers['AP50'])}, AP75 {number(numbers['AP75'])})",
        "best": f"{number(best['ap'])} at iteration {best['iteration']}; chosen on the test set, so optimistic",
        **_class_rows(result["metrics"]["per_class"]),
    }


def _class_rows(per_class: Mapping[str, float | None]) -> dict[str, str]:
    """AP of each class, where there are several."""
    if len(per_class) < 2:
        return {}
    listed = [f"{ap} {name}".strip() for name, ap in telling(per_class)]
    return {"by class": "\n".join(listed)}


def _validation_rows(found: Mapping[str, Any] | None) -> dict[str, str]:
    """What cross-validation on the shots estimates; runs before it have none."""
    if found is None:
        return {}
    classes = [
        f"{name} {threshold_text(of['threshold'])} "
        f"(F1 {number(of['f1'])}, precision {number(of['precision'])}, recall {number(of['recall'])})"
        for name, of in found["per_class"].items()
    ]
    return {"estimate": estimate_text(found), "threshold": "\n".join(classes)}


def estimate_text(found: Mapping[str, Any]) -> str:
    """The cross-validated mAP, the mean over folds with its interval, and that of all left-out shots together."""
    interval = "" if found["ap_interval"] is None else f" ± {number(found['ap_interval'])}"
    mean = f"mAP {number(found['ap'])}{interval} by cross-validation on the shots (mean of {found['folds']} folds)"
    return f"{mean}\n{number(found['pooled_ap'])} on all left-out shots together"


def threshold_text(threshold: float | None) -> str:
    """To two places; none: nothing was found in the left-out shots."""
    return "none" if threshold is None else f"{threshold:.2f}"


def demo_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One row a setup, as `run_demo` returns them."""
    table = Table("setup", "layers trained", box=box.SIMPLE_HEAD)
    for name in ("parameters", "mAP", "AP50", "seconds"):
        table.add_column(name, justify="right")
    best = max(row["ap"] for row in rows)
    for row in rows:
        values = f"{row['parameters']:,}", number(row["ap"]), number(row["ap50"]), f"{row['seconds']:.0f}"
        table.add_row(row["setup"], row["layers"], *values, style="bold" if row["ap"] == best else None)
    return table


def chain_table(detector: str, layers: Sequence[Mapping[str, Any]], convolutions: Sequence[Mapping[str, Any]]) -> Table:
    """A detector's chain, one row a layer, with the numbers of its convolutions."""
    table = Table("part", box=box.SIMPLE_HEAD, title=detector, title_justify="left", collapse_padding=True)
    table.add_column("layer", no_wrap=True)
    table.add_column("modules")
    table.add_column("convo-\nlutions", justify="right", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    table.add_column("state")
    for layer in layers:
        if layer["cut_before"]:
            table.add_section()
            table.add_row("", "", Text("features are cached here", style="dim"))
        own = [each for each in convolutions if each["layer"] == layer["name"]]
        table.add_row(
            layer["part"],
            layer["name"],
            "\n".join(layer["modules"]),
            _span([each["number"] for each in own]),
            f"{layer['parameters']:,}",
            f"{layer['share']:.1%}",
            _state(layer, [each["number"] for each in own if not each["trained"]]),
        )
    return table


def convolutions_table(convolutions: Sequence[Mapping[str, Any]]) -> Table:
    """Every convolution of a detector, in the order in which the input meets them."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("number", justify="right")
    table.add_column("convolution", overflow="fold")
    table.add_column("layer", no_wrap=True)
    table.add_column("parameters", justify="right")
    table.add_column("state")
    for each in convolutions:
        row = str(each["number"]), each["name"], each["layer"], f"{each['parameters']:,}"
        table.add_row(*row, _trained_or_frozen(each["trained"]))
    return table


def _span(numbers: Sequence[int]) -> str:
    """The first and the last of consecutive numbers: `1–17`; a dash where there are none."""
    if not numbers:
        return "–"
    return f"{numbers[0]}–{numbers[-1]}" if len(numbers) > 1 else str(numbers[0])


def criteria_table(detector: str, layers: Sequence[Mapping[str, Any]]) -> Table:
    """A detector's chain with a column for each of its `criteria`, in 80 characters; a line where features are cached.

    Values have three significant digits; a dash where there is no number.
    """
    table = Table("layer", box=box.SIMPLE_HEAD, title=detector, title_justify="left", collapse_padding=True)
    table.add_column("parameters", justify="right")
    for name in layers[0]["criteria"]:
        table.add_column(name.replace("_", "\n"), justify="right", no_wrap=True)
    table.add_column("state")
    for layer in layers:
        if layer["cut_before"]:
            table.add_section()
        values = [three_digits(value) for value in layer["criteria"].values()]
        table.add_row(layer["name"], f"{layer['parameters']:,}", *values, _state(layer))
    return table


def _state(layer: Mapping[str, Any], frozen: Sequence[int] = ()) -> Text:
    """Whether it trains, without which of its convolutions, and whether it runs twice."""
    state = _trained_or_frozen(layer["trained"])
    if layer["trained"] and frozen:
        state.append(f" but {_span(frozen)}")
    return state.append(", runs twice" if layer["runs_twice"] else "")


def _trained_or_frozen(trained: bool) -> Text:
    return Text("trained", style="bold green") if trained else Text("frozen")


def option_value(value: Any) -> str:
    """The value of an option as a person writes it: `yes`, `last, symmetric`, `lr=0.01, copies=4`; `–` without one."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        pairs = (f"{name}={option_value(each).replace(', ', ',')}" for name, each in value.items())
        return ", ".join(pairs) or "–"
    if isinstance(value, list | tuple):
        return ", ".join(map(option_value, value)) or "–"
    return "–" if value is None or value == "" else str(value)


def three_digits(value: float | None) -> str:
    """Three significant digits; a dash where there is no number."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.3g}"


def predict_table(result: Mapping[str, Any]) -> Table:
    """What was detected in, how much was found of each class, and where it is, from predict's document."""
    where = f"Detections by {result['model']} in {result['folder']}"
    table = Table("class", box=box.SIMPLE_HEAD, title=where, title_justify="left")
    table.add_column("detections", justify="right")
    table.add_column("from score", justify="right")
    for name, threshold in result["thresholds"].items():
        count = result["detections"].get(name, 0)
        # A pretrained detector knows 80 classes, most of which are in no image.
        if count or len(result["thresholds"]) <= SHOWN_CLASSES:
            table.add_row(name, f"{count:,}", f"{threshold:.2f}")
    if not table.row_count:
        table.add_row("nothing found", "0", "")
    return table
