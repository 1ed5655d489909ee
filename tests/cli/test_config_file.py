"""--config: what a file may hold, what wins, and what is said when it is wrong."""

from __future__ import annotations

import json
import string
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from fewshot_cli.cli.app import BoundaryGroup
from fewshot_cli.cli.console import Console
from fewshot_cli.cli.options import Config, Json, Quiet

DEFAULTS = {
    "data": None, "class": [], "policy": "last", "budget": None, "lr": 0.001, "cache": True, "range": [0.5, 2.0],
    "seed": 0,
}  # fmt: skip


class Rule(str, Enum):
    last = "last"
    symmetric = "symmetric"


app = typer.Typer(cls=BoundaryGroup, name="fsod")


def recorded(context: typer.Context) -> dict[str, Any]:
    """The command and its options by their names on the command line, as a run's config.json holds them."""
    command: Any = context.command
    names = {
        p.name: max(p.opts, key=len).lstrip("-") for p in command.params if p.name not in ("config", "json", "quiet")
    }
    options = {spelling: context.params.get(name) for name, spelling in names.items()}
    return {"command": command.name, "options": json.loads(json.dumps(options, default=str))}


@app.command("tune-layers")
def tune_layers(
    context: typer.Context,
    data: Annotated[Path | None, typer.Argument()] = None,
    config: Config = None,
    classes: Annotated[list[str] | None, typer.Option("--class", "-c")] = None,
    policy: Annotated[Rule, typer.Option()] = Rule.last,
    budget: Annotated[int | None, typer.Option(min=1)] = None,
    lr: Annotated[float, typer.Option()] = 0.001,
    cache: Annotated[bool, typer.Option("--cache/--no-cache")] = True,
    range: Annotated[tuple[float, float], typer.Option()] = (0.5, 2.0),
    seed: Annotated[int, typer.Option()] = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Answer with the options that arrived."""
    Console(json=json, quiet=quiet).result(recorded(context), "text")


@app.command()
def fetch(config: Config = None, shots: int = 10, seed: int = 0, json: Json = False) -> None:
    """Answer with the options that arrived."""
    Console(json=json).result({"shots": shots, "seed": seed})


def tune(*arguments: str, command: str = "tune-layers") -> Result:
    return CliRunner().invoke(app, [command, "--json", *arguments])


def options_of(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.stderr
    options: dict[str, Any] = json.loads(result.stdout)["options"]
    return options


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.toml"


def test_without_a_file_the_defaults_hold() -> None:
    """The defaults that the other tests compare with are those of the command."""
    options = options_of(tune())

    assert {**DEFAULTS, "class": options["class"]} == options


def test_a_file_sets_any_kind_of_option(file: Path) -> None:
    """Choices, numbers, switches, lists, pairs and arguments can stand in a file, flat or in the command's table."""
    for line, option, value in [
        ('policy = "symmetric"', "policy", "symmetric"),
        ("budget = 3", "budget", 3),
        ("lr = 1e-5", "lr", 1e-5),
        ("lr = 1", "lr", 1.0),
        ("cache = false", "cache", False),
        ('class = ["helmet", "safety vest"]', "class", ["helmet", "safety vest"]),
        ('class = "helmet"', "class", ["helmet"]),
        ('classes = ["helmet"]', "class", ["helmet"]),
        ("class = [7]", "class", ["7"]),
        ("range = [0.25, 4]", "range", [0.25, 4.0]),
        ('data = "a/b"', "data", str(Path("a/b"))),
        ('[tune-layers]\npolicy = "symmetric"', "policy", "symmetric"),
        ('[tune_layers]\npolicy = "symmetric"', "policy", "symmetric"),
        ("seed = 1\n[tune-layers]\nseed = 2", "seed", 2),
        ("seed = 1\n[tune-layers]\nbudget = 2", "seed", 1),
        ("[fetch]\nshots = 3\n[tune-layers]\nseed = 4", "seed", 4),
    ]:
        file.write_text(line)

        assert value == options_of(tune("--config", str(file)))[option], line


@pytest.mark.parametrize(
    ("arguments", "option", "value"),
    [
        (["--policy", "last"], "policy", "last"),
        (["--budget", "2"], "budget", 2),
        (["--cache"], "cache", True),
        (["-c", "fish", "-c", "tire"], "class", ["fish", "tire"]),
        (["here"], "data", "here"),
    ],
)
def test_the_command_line_has_precedence(file: Path, arguments: list[str], option: str, value: object) -> None:
    """What is typed wins over the file, before or after --config; a typed list replaces the file's."""
    file.write_text('policy = "symmetric"\nbudget = 3\ncache = false\nclass = ["helmet"]\ndata = "there"')
    use = ["--config", str(file)]
    in_file = {"policy": "symmetric", "budget": 3, "cache": False, "class": ["helmet"], "data": "there"}

    for words in ([*use, *arguments], [*arguments, *use]):
        assert {**DEFAULTS, **in_file, option: value} == options_of(tune(*words))


def test_json_itself_can_stand_in_the_file_and_be_overruled(file: Path) -> None:
    """A switch has an opposite, so that the command line can take back what the file says."""
    file.write_text("json = true")

    assert "options" in json.loads(CliRunner().invoke(app, ["tune-layers", "--config", str(file)]).stdout)
    assert "text\n" == CliRunner().invoke(app, ["tune-layers", "--config", str(file), "--no-json"]).stdout


@pytest.mark.parametrize("give_folder", [True, False])
def test_the_config_of_a_run_repeats_it(tmp_path: Path, give_folder: bool) -> None:
    """What `recorded` wrote, given back, arrives as the same options; the run's folder is as good as its file."""
    first = tune("-c", "helmet", "--policy", "symmetric", "--budget", "3", "--no-cache", "--range", "1", "2")
    record = {**json.loads(first.stdout), "metrics": [1, 2], "version": "0.1.0"}
    (tmp_path / "config.json").write_text(json.dumps(record))

    again = tune("--config", str(tmp_path if give_folder else tmp_path / "config.json"))
    assert options_of(first) == options_of(again)


@settings(max_examples=30, deadline=None)
@given(
    classes=st.lists(st.text(string.printable, min_size=1), max_size=3),
    budget=st.none() | st.integers(1, 2**40),
    lr=st.floats(allow_nan=False, allow_infinity=False),
    cache=st.booleans(),
    policy=st.sampled_from([rule.value for rule in Rule]),
)
def test_any_options_survive_the_way_through_a_run(
    classes: list[str], budget: int | None, lr: float, cache: bool, policy: str
) -> None:
    """Whatever a run recorded, reading it back gives exactly that."""
    options = {**DEFAULTS, "class": classes, "budget": budget, "lr": lr, "cache": cache, "policy": policy}
    with TemporaryDirectory() as folder:
        run = Path(folder) / "config.json"
        run.write_text(json.dumps({"command": "tune-layers", "options": options}))
        assert options == options_of(tune("--config", str(run)))


@pytest.mark.parametrize(
    ("content", "said", "hint"),
    [
        ("bugdet = 3", "bugdet: no such option", "Did you mean budget?"),
        ("no-cache = true", "no-cache: no such option", "cache"),
        ("config = 'x'", "config: no such option", "Valid: "),
        ("shots = 3", "shots: no such option", "shots is an option of fetch: put it into a table [fetch]."),
        ("[tune-layer]\nseed = 3", "[tune-layer] is no command", "Did you mean tune-layers?"),
        ("budget = 'three'", 'budget: "three" does not fit', "Give budget an integer, without quotes."),
        ("budget = '3'", 'budget: "3" does not fit', "Give budget an integer, without quotes."),
        ("lr = '0.1'", 'lr: "0.1" does not fit', "Give lr a number, without quotes."),
        ("seed = 1.5", "seed: 1.5 does not fit", "`fsod tune-layers --help` says what seed takes."),
        ('data = "a\\u0000b"', "does not fit", "Give data a text without null characters."),
        ("budget = true", "budget: true does not fit", "Give budget one word or number."),
        ("budget = [3]", "budget: [3] does not fit", "Give budget one word or number."),
        ("budget = 0", "budget: 0 does not fit", "budget"),
        ("policy = 'lats'", "policy: \"lats\" does not fit", "policy"),
        ("cache = 'no'", 'cache: "no" does not fit', "Give cache true or false."),
        ("class = [['a']]", 'class: ["a"] does not fit', "Give class a list of words or numbers."),
        ("range = [1]", 'range: [1] does not fit', "range"),
        ("budget = \n", "not valid TOML: ", "A TOML file holds lines such as"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_explained(file: Path, content: str, said: str, hint: str) -> None:
    """Each fault is a configuration error that names file and key, and says what would be right."""
    file.write_text(content)
    result = tune("--config", str(file))
    error = json.loads(result.stdout)["error"]

    assert (4, "ConfigError") == (result.exit_code, error["type"])
    assert str(file) in error["message"]
    assert said in error["message"]
    assert hint in error["hint"]


def test_all_faults_of_a_file_are_told_at_once(file: Path) -> None:
    """One round of corrections is enough."""
    file.write_text("bugdet = 3\npolicy = 'lats'\ncache = 1\nseed = 1")
    message = json.loads(tune("--config", str(file)).stdout)["error"]["message"]

    assert [f"{file}: 3 problems", "  bugdet", "  policy", "  cache"] == [
        line if line.startswith(str(file)) else line.split(":")[0] for line in message.splitlines()
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("broken.toml", b"a = 1\nb == 2", "line 2"),
        ("broken.json", b'{"seed": 1,\n "lr" 2}', "line 2"),
        ("list.json", b"[1, 2]", "holds a list, not options"),
        ("latin.toml", b"a = '\xe9'", "not UTF-8 text (byte 5)"),
        ("deep.json", b"[" * 100_000, "not valid JSON"),
    ],
)
def test_a_file_that_cannot_be_parsed_says_where(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    """A syntax error names the file and, where there are lines, the line."""
    (tmp_path / name).write_bytes(content)
    result = tune("--config", str(tmp_path / name))

    assert 4 == result.exit_code
    assert f"{tmp_path / name}: " in result.stderr
    assert said in result.stderr


def test_a_missing_file_and_a_folder_without_a_run_are_told(tmp_path: Path) -> None:
    """A path that leads nowhere is a configuration error that repeats the path."""
    assert f"{tmp_path / 'no.toml'}: no such configuration file" in tune("--config", str(tmp_path / "no.toml")).stderr
    assert f"{tmp_path / 'config.json'}: no such" in tune("--config", str(tmp_path)).stderr


def test_a_run_of_another_command_is_refused(tmp_path: Path) -> None:
    """config.json repeats the command that wrote it, and only that."""
    run = tmp_path / "config.json"
    run.write_text('{"command": "fetch", "options": {"seed": 3}}')
    result = tune("--config", str(run))

    assert 4 == result.exit_code
    assert "belongs to `fsod fetch`, not to `fsod tune-layers`" in result.stderr
    assert f"hint: Use: fsod fetch --config {run}" in result.stderr
    assert 3 == json.loads(tune("--config", str(run), command="fetch").stdout)["seed"]


def test_null_means_not_given(tmp_path: Path) -> None:
    """A null in a JSON file leaves the default, or the flat value that it stands beside."""
    run = tmp_path / "some.json"
    run.write_text('{"budget": null, "seed": 5, "tune-layers": {"lr": null, "seed": null}}')
    options = options_of(tune("--config", str(run)))

    assert (None, 0.001, 5) == (options["budget"], options["lr"], options["seed"])


def test_a_byte_order_mark_is_no_error(file: Path) -> None:
    """Files from Windows editors are read."""
    file.write_bytes(b"\xef\xbb\xbfseed = 3")

    assert 3 == options_of(tune("--config", str(file)))["seed"]
