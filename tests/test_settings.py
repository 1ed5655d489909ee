"""Options defined once: what their validation accepts and says."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from fewshot_cli.errors import ConfigError
from fewshot_cli.settings import Option, fields_of, from_mapping, to_json, validate


@dataclass(frozen=True, kw_only=True)
class Example:
    rate: Annotated[float, Option("Rate.", gt=0, le=10)] = 0.5
    count: Annotated[int, Option("Count.", ge=1)] = 3
    kind: Annotated[Literal["adamw", "sgd"], Option("Kind.")] = "adamw"
    zoom: Annotated[tuple[float, float], Option("Zoom.")] = (0.5, 2.0)
    share: Annotated[float | None, Option("Share.", gt=0)] = None
    names: Annotated[tuple[str, ...], Option("Names.", words=True)] = ("flip",)
    size: Annotated[int | str | None, Option("Size.")] = None
    unlisted: int = 0

    def __post_init__(self) -> None:
        validate(self, hint="See the manual.")


def test_values_become_what_their_types_say() -> None:
    """Whole numbers are taken for real ones, lists for tuples, and a text with commas for words."""
    made = Example(rate=1, zoom=[1, 2], names="flip, color", share=2)  # type: ignore[arg-type]
    assert (1.0, (1.0, 2.0), ("flip", "color"), 2.0) == (made.rate, made.zoom, made.names, made.share)
    assert float is type(made.rate)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a word for a number": ({"count": "abc"}, "count is 'abc': give a valid integer"),
    "nothing": ({"rate": None}, "rate is None: give a valid number"),
    "too small": ({"rate": 0}, "rate is 0: give a number that is above 0 and at most 10"),
    "too large": ({"rate": 11.0}, "rate is 11.0: give a number that is above 0 and at most 10"),
    "true for a number": ({"count": True}, "count is True: give a valid integer"),
    "no number": ({"rate": float("nan")}, "rate is nan: give a finite number"),
    "a near choice": ({"kind": "adam"}, "kind is 'adam': Did you mean adamw? Valid: adamw, sgd."),
    "one for two": ({"zoom": 3}, "zoom is 3: give a list of 2 numbers"),
    "three for two": ({"zoom": [1, 2, 3]}, "zoom is (1, 2, 3): give a list of 2 numbers"),
    "bounds of what may be absent": ({"share": -2}, "share is -2: give a number that is above 0"),
    "neither of two types": ({"size": 2.5}, "size is 2.5: give an integer or a text"),
    "words that are none": ({"names": 5}, "names is 5: give words separated by commas"),
    "unlisted too": ({"unlisted": "x"}, "unlisted is 'x': give a valid integer"),
}


@pytest.mark.parametrize(("values", "message"), WRONG.values(), ids=list(WRONG))
def test_a_wrong_value_is_named_with_what_would_be_right(values: dict[str, Any], message: str) -> None:
    """The field, what it is, and what it takes."""
    with pytest.raises(ConfigError) as raised:
        Example(**values)
    assert message == raised.value.message
    assert "See the manual." == raised.value.hint


def test_all_problems_are_told_at_once() -> None:
    """Unknown names, with the closest known one, beside wrong values."""
    with pytest.raises(ConfigError) as raised:
        from_mapping(Example, {"rates": 1, "count": 0, "kind": "lion"})
    assert "unknown option 'rates'; count is 0" in raised.value.message
    assert "kind is 'lion'" in raised.value.message
    assert str(raised.value.hint).startswith("Did you mean rate?")


def test_json_comes_back_to_the_same_settings() -> None:
    """What `to_json` writes, `from_mapping` reads."""
    made = Example(zoom=(1.0, 3.0), names=("flip", "color"))
    assert "flip,color" == to_json(made)["names"]
    assert made == from_mapping(Example, to_json(made))


def test_fields_say_what_the_command_line_needs() -> None:
    """Name, type, default and help of every field that has an option."""
    found = fields_of(Example)
    assert "unlisted" not in found
    assert (float, 0.5, "Rate.") == (found["rate"].type, found["rate"].default, found["rate"].option.help)


def test_pydantic_is_imported_only_when_settings_are_built() -> None:
    """`fsod --help` must not wait for it."""
    code = "import sys, fewshot_cli.settings; sys.exit('pydantic' in sys.modules)"
    assert 0 == subprocess.run([sys.executable, "-c", code], check=False).returncode
