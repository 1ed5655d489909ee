"""Options of a command, made from the fields of a settings class.

    @takes(FinetuneConfig, optional=("data", "detector"))
    def finetune(runs: Runs = Path("runs"), **options: Any) -> None:
        config = FinetuneConfig(**options)

Name, type, default, help, choices and panel of an option stand in the settings class alone. Types are converted by
the command line's parser; choices and bounds are checked by the settings, for all sources of options alike.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Annotated, Any, TypeVar, get_args

import typer

from fewshot_cli.settings import Field, fields_of

Command = TypeVar("Command", bound=Callable[..., None])


def takes(
    settings: type, *, only: Collection[str] | None = None, optional: Collection[str] = ()
) -> Callable[[Command], Command]:
    """Give a command the options of a settings class, before its own parameters.

    The command receives them in its `**options`. A parameter that it declares itself stands in for the field of that
    name.

    Args:
        settings: the class.
        only: names of the fields that become options; default: all.
        optional: fields that may be missing whatever their default: None then reaches the command.
    """
    chosen = [field for name, field in fields_of(settings).items() if only is None or name in only]

    def give(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in signature.parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        names = {parameter.name for parameter in own}
        made = [_parameter(field, field.name in optional) for field in chosen if field.name not in names]
        # What Typer reads instead of the function's own declaration.
        command.__signature__ = signature.replace(parameters=[*made, *own])  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in [*made, *own]}
        return command

    return give


def _parameter(field: Field, optional: bool) -> inspect.Parameter:
    kind, default = _as_typed(field)
    if optional:
        kind, default = kind | None, None
    flags = [field.option.flags or _switch(field.name)] if field.type is bool else []
    option = typer.Option(
        *flags,
        help=field.option.help,
        metavar=field.option.metavar or "|".join(field.choices) or None,
        rich_help_panel=field.option.panel,
    )
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if field.required and not optional else default,
        annotation=Annotated[kind, option],
    )


def _as_typed(field: Field) -> tuple[Any, Any]:
    """Type and default on the command line.

    Words are one text there; choices, and what may be of several types, are texts that are checked later.
    """
    if field.option.words:
        return str, ",".join(field.default)
    optional = type(None) in get_args(field.type)
    if field.choices or len(field.kinds) > 1:
        return (str | None if optional else str), field.default
    return field.type, field.default


def _switch(name: str) -> str:
    word = name.replace("_", "-")
    return f"--{word}/--no-{word}"
