"""Options defined once: the fields of a dataclass, from which everything else follows.

    @dataclass(frozen=True, kw_only=True)
    class Training:
        lr: Annotated[float, Option("Peak learning rate.", gt=0)] = 2e-3

        def __post_init__(self) -> None:
            validate(self)

Validation, the options of the command line, TOML files, `--set`, `config.json` and the command reference all read these
fields. Types, choices (`Literal`) and bounds are checked by pydantic, which is imported when the first settings are
built.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from fewshot_cli.errors import ConfigError, FsodError, closest

if TYPE_CHECKING:
    from pydantic import BaseModel

Settings = TypeVar("Settings")


@dataclass(frozen=True, slots=True)
class Option:
    """What a field says to a person.

    Attributes:
        help: one sentence: what it means, and its unit.
        panel: heading under which `--help` lists it.
        metavar: stands for the value in `--help`; default: from the type.
        words: the value is a tuple of words, typed as one text with commas: `flip,color`.
        gt, ge, lt, le: bounds of a number: greater than, at least, less than, at most.
    """

    help: str
    panel: str | None = None
    metavar: str | None = None
    words: bool = False
    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None

    @property
    def bounds(self) -> dict[str, float]:
        """Those that are given, by name."""
        given = {name: getattr(self, name) for name in ("gt", "ge", "lt", "le")}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a settings class: its name, its type without metadata, its default and its `Option`."""

    name: str
    type: Any
    default: Any
    option: Option

    @property
    def required(self) -> bool:
        return self.default is MISSING


@lru_cache
def fields_of(kind: type) -> dict[str, Field]:
    """The fields of a settings class by name, in order; those without an `Option` are left out."""
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for field in fields(kind):
        hint = hints[field.name]
        option = next((each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Option)), None)
        if option:
            default = field.default if field.default_factory is MISSING else field.default_factory()
            found[field.name] = Field(field.name, get_args(hint)[0], default, option)
    return found


def validate(settings: Any, *, error: type[FsodError] = ConfigError, hint: str | None = None) -> None:
    """Check every field of a settings object and keep the values as their types say (a list becomes a tuple).

    Call it in `__post_init__`.

    Raises:
        error: naming every field that has a wrong type or value, with what would be right.
    """
    kind = type(settings)
    values = {field.name: _as_meant(kind, field.name, getattr(settings, field.name)) for field in fields(kind)}
    for name, value in _checked(kind, values, error, hint).items():
        object.__setattr__(settings, name, value)


def from_mapping(
    kind: type[Settings], values: Mapping[str, Any], *, error: type[FsodError] = ConfigError, hint: str | None = None
) -> Settings:
    """Build settings from names and values that come from outside (JSON, TOML, `--set`).

    Raises:
        error: for unknown names, with the closest known one, and wrong values, all of them together.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = [name for name in values if name not in known]
    if not unknown:
        return kind(**values)
    problems = [f"unknown option {name!r}" for name in unknown]
    try:
        kind(**{name: value for name, value in values.items() if name in known})
    except FsodError as wrong:
        problems.append(wrong.message)
    raise error("; ".join(problems), hint=closest(unknown[0], sorted(known)))


def to_json(settings: Any) -> dict[str, Any]:
    """The values by name, as a configuration file takes them back: words are joined by commas, tuples are lists."""
    options = fields_of(type(settings))
    written = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.name in options and options[field.name].option.words and value is not None:
            value = ",".join(value)
        written[field.name] = list(value) if isinstance(value, tuple) else value
    return written


def _as_meant(kind: type, name: str, value: Any) -> Any:
    """Lists, as JSON and TOML have them, are tuples; words may come as one text."""
    field = fields_of(kind).get(name)
    if field and field.option.words and isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    return tuple(value) if isinstance(value, list) else value


def _checked(kind: type, values: dict[str, Any], error: type[FsodError], hint: str | None) -> dict[str, Any]:
    from pydantic import ValidationError

    try:
        checked = _model(kind).model_validate(values)
    except ValidationError as wrong:
        problems: dict[str, str] = {}
        for fault in wrong.errors(include_url=False):
            name = str(fault["loc"][0])
            problems.setdefault(name, f"{name} is {_shown(values[name])}: {_right(fault)}")
        raise error("; ".join(problems.values()), hint=hint) from None
    return {name: getattr(checked, name) for name in values}


@lru_cache
def _model(kind: Hashable) -> type[BaseModel]:
    """A strict pydantic model of the same fields: "3" is no number, true is no number, nothing is NaN."""
    from pydantic import ConfigDict, create_model
    from pydantic import Field as Member

    assert isinstance(kind, type)
    hints, options = get_type_hints(kind), fields_of(kind)
    bounds: dict[str, Any] = {name: field.option.bounds for name, field in options.items()}
    members: dict[str, Any] = {name: (hints[name], Member(**bounds.get(name, {}))) for name in hints}
    config = ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False, protected_namespaces=())
    return create_model(kind.__name__, __config__=config, **members)


def _right(fault: Any) -> str:
    """What pydantic says would be right, in the words of our messages."""
    if fault["type"] in ("tuple_type", "too_long", "too_short") or len(fault["loc"]) > 1:
        return "give a list of the right values"
    text = str(fault["msg"]).removeprefix("Input should be ")
    if _choices(fault) and isinstance(fault["input"], str):
        return closest(fault["input"], _choices(fault))
    return f"give a number {text}" if text.startswith(("greater", "less")) else f"give {text}"


def _choices(fault: Any) -> list[str]:
    expected = fault.get("ctx", {}).get("expected", "") if fault["type"] == "literal_error" else ""
    return [word for word in str(expected).replace(" or ", ", ").replace("'", "").split(", ") if word]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"
