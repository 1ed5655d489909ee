"""The documents: commands, options, links and names in them exist, and the README stays short."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer
from helpers_documents import python_code, shell_lines
from helpers_runs import REPOSITORY

from fewshot_cli.cli.app import app
from fewshot_cli.cli.reference import reference
from fewshot_cli.detectors.registry import DETECTORS
from fewshot_cli.policies import POLICIES

GROUP: Any = typer.main.get_command(app)
README = REPOSITORY / "README.md"
REFERENCE = REPOSITORY / "examples" / "reference.md"
EXAMPLES = REPOSITORY / "examples"
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", ".github/*.md", "examples/**/*.md", "fewshot_cli/**/*.md")
    for path in REPOSITORY.glob(pattern)
)


TEXTS = {str(path.relative_to(REPOSITORY)): path.read_text("utf-8") for path in DOCUMENTS}


def parse(words: list[str]) -> None:
    """Parse the words after `fsod` as the command line does, up to the values; raises a usage error."""
    name, *rest = words
    if name.startswith("--"):
        command, name, rest = GROUP, "fsod", words
    else:
        command = GROUP.commands[name]
    # A redirection is the shell's, not the command's.
    rest = rest[: rest.index(">")] if ">" in rest else rest
    command.make_parser(command.context_class(command, info_name=name)).parse_args(args=rest)


# --- the README ---


def test_the_readme_is_short() -> None:
    """At most 200 lines and 12 KB."""
    assert len(README.read_text("utf-8").splitlines()) <= 200
    assert README.stat().st_size <= 12 * 1024


def test_the_readme_holds_the_first_lines() -> None:
    """CI runs the first of these lines; the others are the shortest way on public images."""
    lines = [
        "pip install '.[test]' && pytest",
        "fsod fetch --class helmet --shots 10",
        "fsod finetune --policy symmetric --budget 3",
    ]
    assert [] == [line for line in lines if line not in README.read_text("utf-8").splitlines()]


def test_policies_and_detectors_are_documented() -> None:
    """The README names every policy and every detector."""
    text = README.read_text("utf-8")
    assert [] == [name for name in (*POLICIES, *DETECTORS) if f"`{name}`" not in text]


# --- the reference ---


def test_the_reference_is_generated() -> None:
    """examples/reference.md is what `python -m fewshot_cli.cli.reference` prints."""
    assert reference() + "\n" == REFERENCE.read_text("utf-8")


def test_the_reference_has_every_option() -> None:
    """The first column of a command's table names every option that can be typed, and no other."""
    for name, command in GROUP.commands.items():
        _, _, after = REFERENCE.read_text("utf-8").partition(f"\n## fsod {name}\n")
        rows = re.findall(r"^\|([^|]*)\|", after.partition("\n## ")[0], re.MULTILINE)
        documented = {option for row in rows for option in re.findall(r"`(--?[\w-]+)`", row)}
        options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
        existing = {spelling for option in options for spelling in (*option.opts, *option.secondary_opts)}
        assert existing - {"--help"} == documented, name


# --- all documents ---


def test_the_commands_can_be_typed() -> None:
    """Every `fsod` command has a name and options that exist."""
    for name, text in TEXTS.items():
        for command in shell_lines(text):
            if command[0] == "fsod":
                try:
                    parse(command[1:])
                except Exception as error:
                    raise AssertionError(f"{name}: {shlex.join(command)}") from error


def test_an_unknown_option_is_found() -> None:
    """A command with an option that does not exist is a usage error here too."""
    with pytest.raises(Exception, match="No such option"):
        parse(["finetune", "--polcy", "last"])


def test_the_scripts_exist() -> None:
    """Every `python` command names a script or a module of the repository, and options that the script defines."""
    commands = [line for text in TEXTS.values() for line in shell_lines(text) if line[0] == "python"]
    for _, target, *rest in commands:
        if target == "-m":
            assert find_spec(rest[0])
            continue
        source = (REPOSITORY / target).read_text("utf-8")
        options = [word for word in rest if word.startswith("--")]
        assert [] == [option for option in options if f'"{option}"' not in source], target


def test_relative_links_lead_somewhere() -> None:
    """A link without a scheme names a file of the repository, and a heading that the file has."""
    for name, text in TEXTS.items():
        document = REPOSITORY / name
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if "://" in link or link.startswith("mailto:"):
                continue
            file, _, heading = link.partition("#")
            target = document.parent / file if file else document
            assert target.exists(), (name, link)
            assert not heading or heading in headings_of(target), (name, link)


def headings_of(document: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a document."""
    titles = re.findall(r"^#+ (.*)$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_one_word_for_one_thing() -> None:
    """A photograph is an image, never the other word."""
    assert [] == [name for name, text in TEXTS.items() if re.search(r"\bpictures?\b", text, re.IGNORECASE)]


def test_nothing_is_left_to_be_filled_in() -> None:
    """No placeholder of the form @@NAME@@ is left."""
    assert [] == [name for name, text in TEXTS.items() if re.search(r"@@\w+@@", text)]


def test_every_example_is_listed() -> None:
    """examples/README.md links every script and every document beside it."""
    text = (EXAMPLES / "README.md").read_text("utf-8")
    files = [path for pattern in ("*.py", "*.sh", "*.md") for path in EXAMPLES.glob(pattern)]
    assert [] == [path.name for path in files if path.name != "README.md" and f"]({path.name})" not in text]


def test_the_code_in_documents_is_that_of_the_examples() -> None:
    """examples/predict.md shows onnx_predict.py as it is, without its docstring."""
    code = (EXAMPLES / "onnx_predict.py").read_text("utf-8").split('"""')[2].strip()
    assert code in python_code((EXAMPLES / "predict.md").read_text("utf-8"))
