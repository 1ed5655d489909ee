"""Malformed values, and what damages files."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fuzz_harness import Change

NO_NUMBER = {
    "empty": "", "space": " ", "word": "x", "nan": "nan", "1e400": "1e400", "inf": "-inf", "hex": "0x10", "half": "½",
    "list": "[1]", "NUL": "1\0", "comma": "1,5", "minus": "−1", "escape": "\x1b[31m1", "long": "9" * 5000, "two": "1 2",
}  # fmt: skip
"""Name → text that is no number, or none that can be meant."""
OUT_OF_BOUNDS = {"-1": "-1", "10^20": "1" + "0" * 20, "-10^20": "-1" + "0" * 20}
NO_WORD = {
    "empty": "", "space": " ", "NUL": "a\0b", "long": "x" * 5000, "letters": "ünïcødé", "newline": "a\nb", "escape": "\x1b[31mred",
    "format": "%s{0}${HOME}", "number": "100000000000000000000", "nan": "nan", "null": "null", "surrogate": "\udcff", "tag": "[bold]x[/]",
}  # fmt: skip
"""Name → text that no list of words has."""

JSON_VALUES: dict[str, Any] = {
    "null": None, "true": True, "text": "x", "empty": "", "minus": -1, "zero": 0, "10^30": 10**30, "half": 1.5, "nan": float("nan"),
    "infinity": float("-inf"), "list": [], "object": {}, "nested": [[[[1]]]], "long": "x" * 5000, "NUL": "a\0b", "escape": "\x1b[31m",
    "path": "../../../etc/passwd",
}  # fmt: skip
"""Name → a value of another kind."""

DEEP = 100_000
"""Levels of nesting."""
BROKEN: dict[str, bytes] = {
    "empty": b"", "NUL": b"\0" * 100, "no UTF-8": b"\xff\xfe\x00\xd8", "null": b"null", "number": b"7", "text": b'"x"', "list": b"[]",
    "object": b"{}", "half": b'{"a": [1, 2', "list in list": b"[[]]", "list of null": b"[null]", "deep list": b"[" * DEEP,
    "deep object": b'{"a":' * DEEP, "HTML": b"<!DOCTYPE html><html><body>404</body></html>", "zip": b"PK\x03\x04" + b"\0" * 60,
    "digits": b"9" * 100_000, "true": b"true", "BOM": b"\xef\xbb\xbf{}", "UTF-16": '{"a": 1}'.encode("utf-16"),
}  # fmt: skip
"""Name → content of no JSON document that fsod reads."""


# --- what stands at a path ---


def content(data: bytes | str) -> Change:
    """A file with this content, the folders above it too."""

    def write(path: Path) -> None:
        remove(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogateescape"))

    return write


def document(value: Any) -> Change:
    """A JSON file; NaN and Infinity pass."""
    return content(json.dumps(value))


def remove(path: Path) -> None:
    """Nothing; a folder goes with what is in it."""
    import shutil

    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def link(target: str) -> Change:
    def make(path: Path) -> None:
        remove(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)

    return make


def pipe(path: Path) -> None:
    remove(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)


def socket(path: Path) -> None:
    from socket import AF_UNIX
    from socket import socket as Socket

    remove(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    before = Path.cwd()
    os.chdir(path.parent)  # the name of a socket is short
    try:
        Socket(AF_UNIX).bind(path.name)
    finally:
        os.chdir(before)


def folder(path: Path) -> None:
    remove(path)
    path.mkdir(parents=True)


def sparse(size: int) -> Change:
    """A file of that size that takes no space."""

    def make(path: Path) -> None:
        content(b"")(path)
        os.truncate(path, size)

    return make


SPECIAL: Mapping[str, Change] = {
    "pipe": pipe, "device": link("/dev/zero"), "loop": link("special"), "dangling": link("nowhere/at/all"), "folder": folder,
    "socket": socket, "process": link("/proc/self/mem"), "terminal": link("/dev/tty"), "nothing": remove, "huge": sparse(20 << 30),
}  # fmt: skip
"""Name → what is no file that can be read; `loop` links to `special`."""


# --- damage ---


def cut(share: float) -> Change:
    """Only the first part of the file."""
    return lambda path: content(path.read_bytes()[: int(share * path.stat().st_size)])(path)


def flipped(seed: int, count: int = 1) -> Change:
    """That many bytes of the file have another value."""

    def flip(path: Path) -> None:
        chance, data = random.Random(seed), bytearray(path.read_bytes())
        for _ in range(count):
            data[chance.randrange(len(data))] ^= chance.randrange(1, 256)
        content(bytes(data))(path)

    return flip


def edited(edit: Callable[[Any], Any]) -> Change:
    """The JSON document with what `edit` makes of it; a JSON Lines file's first line."""

    def change(path: Path) -> None:
        first, end, rest = path.read_text("utf-8"), "", ""
        if path.suffix == ".jsonl":
            first, end, rest = first.partition("\n")
        content(json.dumps(edit(json.loads(first))) + end + rest)(path)

    return change


def replaced_at(seed: int) -> Change:
    """The JSON document with one value, anywhere, of another kind, or without it."""

    def edit(value: Any) -> Any:
        chance = random.Random(seed)
        place = chance.choice(list(places(value)))
        if place and chance.random() < 0.2:
            return without(value, place)
        return replaced(value, place, chance.choice(list(JSON_VALUES.values())))

    return edited(edit)


def places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value in a JSON document."""
    yield before
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from places(each, (*before, key))


def replaced(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    """The document with another value there; keys that are not there are added."""
    if not place:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[place[0]] = replaced(copy[place[0]] if len(place) > 1 else None, place[1:], new)
    return copy


def without(value: Any, place: tuple[Any, ...]) -> Any:
    """The document without the value there."""
    copy = dict(value) if isinstance(value, dict) else list(value)
    if len(place) > 1:
        copy[place[0]] = without(copy[place[0]], place[1:])
    else:
        del copy[place[0]]
    return copy
