"""The error tree: what a script sees as exit codes, and what a person reads."""

from __future__ import annotations

import re

import pytest

from fewshot_cli import errors
from fewshot_cli.errors import DatasetError, FsodError, Problem, closest

CODES = {
    "FsodError": 1,
    "UsageError": 2,
    "DataError": 3,
    "DatasetError": 3,
    "StorageError": 3,
    "ConfigError": 4,
    "PolicyError": 4,
    "ModelError": 5,
    "CheckpointError": 5,
    "DivergedError": 6,
    "NetworkError": 7,
}


def test_the_exit_codes_are_those_of_the_design() -> None:
    """Every error class has the code that the design promises to scripts, and no class is without one."""
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, FsodError)]
    assert CODES == {c.__name__: c.exit_code for c in classes}


def test_the_drawn_tree_is_the_real_one() -> None:
    """The tree in the module's docstring names each class with its code, below its parent."""
    lines = re.findall(r"^    ([│├└─ ]*)(\w+Error) +(\d)", errors.__doc__ or "", re.MULTILINE)
    assert CODES == {name: int(code) for _, name, code in lines}
    parents: list[str] = []
    for branch, name, _ in lines:
        depth = len(branch) // 4
        parents[depth:] = [name]
        above = getattr(errors, name).__bases__[0].__name__
        assert above == (parents[depth - 1] if depth else "Exception")


def test_every_class_says_when_it_occurs() -> None:
    """No error class is without a docstring of its own."""
    assert all(getattr(errors, name).__doc__ for name in CODES)


def test_an_error_carries_its_message_and_hint() -> None:
    """Message and hint are attributes, and the text of the exception is the message."""
    error = errors.ConfigError("--lr is 0", hint="Give more.")
    assert ("--lr is 0", "Give more.", "--lr is 0") == (error.message, error.hint, str(error))
    assert FsodError("x").hint is None


def test_a_problem_reads_as_file_record_reason() -> None:
    """The record is left out where the whole file is at fault."""
    assert "a.json: image 3: no such file" == str(Problem("a.json", "image 3", "no such file"))
    assert "a.json: not JSON" == str(Problem("a.json", "", "not JSON"))


@pytest.mark.parametrize(("count", "title"), [(1, "a.json: 1 problem"), (3, "a.json: 3 problems")])
def test_a_dataset_error_lists_all_problems(count: int, title: str) -> None:
    """One line a problem below a line with their number."""
    problems = [Problem("a.json", f"image {i}", "gone") for i in range(count)]
    lines = DatasetError("a.json", problems).message.splitlines()
    assert [title, *(f"  {problem}" for problem in problems)] == lines


def test_a_long_list_is_cut_for_people_only() -> None:
    """Twenty problems are printed and the rest counted; all stay available to programs."""
    problems = [Problem("a.json", f"image {i}", "gone") for i in range(23)]
    error = DatasetError("a.json", problems)
    lines = error.message.splitlines()
    assert 1 + 20 + 1 == len(lines)
    assert "  … and 3 more (--json lists all)" == lines[-1]
    assert tuple(problems) == error.problems


@pytest.mark.parametrize(
    ("name", "valid", "sentence"),
    [
        ("symetric", ["last", "symmetric"], "Did you mean symmetric? Valid: last, symmetric."),
        ("HELMET", ["Helmet", "Fish"], "Did you mean Helmet? Valid: Helmet, Fish."),
        ("zzz", ["last", "first"], "Valid: last, first."),
        ("anything", [], "Valid: none."),
    ],
)
def test_closest_suggests_and_lists(name: str, valid: list[str], sentence: str) -> None:
    """The closest valid name is suggested, regardless of case, before all of them; nothing close, no suggestion."""
    assert sentence == closest(name, iter(valid))
