"""JSON files that fsod wrote itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typing_extensions import TypedDict

from fewshot_cli.documents import read_document, read_lines
from fewshot_cli.errors import CheckpointError, DataError

HINT = "Train again."


class Point(TypedDict):
    name: str
    ap: float


def test_a_document_of_the_type_is_returned(tmp_path: Path) -> None:
    """What fits is given back as it was written."""
    file = tmp_path / "a.json"
    file.write_text('{"name": "x", "ap": 0.5}')

    assert read_document(file, Point, hint=HINT) == {"name": "x", "ap": 0.5}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no valid JSON"),
        (b"{", "no valid JSON"),
        (b"[" * 100_000, "no valid JSON"),
        (b"\xff\xfe", "not UTF-8 text"),
        (b"[]", "damaged"),
        (b'{"name": "x"}', "ap: field required"),
        (b'{"name": 1, "ap": 0.5}', "name: input should be a valid string"),
    ],
)
def test_damage_is_an_error_with_file_and_field(tmp_path: Path, content: bytes, words: str) -> None:
    """Whatever the file holds, one error names it and what is wrong."""
    file = tmp_path / "a.json"
    file.write_bytes(content)

    with pytest.raises(CheckpointError) as caught:
        read_document(file, Point, hint=HINT, error=CheckpointError)

    assert str(file) in caught.value.message
    assert words in caught.value.message
    assert caught.value.hint == HINT


def test_pipes_and_folders_are_not_opened(tmp_path: Path) -> None:
    """A pipe would block for ever; a missing file is said to be missing."""
    os.mkfifo(tmp_path / "pipe")

    for path, words in [
        (tmp_path / "pipe", "is not a regular file"),
        (tmp_path, "is not a regular file"),
        (tmp_path / "none", "does not exist"),
    ]:
        with pytest.raises(DataError, match=words):
            read_document(path, Point, hint=HINT)


def test_lines_are_named_by_number(tmp_path: Path) -> None:
    """A damaged line of many is found."""
    file = tmp_path / "a.jsonl"
    file.write_text('{"name": "x", "ap": 0.5}\n{"name": "y"}\n')

    with pytest.raises(DataError, match="line 2 is damaged: ap: field required"):
        read_lines(file, Point, hint=HINT)
