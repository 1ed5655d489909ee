"""`--help` of the subcommands: every option once, under headings in one order, short."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from fewshot_cli.cli.app import app
from fewshot_cli.cli.commands import COMMANDS
from fewshot_cli.cli.help import ARGUMENTS, default_of, names_of, panel_of
from fewshot_cli.panels import ADVANCED, ORDER, place
from fewshot_cli.sources.registry import options_by_source

GROUP: Any = typer.main.get_command(app)


def shown(command: str, width: int = 120) -> str:
    result = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": str(width)})
    assert 0 == result.exit_code, result.output
    return result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_options_stand_once_under_headings_in_one_order(name: str) -> None:
    """Data, layers, training … output, advanced: the same order in every command; nothing without a heading."""
    lines = shown(name).splitlines()
    headings = [found[1] for line in lines if (found := re.match(r"╭─ (.+?) ─+╮", line))]
    known = {*ORDER, ADVANCED, *(f"Options of --source {source}" for source in options_by_source())}
    assert [heading for heading in headings if heading != ARGUMENTS] == sorted({*headings} - {ARGUMENTS}, key=place)
    assert {*headings} <= {ARGUMENTS, *known}
    begun = [line.removeprefix("│ ") for line in lines if re.match(r"│ -", line)]
    options = [each for each in GROUP.commands[name].params if each.param_type_name == "option"]
    assert {names_of(each).split(" ")[0] for each in options} | {"-h,"} == {text.split(" ")[0] for text in begun}
    assert len(options) + 1 == len(begun)


@pytest.mark.parametrize("width", [80, 120])
def test_the_help_of_finetune_fits(width: int) -> None:
    """No line is wider than the screen; at 120 columns an option takes a line, few take two."""
    lines = shown("finetune", width).splitlines()
    options = len(GROUP.commands["finetune"].params) + 1
    assert max(map(len, lines)) <= width
    assert len(lines) < {80: 3.0, 120: 2.0}[width] * options


@pytest.mark.parametrize("name", COMMANDS)
def test_a_help_text_is_a_line(name: str) -> None:
    """At most 130 characters, ended by a full stop."""
    for each in GROUP.commands[name].params:
        if each.param_type_name == "option" and not panel_of(each).startswith("Options of --source"):
            assert len(each.help) <= 130 and each.help.endswith("."), each.name


def test_names_are_as_they_are_typed() -> None:
    """The side of a switch that changes something, both where it is on, the short name first, the kind of value behind."""
    by_name = {each.name: each for each in GROUP.commands["finetune"].params}
    expected = {
        "quiet": "-q, --quiet",
        "report": "--report/--no-report",
        "train_neck": "--train-neck/--freeze-neck",
        "iterations": "--iterations <int>",
        "budget": "--budget N|60k|5%|auto",
    }
    assert expected == {name: names_of(by_name[name]) for name in expected}
    assert ("200", "0.002", "0.35 1.8", "") == tuple(
        default_of(by_name[name]) for name in ("iterations", "lr", "scale", "data")
    )
