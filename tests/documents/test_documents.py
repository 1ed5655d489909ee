"""The documents: nothing that can be typed is missing, nothing that is named is gone."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from helpers_runs import fsod

from fewshot_cli.cli.app import app
from fewshot_cli.cli.reference import reference
from fewshot_cli.detectors.registry import DETECTORS
from fewshot_cli.policies import POLICIES

REPOSITORY = Path(__file__).parents[2]
GROUP: Any = typer.main.get_command(app)
OPTIONS = {
    name: [
        option
        for parameter in command.params
        if parameter.param_type_name == "option" and parameter.name != "help"
        for option in (*parameter.opts, *parameter.secondary_opts)
    ]
    for name, command in GROUP.commands.items()
}
DOCUMENTS = sorted(path for path in REPOSITORY.glob("*.md"))


@pytest.fixture(scope="module")
def readme() -> str:
    return (REPOSITORY / "README.md").read_text("utf-8")


@pytest.fixture(scope="module")
def sections(readme: str) -> dict[str, str]:
    """Command → its part of the command reference."""
    _, found, reference = readme.partition("\n## Command reference\n")
    assert found, "README.md has no section `## Command reference`"
    parts = re.split(r"^### fsod (\S+)$", reference.partition("\n## ")[0], flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_command_has_its_section(sections: dict[str, str]) -> None:
    """The reference has a section for each command, and for nothing that is no command."""
    assert set(GROUP.commands) == set(sections)


@pytest.mark.parametrize("command", list(GROUP.commands))
def test_exactly_the_existing_options_are_documented(command: str, sections: dict[str, str]) -> None:
    """The first column of a command's table names every option, in code quotes, and none that cannot be typed."""
    named = {
        name
        for row in re.findall(r"^\|([^|]*)\|", sections[command], re.MULTILINE)
        for name in re.findall(r"`(--?[\w-]+)`", row)
    }
    assert named == set(OPTIONS[command])


@pytest.mark.parametrize("command", list(GROUP.commands))
def test_every_option_has_a_help_text(command: str) -> None:
    """`--help` explains every option and argument in a sentence, and the command itself."""
    assert GROUP.commands[command].help
    assert [] == [parameter.name for parameter in GROUP.commands[command].params if not parameter.help]


def test_policies_and_detectors_are_documented(readme: str) -> None:
    """Every policy and every detector is named."""
    missing = [name for name in (*POLICIES, *DETECTORS) if f"`{name}`" not in readme]
    # `…_v2` stands behind the name it extends.
    assert [] == [name for name in missing if f"`…{name[-3:]}`" not in readme]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_lead_somewhere(document: Path) -> None:
    """A link without a scheme names a file of the repository."""
    links = re.findall(r"\]\(([^)\s#]+)", document.read_text("utf-8"))
    gone = [
        link
        for link in links
        if "://" not in link and not link.startswith("mailto:") and not (REPOSITORY / link).exists()
    ]
    assert [] == gone


def test_nothing_is_left_to_be_filled_in(readme: str) -> None:
    """No placeholder of the form @@NAME@@ is left."""
    assert [] == re.findall(r"@@\w+@@", readme)


def commands_in(text: str) -> list[list[str]]:
    """The `fsod …` lines of the shell blocks, without comments, split as a shell does."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [shlex.split(part, comments=True) for part in parts if part.startswith("fsod ")]


def test_the_commands_of_the_readme_can_be_parsed(readme: str) -> None:
    """Every `fsod` line in a shell block names a command and options that exist."""
    lines = commands_in(readme)
    assert {"fetch", "inspect-layers", "finetune", "eval"} <= {line[1] for line in lines}
    for line in lines:
        options = {word.partition("=")[0] for word in line[2:] if word.startswith("--")}
        if line[1].startswith("--"):
            assert line[1] in fsod("--help").stdout
        else:
            assert options <= set(OPTIONS[line[1]]), line


def test_the_command_reference_is_what_the_commands_say(readme: str) -> None:
    """README.md holds the output of `python -m fewshot_cli.cli.reference`, word for word."""
    assert reference() in readme
