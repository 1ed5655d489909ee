"""A sweep from what a person gives: a preset, and what is different from it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fewshot_cli.detectors.registry import WEIGHT_NAMES
from fewshot_cli.encoders import with_whole_path
from fewshot_cli.errors import CheckpointError, UsageError, closest
from fewshot_cli.paths import whole
from fewshot_cli.settings import from_mapping
from fewshot_cli.sweeps.axes import PLANNING
from fewshot_cli.sweeps.config import SweepConfig
from fewshot_cli.sweeps.studies import STUDIES, get_study

PRESETS: dict[str, dict[str, Any]] = {
    "table1": {"policies": ("last", "symmetric"), "budgets": (1, 2, 3, 4), "shots": (10,), "seeds": 5},
}
"""`table1`: the seven setups of the paper on a head of five layers; on a shallower one, those that it allows."""


def configure(classes: str | Sequence[str], *, source: str, preset: str | None = None, **options: Any) -> SweepConfig:
    """The configuration of a sweep from what a person gives: presets, the detector of the source, paths of weights.

    Args:
        classes: one class, or several.
        source: as in `fetch`.
        preset: a name in PRESETS or STUDIES; `options` take precedence.
        options: further fields of SweepConfig.

    Raises:
        UsageError: an unknown preset or source.
        ConfigError: an unknown field, or what SweepConfig raises.
    """
    from fewshot_cli.sources.registry import default_detector

    if preset is not None and preset not in {**PRESETS, **STUDIES}:
        raise UsageError(f"unknown preset {preset!r}", hint=closest(preset, {**PRESETS, **STUDIES}))
    values = {
        "classes": (classes,) if isinstance(classes, str) else tuple(classes),
        "source": source,
        "detectors": (default_detector(source) or "yolox_nano",),
        **_with_preset(preset, options),
    }
    varied, drawn = values.get("vary", {}), values.get("fetch_options", {})
    if "fraction" in varied or "fraction" in drawn:
        values.setdefault("shots", ())
    if any(name in PLANNING for name in varied):
        values.setdefault("baselines", False)
    if "weights" in varied:
        values["vary"] = {**varied, "weights": tuple(_whole(weights) for weights in varied["weights"])}
    values["weights"] = _whole(values.get("weights", "default"))
    for name in ("distil", "refine"):
        if name in values.get("options", {}):
            values["options"] = {**values["options"], name: _whole_encoder(values["options"][name])}
        if name in values.get("vary", {}):
            values["vary"] = {**values["vary"], name: tuple(_whole_encoder(each) for each in values["vary"][name])}
    return from_mapping(SweepConfig, values, hint="See `fsod sweep --help`.")


def _with_preset(name: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given, and for the rest what a preset sets; of options and axes each on its own."""
    if name is None:
        return dict(given)
    preset: dict[str, Any] = PRESETS[name] if name in PRESETS else {**get_study(name).preset, "study": name}
    # What is varied takes the place of what a preset fixes.
    preset = _without(preset, varied := given.get("vary", {}))
    preset |= {key: _without(preset[key], varied) for key in ("options", "fetch_options") if key in preset}
    merged = [key for key in ("options", "fetch_options", "vary") if key in preset]
    return {**preset, **given, **{key: {**preset[key], **given.get(key, {})} for key in merged}}


def _without(options: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in names}


def _whole(weights: Any) -> Any:
    """A whole path of a file, because cells may run in another folder or on another machine."""
    if isinstance(weights, str | Path) and weights not in WEIGHT_NAMES:
        return str(whole(weights, error=CheckpointError))
    return weights


def _whole_encoder(named: Any) -> Any:
    """The same for the weights of an encoder; what names none is reported with the other options."""
    with suppress(ValueError):
        return with_whole_path(named) if isinstance(named, str) else named
    return named
