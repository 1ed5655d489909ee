"""Every option of every command with values that it cannot take: a message and an exit code, never a bug or a hang."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from helpers_runs import fsod
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fewshot_cli.cli.app import app
from fewshot_cli.cli.commands import COMMANDS
from fewshot_cli.errors import DataError

CODES = {0, 2, 3, 4, 5, 7}
"""All but those of a bug, a diverged loss and signals."""

ENDS_EARLY: dict[str, tuple[str, ...]] = {
    "fetch": ("--class", "cat", "--source", "coco:nowhere"),
    "augment": ("nowhere",),
    "finetune": ("--data", "nowhere"),
    "eval": ("nowhere",),
    "predict": ("nowhere.jpg",),
    "export": ("nowhere",),
    "inspect-layers": ("nowhere",),
    "sweep": ("--class", "cat", "--source", "coco:nowhere", "--dry-run"),
    "demo": (),
    "compare": ("nowhere", "elsewhere"),
    "report": ("nowhere",),
}
"""With these arguments a command ends before it reads an image, once its options are right."""

VALUES = (
    "", " ", "-1", "0", "1.5", "1e400", "NaN", "-inf", "abc", str(10**20), "9" * 5000, "a" * 5000, "a\0b", "²", "ü\u202e",
    "null", "[]", "{}", "..", "\udcff",
)  # fmt: skip

OPTIONS = [
    (name, max(parameter.opts, key=len), parameter.is_flag)
    for name, command in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
    if name in ENDS_EARLY
    for parameter in command.params
    if parameter.param_type_name == "option"
]


@pytest.fixture(autouse=True)
def nothing_heavy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of its own, without FiftyOne's database, and a demo that ends at its first step."""

    def stopped(*_: Any) -> None:
        raise DataError("stopped")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FSOD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("fewshot_cli.demo.fetch", stopped)
    monkeypatch.setattr("fewshot_cli.report.fiftyone_sets.open_database", stopped)


def refused_well(name: str, words: list[str]) -> None:
    result = fsod(name, *ENDS_EARLY[name], *words)
    assert result.exit_code in CODES, (name, words, result.output)
    assert "bug:" not in result.stderr and "Traceback" not in result.output


def words_of(option: str, is_flag: bool, value: str) -> list[str]:
    return [f"{option}={value}"] if is_flag or value.startswith("-") else [option, value]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(option=st.sampled_from(OPTIONS), value=st.sampled_from(VALUES) | st.text(max_size=40))
def test_any_option_with_any_value_is_taken_or_refused_with_a_message(
    option: tuple[str, str, bool], value: str
) -> None:
    """Whatever the option and the text are: an exit code of the list, no traceback."""
    name, flag, is_flag = option
    refused_well(name, words_of(flag, is_flag, value))


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDS_EARLY)
def test_every_option_with_every_bad_value_is_taken_or_refused_with_a_message(name: str) -> None:
    """The same, all of them."""
    for command, flag, is_flag in OPTIONS:
        for value in VALUES if command == name else ():
            refused_well(name, words_of(flag, is_flag, value))


def test_every_command_is_tried() -> None:
    """A new command needs arguments with which it ends early."""
    assert set(COMMANDS) == set(ENDS_EARLY)


@pytest.mark.parametrize("flag", ["--set", "--fetch-set"])
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), value=st.sampled_from(VALUES) | st.text(max_size=20))
def test_options_of_a_sweeps_cells_are_refused_the_same_way(flag: str, data: st.DataObject, value: str) -> None:
    """`--set NAME=VALUE` and `--fetch-set NAME=VALUE`, for every name."""
    from fewshot_cli.runs.config import FinetuneConfig
    from fewshot_cli.settings import fields_of
    from fewshot_cli.sweeps.axes import drawing_fields

    names = [*(fields_of(FinetuneConfig) if flag == "--set" else drawing_fields())]
    refused_well("sweep", [flag, f"{data.draw(st.sampled_from(names))}={value}"])


@pytest.mark.parametrize(
    "words",
    [
        ("demo", "--seed", "-1"),
        ("demo", "--seed", str(10**20)),
        ("fetch", "--class", "x", "--seed", "-1"),
        ("fetch", "--class", "x", "--shots", str(10**20)),
        ("sweep", "--class", "x", "--source", "miniature", "--seeds", str(10**20)),
        ("sweep", "--class", "x", "--source", "miniature", "--jobs", str(10**20)),
        ("sweep", "--class", "x", "--source", "miniature", "--set", "copies=1.5"),
        ("sweep", "--class", "x", "--source", "miniature", "--set", "image_size=100"),
        ("sweep", "--class", "x", "--source", "miniature", "--device", "tpu"),
        ("sweep", "--class", "x", "--source", "miniature", "--weights", "nowhere.pth"),
        ("sweep", "--class", "x", "--source", "miniature", "--fetch-set", "skip_invalid=maybe"),
        ("inspect-layers", "yolox_nano", "--classes", str(10**20)),
        ("finetune", "--threads", str(10**20)),
    ],
    ids=" ".join,
)
def test_what_is_out_of_bounds_is_refused_before_anything_is_made(words: tuple[str, ...]) -> None:
    """With a usage, configuration or model error, and no file or folder."""
    result = fsod(*words)
    assert result.exit_code in (2, 4, 5), result.output
    assert [] == list(Path().iterdir())
