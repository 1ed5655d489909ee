"""JSON files that fsod wrote itself, read back: they may have been damaged, edited or replaced since.

    scores = read_document(path, dict[str, list[FiniteFloat]], hint="Train again.")

A type says what a file must hold: a `TypedDict` (of typing_extensions), a dataclass, or types such as
`dict[str, list[float]]`; pydantic checks it. Files that others wrote are the matter of `datasets.formats`.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fewshot_cli.errors import DataError, FsodError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Document = TypeVar("Document")

LARGEST = 1_000_000_000
"""Bytes; the detections of a large test set have some hundred million."""


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

    return TypeAdapter(kind)
