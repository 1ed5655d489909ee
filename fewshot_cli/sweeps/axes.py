"""Further axes of a sweep: options of fetch and finetune that take one value after the other (`--vary`)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from fewshot_cli.augmentation.config import Variants
from fewshot_cli.errors import ConfigError, UsageError, closest
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.settings import Field, fields_of, shown, typed

Choices = tuple[tuple[str, Any], ...]
"""One value of each of several options, in the order of the axes: (name, value)."""

OWN = {
    "class": "--class",
    "classes": "--class",
    "shots": "--shots",
    "source": "--source",
    "test_source": "--test-source",
    "test_images": "--test-images",
    "detector": "--detector",
    "policy": "--policy",
    "budget": "--budget",
    "layers": "--layers",
    "seed": "--seeds",
    "data": "--class and --source",
    "device": "--device",
    "threads": "--threads",
}
"""What cannot be varied, because the sweep has an option of its own for it."""
PLANNING = ("train_neck", "backbone_stages", "freeze_first")
"""Options that say what trains, beside the policy: baselines that contradict them are not run."""
DRAWING = ("fraction", "subset", "skip_invalid")
"""Options of fetch, besides those of the sources, that a sweep can give."""
FEATURES = {"weights", "distil", "image_size", "precision", "cache_type", "head_depth", "head_channels", "neck"}
FEATURES |= set(fields_of(Variants))
"""Options of finetune on which cached features depend, besides the cut."""
LONGEST_VALUE = 24
"""Characters of a value in the name of a folder."""


def parse_axes(texts: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """`backbone_stages=0,1,2` → the option and its values, of the type that the option has.

    Values are separated by commas, or by `|` where a value has commas itself: `schedule=cosine|steps:0.6,0.8`.

    Raises:
        UsageError: no values, or an axis is given twice.
    """
    axes: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        name, found, values = text.partition("=")
        name = name.strip().replace("-", "_")
        if not found or not values.strip():
            raise UsageError(f"--vary {shown(text)} has no values", hint="Write --vary OPTION=V1,V2.")
        if name in axes:
            raise UsageError(f"--vary {name} is given twice", hint="Give all its values at once.")
        parts = [part.strip() for part in values.split("|" if "|" in values else ",")]
        known = {**fields_of(FinetuneConfig), **drawing_fields()}
        axes[name] = tuple(typed({name: part}, known)[name] for part in parts)
    return axes


def check_axes(axes: Mapping[str, Sequence[Any]], fixed: Mapping[str, Any], preset: Collection[str] = ()) -> None:
    """Raise ConfigError for an axis that does not exist, has one value, or that the sweep sets itself.

    Args:
        axes: option → values.
        fixed: options that every cell has in common.
        preset: axes that a study varies; they may be held at one value.
    """
    known = {*fields_of(FinetuneConfig), *drawing_fields()}
    for name, values in axes.items():
        if name in OWN:
            raise ConfigError(f"{name} cannot be varied like other options", hint=f"Give {OWN[name]} instead.")
        if name not in known:
            raise ConfigError(f"there is no option {name!r} to vary", hint=closest(name, sorted(known - OWN.keys())))
        if name in fixed:
            hint = f"Give --vary {name}=VALUE to hold it at one value." if name in preset else "Drop one of them."
            raise ConfigError(f"{name} is varied, and fixed at {shown(fixed[name])}", hint=hint)
        if len(values) < 2 and name not in preset:
            raise ConfigError(
                f"{name} is varied over one value", hint="Give two or more; --set and --fetch-set fix an option."
            )
        if len(set(values)) < len(values):
            raise ConfigError(f"{name} is {', '.join(map(str, values))}: give each value once", hint="Drop the others.")


def drawing_fields() -> dict[str, Field]:
    """The options that decide what is drawn, by name: those of every source, and DRAWING."""
    from fewshot_cli.sources.registry import options_by_source
    from fewshot_cli.sources.request import FetchRequest

    own = {name: field for options in options_by_source().values() for name, field in fields_of(options).items()}
    return {**{name: field for name, field in fields_of(FetchRequest).items() if name in DRAWING}, **own}


def value_text(name: str, value: Any) -> str:
    """A value as tables and figures show it: of a file its name, of a list its parts."""
    if name in ("weights", "distil", "refine"):
        *before, last = str(value).split(":")
        return ":".join([*before, Path(last).stem])
    if isinstance(value, tuple) and name != "setup":
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def choices_text(choices: Choices) -> str:
    """For messages: `, backbone_stages 2, fraction 0.5`; empty without choices."""
    return "".join(f", {name} {value_text(name, value)}" for name, value in choices)


def choices_slug(choices: Choices) -> str:
    """For names of folders: `-backbone_stages2-fraction0.5`; different values have different names."""
    return "".join(f"-{name}{_short(value)}" for name, value in choices)


def _short(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    plain = re.sub(r"[^\w.\-]", "_", text)
    if plain == text.casefold() and len(plain) <= LONGEST_VALUE:
        return plain
    # What was replaced or cut off, and capital letters on file systems without them, would make two values one.
    return f"{plain.casefold()[-LONGEST_VALUE:].strip('.')}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
