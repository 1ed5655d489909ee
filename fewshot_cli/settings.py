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

from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields
from functools import lru_cache
from inspect import get_annotations
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from fewshot_cli.bounds import Range
from fewshot_cli.errors import ConfigError, FsodError, closest

if TYPE_CHECKING:
    from pydantic import BaseModel

Settings = TypeVar("Settings")


@dataclass(frozen=True, slots=True)
class Option:
    """The description of a field, and the values it takes beyond its type.

    Attributes:
        help: one sentence: what it means, and its unit.
        panel: heading under which `--help` lists it.
        metavar: stands for the value in `--help`; default: the choices, or from the type.
        flags: names of a switch on the command line: `--train-neck/--freeze-neck`; default: `--name/--no-name`.
        words: the value is a tuple of words, typed as one text with commas: `flip,color`.
        within: the whole numbers that it takes, one of `fewshot_cli.bounds`.
        gt, ge, lt, le: bounds of another number: greater than, at least, less than, at most.
        check: takes a value of the right type and returns it as it is kept; raises ValueError, saying what would be
            right.
    """

    help: str
    panel: str | None = None
    metavar: str | None = None
    flags: str | None = None
    words: bool = False
    within: Range | None = None
    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None
    check: Callable[[Any], Any] | None = None

    @property
    def bounds(self) -> dict[str, float]:
        """Those that are given, by name."""
        if self.within:
            return {"ge": self.within.least, "le": self.within.most, "multiple_of": self.within.step}
        given = {name: getattr(self, name) for name in BOUNDS}
        return {name: value for name, value in given.items() if value is not None}


BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
"""In words."""


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

    @property
    def kinds(self) -> tuple[Any, ...]:
        """The types of a union, without None; of anything else its type alone."""
        union = get_origin(self.type) in (Union, UnionType)
        return tuple(kind for kind in get_args(self.type) if kind is not type(None)) if union else (self.type,)

    @property
    def choices(self) -> tuple[str, ...]:
        """The valid words, where they are known: those of a `Literal`, also of an optional one."""
        return next((get_args(kind) for kind in self.kinds if get_origin(kind) is Literal), ())


@lru_cache
def fields_of(kind: type) -> dict[str, Field]:
    """The fields of a settings class that have an `Option`, by name: its own, then those that it inherits."""
    hints = get_type_hints(kind, include_extras=True)
    declared = {field.name: field for field in fields(kind)}
    found = {}
    for name in (name for each in kind.__mro__ for name in get_annotations(each) if name in declared):
        option = next((each for each in getattr(hints[name], "__metadata__", ()) if isinstance(each, Option)), None)
        if option and name not in found:
            field = declared[name]
            default = field.default if field.default_factory is MISSING else field.default_factory()
            found[name] = Field(name, get_args(hints[name])[0], default, option)
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
        error: for unknown names, with the closest known one, missing names and wrong values, all of them together.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = [name for name in values if name not in known]
    missing = [name for name in known if name not in values and name in _required(kind)]
    if not unknown and not missing:
        return kind(**values)
    problems = [f"unknown option {name!r}" for name in unknown] + [f"{name} is missing" for name in missing]
    if not missing:
        try:
            kind(**{name: value for name, value in values.items() if name in known})
        except FsodError as wrong:
            problems.append(wrong.message)
    raise error("; ".join(problems), hint=closest(unknown[0], sorted(known)) if unknown else hint)


def typed(texts: Mapping[str, str], known: Mapping[str, Field]) -> dict[str, Any]:
    """The values that texts stand for, by the types of the fields: for `--set NAME=VALUE` and the like.

    A text that is no value of its type stays a text, and so does one of an unknown name: the settings refuse both, all
    at once, when they are built.

    Args:
        texts: name → `3`, `0.5`, `yes`, `flip,color`, `0.35,1.8`; names may have hyphens.
        known: the fields.
    """
    names = {name.replace("-", "_"): text for name, text in texts.items()}
    return {name: _typed(text, known[name]) if name in known else text for name, text in names.items()}


_SWITCH = {
    **dict.fromkeys(("true", "yes", "on", "1", "t", "y"), True),
    **dict.fromkeys(("false", "no", "off", "0", "f", "n"), False),
}
"""The words of a switch, as the command line reads them too."""


def _typed(text: str, field: Field) -> Any:
    kind = field.kinds[0] if len(field.kinds) == 1 else str
    if get_origin(kind) is tuple and not field.option.words:
        return _listed(text, get_args(kind)[0])
    return _converted(text, kind)


def _listed(text: str, kind: Any) -> Any:
    """`0.35,1.8`, also in brackets; the text itself if a part is no value of that type."""
    parts = [_converted(part.strip(), kind) for part in text.strip("[]() ").split(",")]
    return parts if all(isinstance(part, kind) for part in parts) else text


def _converted(text: str, kind: Any) -> Any:
    """A number or a switch; the text itself if it is none, or if the type is another."""
    if kind is bool:
        return _SWITCH.get(text.strip().casefold(), text)
    if kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def _required(kind: type) -> list[str]:
    return [field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING]


def to_json(settings: Any) -> dict[str, Any]:
    """The values by name, as a configuration file takes them back: words are joined by commas, tuples are lists."""
    kind: type = type(settings)
    options = fields_of(kind)
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
            problems.setdefault(name, f"{name} is {shown(values[name])}: {_right(fault, fields_of(kind).get(name))}")
        raise error("; ".join(problems.values()), hint=hint) from None
    return {name: getattr(checked, name) for name in values}


@lru_cache
def _model(kind: Hashable) -> type[BaseModel]:
    """A strict pydantic model of the same fields: "3" is no number, true is no number, nothing is NaN."""
    from pydantic import ConfigDict, create_model

    assert isinstance(kind, type)
    members = {name: _member(hint, fields_of(kind).get(name)) for name, hint in get_type_hints(kind).items()}
    config = ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False, protected_namespaces=())
    model: type[BaseModel] = create_model(kind.__name__, __config__=config, **members)
    return model


def _member(hint: Any, field: Field | None) -> Any:
    """A field as pydantic declares it."""
    from pydantic import AfterValidator
    from pydantic import Field as Member

    if field and field.option.check:
        hint = Annotated[hint, AfterValidator(field.option.check)]
    bounds: dict[str, Any] = field.option.bounds if field else {}
    if bounds and get_origin(hint) is tuple:  # each of its values is within them
        return tuple.__class_getitem__((Annotated[get_args(hint)[0], Member(**bounds)], ...)), ...
    return hint, Member(**bounds)


_WORDS = {int: "an integer", float: "a number", str: "a text"}
"""The types that a union may have, as errors name them."""
_BOUND_FAULTS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "multiple_of"}


def _right(fault: Any, field: Field | None) -> str:
    """What would be right instead of a value that pydantic found wrong."""
    if fault["type"] == "value_error":
        return str(fault["ctx"]["error"])
    if field and fault["type"] in _BOUND_FAULTS:
        return f"give {_range(field.option)}"
    if fault["type"] in ("tuple_type", "too_long", "too_short") or any(isinstance(at, int) for at in fault["loc"][1:]):
        return _list_of(field)
    if field and len(field.kinds) > 1:
        return f"give {' or '.join(_WORDS[kind] for kind in field.kinds)}"
    if field and field.choices and isinstance(fault["input"], str):
        return closest(fault["input"], field.choices)
    if fault["type"] == "bool_type":
        return "give true or false"
    return f"give {str(fault['msg']).removeprefix('Input should be ')}"


def _list_of(field: Field | None) -> str:
    """What a list must hold: words, or as many values as its type says."""
    if field and field.option.words:
        return "give words separated by commas"
    parts = get_args(field.type) if field else ()
    kind = "numbers" if set(parts) <= {int, float, Ellipsis} else "values"
    return f"give a list of {kind}" if not parts or Ellipsis in parts else f"give a list of {len(parts)} {kind}"


def _range(option: Option) -> str:
    """The bounds in words: `a number that is at least 1 and at most 1,000`."""
    if option.within:
        return str(option.within)
    return "a number that is " + " and ".join(
        f"{BOUNDS[name]} {_number(bound)}" for name, bound in option.bounds.items()
    )


def _number(bound: float) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"


def shown(value: Any) -> str:
    """A value for a message, shortened."""
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"
