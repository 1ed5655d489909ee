"""JSON files that fsod wrote itself, read back: they may have been damaged, edited or replaced since.

    scores = read_document(path, dict[str, list[FiniteFloat]], hint="Train again.")

A type says what a file must hold: a `TypedDict` (of typing_extensions), a dataclass, or types such as
`dict[str, list[float]]`; pydantic checks it. A `TypedDict` describes what is written today, and the marks `MAY_LACK`,
`ReadAs` and `Check` in it what that means for a file that is read, see `type_when_read`. Files that others wrote are
the matter of `datasets.formats`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, reduce
from operator import or_
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from typing_extensions import NotRequired, TypedDict, get_type_hints, is_typeddict

from fewshot_cli.errors import DataError, FsodError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Document = TypeVar("Document")

LARGEST = 1_000_000_000
"""Bytes; the detections of a large test set have some hundred million."""


@dataclass(frozen=True)
class MayLack:
    """Mark of a key that a file may lack, because earlier versions did not write it, or no reader needs it."""


MAY_LACK = MayLack()


@dataclass(frozen=True)
class ReadAs:
    """Mark of a value that has this type when it is read: what earlier versions wrote, or what readers rely on."""

    kind: Any


@dataclass(frozen=True)
class Check:
    """Mark of a value that must also pass a function, which returns it or raises ValueError."""

    function: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic_core.core_schema import no_info_after_validator_function

        return no_info_after_validator_function(self.function, handler(source))


def read_document(path: Path, kind: type[Document], *, hint: str, error: type[FsodError] = DataError) -> Document:
    """The content of a JSON file, if it is of that type.

    Args:
        path: a regular file; nothing else is opened.
        kind: what it must hold.
        hint: what to do if it does not.
        error: what to raise then.

    Raises:
        error: the file is missing, damaged, or its content is of another type; names the file and the field.
    """
    return check_document(
        parse_document(read_file(path, hint=hint, error=error), path, hint, error), kind, path, hint, error
    )


def read_lines(path: Path, kind: type[Document], *, hint: str, error: type[FsodError] = DataError) -> list[Document]:
    """The content of a JSON Lines file, one document a line; arguments and errors as of `read_document`."""
    lines = read_file(path, hint=hint, error=error).splitlines()
    return [
        check_document(
            parse_document(line, f"{path}, line {number}", hint, error), kind, f"{path}, line {number}", hint, error
        )
        for number, line in enumerate(lines, 1)
    ]


def read_file(path: Path, *, hint: str, error: type[FsodError] = DataError) -> str:
    """The text of a regular file; raises `error`, which names it."""
    try:
        if not path.is_file():
            raise error(f"{path} {'is not a regular file' if path.exists() else 'does not exist'}", hint=hint)
        if path.stat().st_size > LARGEST:
            raise error(f"{path} is too large: more than {LARGEST // 1_000_000:,} MB", hint=hint)
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as wrong:
        raise error(f"{path} is damaged: it is not UTF-8 text (byte {wrong.start})", hint=hint) from wrong
    except (OSError, ValueError) as wrong:
        reason = getattr(wrong, "strerror", None) or wrong
        raise error(f"{path} cannot be read: {reason}", hint=hint) from wrong


def check_document(
    document: Any, kind: type[Document], place: object, hint: str, error: type[FsodError] = DataError
) -> Document:
    """The document, if it is of that type; raises `error`, which names the place and the field."""
    from pydantic import ValidationError

    try:
        checked: Document = _adapter(kind).validate_python(document)  # type: ignore[arg-type]
    except ValidationError as wrong:
        fault = wrong.errors(include_url=False)[0]
        field = ".".join(map(str, fault["loc"]))
        reason = f"{fault['msg'][:1].lower()}{fault['msg'][1:]}"
        raise error(f"{place} is damaged: {f'{field}: ' if field else ''}{reason}", hint=hint) from None
    return checked


def parse_document(text: str, place: object, hint: str, error: type[FsodError] = DataError) -> Any:
    """The document in a JSON text; raises `error`, which names the place."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as wrong:
        raise error(f"{place} is damaged: no valid JSON ({wrong})", hint=hint) from wrong


@lru_cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(type_when_read(kind))


def type_when_read(kind: Any) -> Any:
    """The type that files are checked against, for one that says what is written.

    A `TypedDict` is read strictly ("0.5" is no number, 1 is not true, NaN is none) and with further keys, so that files
    of a later version are read too. `schema` is not looked at, because files from before it are read by their keys.
    """
    if is_typeddict(kind):
        return _dict_when_read(kind)
    origin, inner = get_origin(kind), get_args(kind)
    if origin is None or origin is Literal:
        return kind
    if origin is Annotated:
        written, *marks = inner
        read = next((mark.kind for mark in marks if isinstance(mark, ReadAs)), written)
        marked: Any = Annotated
        return marked[(type_when_read(read), *marks)]
    parts = tuple(map(type_when_read, inner))
    if origin in (Union, UnionType):
        return reduce(or_, parts)
    return origin[parts if len(parts) > 1 else parts[0]]


def _dict_when_read(kind: Any) -> Any:
    from pydantic import ConfigDict, with_config

    make: Any = TypedDict
    hints = get_type_hints(kind, include_extras=True)
    keys = {name: _key_when_read(hint) for name, hint in hints.items() if name != "schema"}
    rules = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)
    return with_config(rules)(make(kind.__name__, keys))


def _key_when_read(hint: Any) -> Any:
    read = type_when_read(hint)
    return NotRequired[read] if MAY_LACK in get_args(hint) else read
