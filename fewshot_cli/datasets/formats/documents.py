"""Text, JSON and XML from files that may hold anything."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot_cli.datasets.formats.problems import Problems
from fewshot_cli.paths import file_fault

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

LARGEST_TEXT = 100_000_000
"""Bytes of a file that is read line by line; one of labels has thousands."""
LARGEST_DOCUMENT = 1_000_000_000
"""Bytes of a JSON or XML file; COCO's own has 470 million."""


def read_text(file: Path, problems: Problems) -> str | None:
    """A text file in UTF-8; None, and a problem, if it cannot be read."""
    try:
        if _may_be_read(file, problems, LARGEST_TEXT):
            return _text(file)
    except OSError as error:
        problems.add("", f"cannot be read: {error.strerror}", file)
    except UnicodeDecodeError as error:
        problems.add("", f"is not UTF-8 text (byte {error.start})", file)
    return None


def read_json(file: Path, problems: Problems) -> tuple[Any, set[str]]:
    """(document, constants in it that JSON does not have); (None, …), and a problem, if it cannot be read."""
    constants: set[str] = set()

    def constant(name: str) -> float:
        constants.add(name)
        return float(name)

    try:
        if _may_be_read(file, problems, LARGEST_DOCUMENT):
            # Python reads NaN and Infinity, which JSON does not have.
            return json.loads(_text(file), parse_constant=constant), constants
    except OSError as error:
        problems.add("", f"cannot be read: {error.strerror}", file)
    except (ValueError, RecursionError) as error:
        problems.add("", f"not valid JSON: {error}", file)
    return None, constants


def read_xml(file: Path, problems: Problems) -> Element | None:
    """The root of an XML file; None, and a problem, if it is damaged or hostile.

    Document types, and with them entities and references to other files, are not read.
    """
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import ParseError, parse

    try:
        if _may_be_read(file, problems, LARGEST_DOCUMENT):
            root: Element = parse(io.BytesIO() if _is_empty(file) else file, forbid_dtd=True).getroot()
            return root
    except OSError as error:
        problems.add("", f"cannot be read: {error.strerror}", file)
    except DefusedXmlException:
        problems.add(
            "", "holds a document type or entities, which label files do not need and which are not read", file
        )
    except (ParseError, ValueError, LookupError, RecursionError) as error:
        problems.add("", f"not valid XML: {error}", file)
    return None


def start_of(file: Path, length: int = 4096) -> str:
    """The first characters of a regular file, for a guess at its format; empty if it cannot be read."""
    if file_fault(file) or _is_empty(file):
        return ""
    try:
        with file.open("rb") as stream:
            return stream.read(length).decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    except OSError:
        return ""


def _may_be_read(file: Path, problems: Problems, largest: int) -> bool:
    """Whether a regular file stands there; if not, that is a problem."""
    fault = file_fault(file, largest=largest)
    if fault:
        problems.add("", fault, file)
    return not fault


def _text(file: Path) -> str:
    return "" if _is_empty(file) else file.read_text(encoding="utf-8-sig")


def _is_empty(file: Path) -> bool:
    """Of size 0, as files of /proc are, which may wait for ever when they are opened."""
    return file.stat().st_size == 0
