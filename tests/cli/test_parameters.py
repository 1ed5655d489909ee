"""Options made from a settings class: names, types, defaults, and what reaches the command."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner, Result

from fewshot_cli.cli.app import BoundaryGroup, app
from fewshot_cli.cli.options import Config, Json, Threads
from fewshot_cli.cli.parameters import takes
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.settings import Option, fields_of, to_json, validate


def whole(size: int | str | None) -> int | str | None:
    return int(size) if isinstance(size, str) and size.isdecimal() else size


@dataclass(frozen=True, kw_only=True)
class Example:
    folder: Annotated[str, Option("Folder.", panel="Places")]
    rate: Annotated[float, Option("Rate.", gt=0)] = 0.5
    count: Annotated[int | None, Option("Count.")] = None
    kind: Annotated[Literal["adamw", "sgd"], Option("Kind.")] = "adamw"
    zoom: Annotated[tuple[float, float], Option("Zoom.")] = (0.5, 2.0)
    names: Annotated[tuple[str, ...], Option("Names.", words=True)] = ("flip", "color")
    freeze: Annotated[bool, Option("Freeze.", flags="--freeze/--thaw")] = True
    fast_start: Annotated[bool, Option("Fast.")] = False
    size: Annotated[int | str | None, Option("Size.", check=whole)] = None
    threads: Annotated[int | None, Option("Not shown: the command has its own.")] = None

    def __post_init__(self) -> None:
        validate(self, hint="Read.")


small = typer.Typer(cls=BoundaryGroup, name="small")


@small.command()
@takes(Example, optional=("folder",))
def train(threads: Threads = None, json: Json = False, config: Config = None, **options: Any) -> None:
    """Answer with the settings that arrived."""
    options["folder"] = options["folder"] or "latest"
    print(json_of(Example(**options, threads=threads)))


@small.command()
@takes(Example, only=("rate", "folder"))
def rate(**options: Any) -> None:
    """Answer with the options that arrived."""
    print(json.dumps(options))


def json_of(settings: Any) -> str:
    return json.dumps(to_json(settings))


def call(*words: str) -> Result:
    return CliRunner().invoke(small, list(words))


def test_defaults_are_those_of_the_settings() -> None:
    """Without options the command builds what the class builds; an optional field without a default arrives as None."""
    assert json_of(Example(folder="latest")) == call("train").stdout.strip()


def test_options_arrive_as_their_types_say() -> None:
    """Numbers, pairs, words, choices, both ends of a switch, and what may be of two types."""
    typed = call(
        "train", "--folder", "here", "--rate", "2", "--count", "3", "--kind", "sgd", "--zoom", "1", "4", "--names", "",
        "--thaw", "--fast-start", "--threads", "2", "--size", "3",
    )  # fmt: skip
    expected = Example(
        folder="here",
        rate=2.0,
        count=3,
        kind="sgd",
        zoom=(1.0, 4.0),
        names=(),
        freeze=False,
        fast_start=True,
        threads=2,
        size=3,
    )
    assert json_of(expected) == typed.stdout.strip(), typed.stderr
    assert json_of(Example(folder="latest", size="5%")) == call("train", "--size", "5%").stdout.strip()
    assert json_of(Example(folder="latest")) == call("train", "--no-fast-start", "--threads", "auto").stdout.strip()


def test_only_the_chosen_fields_become_options() -> None:
    """`only` names them; a field without a default is then required."""
    assert {"folder": "x", "rate": 0.5} == json.loads(call("rate", "--folder", "x").stdout)
    for words, said in ((["rate"], "Missing option '--folder'"), (["rate", "--count", "3"], "No such option: --count")):
        result = call(*words)
        assert (2, True) == (result.exit_code, said in result.stderr), result.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--kind", "lion"], 4, "kind is 'lion': Valid: adamw, sgd."),
        (["--rate", "0", "--kind", "adam"], 4, "rate is 0.0: give a number that is above 0; kind is 'adam': Did you mean adamw?"),
        (["--rate", "fast"], 2, "Invalid value for '--rate'"),
        (["--zoom", "1"], 2, "'--zoom' requires 2 arguments"),
        (["--threads", "-2"], 2, "'-2' is neither auto nor a number that is at least 1"),
    ],
)  # fmt: skip
def test_wrong_types_are_usage_errors_and_wrong_values_are_the_settings_errors(
    words: list[str], code: int, said: str
) -> None:
    """The parser converts; choices and bounds are checked by the settings, all together."""
    result = call("train", *words)
    assert (code, True) == (result.exit_code, said in result.stderr), result.stderr


def test_help_shows_choices_and_panels() -> None:
    """What a Literal takes stands where the value goes."""
    shown = call("train", "--help").stdout
    assert all(word in shown for word in ("adamw|sgd", "─ Places ─", "--freeze", "--thaw", "--no-fast-start", "auto|N"))


def test_config_and_command_line_are_the_same() -> None:
    """Every field of FinetuneConfig is an option of `fsod finetune` of that name, and nothing else is but its own."""
    group: Any = typer.main.get_command(app)
    own = {"resume", "runs", "name", "report", "config", "json", "quiet"}
    assert {*fields_of(FinetuneConfig), *own} == {parameter.name for parameter in group.commands["finetune"].params}
    assert set(FinetuneConfig(data="x").to_json()) == set(fields_of(FinetuneConfig))
