"""JSON files that fsod wrote itself."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from typing_extensions import TypedDict

from fewshot_cli.documents import MAY_LACK, Check, ReadAs, read_document, read_lines
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


class Score(TypedDict):
    schema: Literal["fsod/score/1"]
    ap: Annotated[float, ReadAs(float | None)]
    share: Annotated[float, Check(lambda share: share * 100), MAY_LACK]


class Scores(TypedDict):
    schema: Literal["fsod/scores/1"]
    best: Score | None
    by_name: Annotated[dict[str, list[Score]], MAY_LACK]


@pytest.mark.parametrize(
    ("content", "read"),
    [
        ({"best": {"ap": 1, "more": "x"}}, {"best": {"ap": 1.0, "more": "x"}}),
        ({"best": None, "more": [1], "schema": 7}, {"best": None, "more": [1], "schema": 7}),
        ({"best": {"ap": None, "share": 0.5}}, {"best": {"ap": None, "share": 50.0}}),
        ({}, "best: field required"),
        ({"best": {"ap": "0.5"}}, "best.ap: input should be a valid number"),
        ({"best": {"ap": float("inf")}}, "best.ap: input should be a finite number"),
        ({"best": {"ap": 1, "share": None}}, "best.share: input should be a valid number"),
        ({"best": None, "by_name": None}, "by_name: input should be a valid dict"),
        ({"best": None, "by_name": {"a": [{}]}}, "by_name.a.0.ap: field required"),
    ],
)
def test_what_is_written_says_what_is_read(content: Any, read: Any, tmp_path: Path) -> None:
    """At any depth: marked keys may be gone, further ones stay, `schema` does not matter, the rest is strict."""
    file = tmp_path / "a.json"
    file.write_text(json.dumps(content))

    if isinstance(read, dict):
        assert read == read_document(file, Scores, hint=HINT)
    else:
        with pytest.raises(DataError, match=f"a.json is damaged: {read}"):
            read_document(file, Scores, hint=HINT)
