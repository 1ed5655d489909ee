"""`--config FILE`: any option of a subcommand, from TOML or from the `config.json` of a run.

    seed = 1                       # flat keys belong to whatever command reads the file
    [finetune]                     # a table belongs to the command of that name
    policy = "symmetric"
    budget = 3
    class = ["helmet", "glove"]    # keys are the options, with - or _ between words

Precedence: command line > file > default. A list given on the command line replaces the file's, it is not added to
it. A run's config.json, `{"command": "finetune", "options": {…}, …}`, repeats that run; null means "not given".
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, time
from functools import lru_cache
from inspect import signature
from pathlib import Path
from typing import Any, get_args

import typer

from fewshot_cli.errors import ConfigError, DatasetError, FsodError, closest
from fewshot_cli.paths import exists, is_folder, named, require_file

Options = dict[str, Any]

LARGEST = 10_000_000
"""Bytes of a configuration file; one has some hundred."""


def apply(path: Path, context: typer.Context) -> None:
    """Make the file's values the defaults of the command in `context`.

    Args:
        path: a TOML file, a JSON file, or the folder of a run (its config.json is read).
        context: of the subcommand, while its command line is being parsed.

    Raises:
        ConfigError: the file is missing or cannot be parsed, is for another command, or holds unknown keys or values
            that the options do not take; all of those are reported together.
    """
    path = named(path, error=ConfigError)
    file = path / "config.json" if is_folder(path, error=ConfigError) else path
    options = _options_of(context, _read(file), file)
    context.default_map = {**(context.default_map or {}), **_checked(context, options, file)}


# --- reading ---


def _read(file: Path) -> Options:
    text = _read_text(file)
    try:
        document = json.loads(text) if file.suffix.lower() == ".json" else _parse_toml(text)
    except (ValueError, RecursionError) as error:  # both parsers' errors are ValueErrors that name line and column
        language = "JSON" if file.suffix.lower() == ".json" else "TOML"
        raise ConfigError(f"{file}: not valid {language}: {error}", hint=_EXAMPLE) from error
    if not isinstance(document, dict):
        raise ConfigError(f"{file}: holds a {type(document).__name__}, not options", hint=_EXAMPLE)
    return document


HINTS, LONGEST_KEY = 5, 100
"""What is shown of many faults, and of a long key."""
_EXAMPLE = 'A TOML file holds lines such as: policy = "symmetric"; a name ending in .json is read as JSON.'


def _read_text(file: Path) -> str:
    hint = "Check the path after --config."
    if not exists(file, error=ConfigError):
        raise ConfigError(f"{file}: no such configuration file", hint=hint)
    require_file(file, error=ConfigError, hint=hint, largest=LARGEST)
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}", hint=hint) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 text (byte {error.start})", hint="Save it as UTF-8.") from error


def _parse_toml(text: str) -> Options:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)


# --- which part of the file is for this command ---


def _options_of(context: typer.Context, document: Options, file: Path) -> Options:
    command = context.command.name or ""
    if isinstance(document.get("options"), dict) and isinstance(document.get("command"), str):
        return _options_of_run(command, document, file)
    siblings = _siblings(context)
    tables = {key: value for key, value in document.items() if isinstance(value, dict)}
    unknown = [key for key in tables if _canonical(key) not in map(_canonical, siblings)]
    if unknown:
        raise ConfigError(f"{file}: [{unknown[0]}] is no command", hint=closest(unknown[0], siblings))
    flat = {key: value for key, value in document.items() if key not in tables}
    own = [table for key, table in tables.items() if _canonical(key) == _canonical(command)]
    # The command's own table has precedence over the flat keys.
    merged = {
        _canonical(key): (key, value)
        for part in [flat, *own]
        for key, value in part.items()
        if value is not None  # JSON's null: not given
    }
    return dict(merged.values())


def _options_of_run(command: str, document: Options, file: Path) -> Options:
    if document["command"] != command:
        raise ConfigError(
            f"{file}: belongs to `fsod {document['command']}`, not to `fsod {command}`",
            hint=f"Use: fsod {document['command']} --config {file}",
        )
    return {key: value for key, value in document["options"].items() if value is not None}


def _siblings(context: typer.Context) -> Mapping[str, Any]:
    group: Any = context.parent.command if context.parent else None
    commands: Mapping[str, Any] = getattr(group, "commands", {})
    return commands


# --- checking ---


@dataclass(frozen=True, slots=True)
class _Fault:
    key: str
    reason: str
    right: str


def _checked(context: typer.Context, options: Options, file: Path) -> Options:
    """The values by parameter name, as the command line's parser would have got them."""
    parameters = _parameters(context.command)
    defaults: Options = {}
    faults: list[_Fault] = []
    for key, value in options.items():
        parameter = parameters.get(_canonical(key))
        if parameter is None:
            faults.append(_Fault(key, "no such option", _where_it_belongs(key, context)))
            continue
        try:
            defaults[parameter.name] = _checked_value(context, parameter, value)
        except FsodError as error:
            faults.append(_Fault(key, error.message, error.hint or ""))
    if faults:
        raise _error_of(faults, file)
    return defaults


def _error_of(faults: list[_Fault], file: Path) -> ConfigError:
    hint = "\n".join(list(dict.fromkeys(fault.right for fault in faults if fault.right))[:HINTS])
    lines = [f"{fault.key[:LONGEST_KEY]}: {fault.reason}" for fault in faults[: DatasetError.SHOWN]]
    if len(faults) > len(lines):
        lines.append(f"… and {len(faults) - len(lines)} more")
    if len(lines) == 1:
        return ConfigError(f"{file}: {lines[0]}", hint=hint)
    return ConfigError("\n  ".join([f"{file}: {len(faults)} problems", *lines]), hint=hint)


def _where_it_belongs(key: str, context: typer.Context) -> str:
    elsewhere = [name for name, command in _siblings(context).items() if _canonical(key) in _parameters(command)]
    if elsewhere:
        return f"{key} is an option of {', '.join(elsewhere)}: put it into a table [{elsewhere[0]}]."
    return closest(_canonical(key).replace("_", "-"), _spellings(context.command))


def _checked_value(context: typer.Context, parameter: Any, value: Any) -> Any:
    """`value` in the parser's form; raises ConfigError if the option does not take it."""
    raw = _as_typed_by_hand(parameter, value, _numbers(context.command.callback).get(parameter.name or ""))
    try:
        parameter.process_value(context, raw)
    except typer.BadParameter as error:
        hint = f"`{context.command_path} --help` says what {_spelling(parameter)} takes."
        raise ConfigError(f"{_shown(value)} does not fit: {error.message}", hint=hint) from error
    return raw


def _as_typed_by_hand(parameter: Any, value: Any, number: str | None) -> Any:
    """The value as the parser gets it from a command line: words, and true or false for a flag.

    So a file takes exactly the values that the command line takes; where those are numbers, it has numbers.
    """
    if getattr(parameter, "is_flag", False):
        if not isinstance(value, bool):
            raise _misfit(parameter, value, "true or false")
        return value
    if parameter.multiple or parameter.nargs != 1:
        return tuple(_word(parameter, item, number) for item in (value if isinstance(value, list) else [value]))
    return _word(parameter, value, number)


def _word(parameter: Any, value: Any, number: str | None) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float | date | time):
        many = parameter.multiple or parameter.nargs != 1
        raise _misfit(parameter, value, "a list of words or numbers" if many else "one word or number")
    if number and isinstance(value, str):
        raise _misfit(parameter, value, f"{number}, without quotes")
    if isinstance(value, str) and "\0" in value:
        raise _misfit(parameter, value, "a text without null characters")
    return str(value)


@lru_cache
def _numbers(command: Callable[..., None]) -> dict[str, str]:
    """Parameter → what it takes, for those of a command that take numbers alone, and no text such as `auto`."""
    found = {}
    for name, parameter in signature(command, eval_str=True).parameters.items():
        kinds = set(_types_in(parameter.annotation))
        texts = str in kinds or any(getattr(each, "parser", None) for each in kinds)
        if not texts and kinds & {int, float}:
            found[name] = "an integer" if int in kinds else "a number"
    return found


def _types_in(annotation: Any) -> Iterator[Any]:
    """`Annotated[list[int] | None, option]` → list[int], int, None, …, option: all that is in it."""
    for each in get_args(annotation):
        yield each
        yield from _types_in(each)


def _misfit(parameter: Any, value: Any, right: str) -> ConfigError:
    return ConfigError(f"{_shown(value)} does not fit", hint=f"Give {_spelling(parameter)} {right}.")


def _shown(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)


# --- names ---


def _canonical(name: str) -> str:
    return name.lstrip("-").replace("-", "_").casefold()


def _takers(command: Any) -> Iterator[Any]:
    """The parameters that a file may set: all but --config itself."""
    return (parameter for parameter in command.params if parameter.name != "config")


def _parameters(command: Any) -> dict[str, Any]:
    """Option → parameter, by every name it has: those on the command line and that of the function."""
    return {
        _canonical(name): parameter
        for parameter in _takers(command)
        for name in [parameter.name, *(opt for opt in parameter.opts if len(opt.lstrip("-")) > 1)]
    }


def _spellings(command: Any) -> list[str]:
    return [_spelling(parameter) for parameter in _takers(command)]


def _spelling(parameter: Any) -> str:
    return str(max(parameter.opts, key=len)).lstrip("-")
