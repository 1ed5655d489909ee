"""The command reference of the README, made from the commands themselves: python -m fewshot_cli.cli.reference"""

from __future__ import annotations

from typing import Any

import typer

from fewshot_cli.cli.app import app


def reference() -> str:
    """Markdown: one table of options for each subcommand."""
    group: Any = typer.main.get_command(app)
    return "\n\n".join(_section(name, command) for name, command in group.commands.items())


def _section(name: str, command: Any) -> str:
    rows = [_row(parameter) for parameter in command.params if parameter.name != "help"]
    head = f"### fsod {name}\n\n{command.help}\n\n| option | default | meaning |\n| --- | --- | --- |"
    return "\n".join([head, *rows])


def _row(parameter: Any) -> str:
    switches = [*parameter.opts, *parameter.secondary_opts] if parameter.param_type_name == "option" else []
    names = ", ".join(f"`{name}`" for name in switches) or f"`{parameter.metavar or parameter.name.upper()}`"
    cells = (names, _default(parameter.default), parameter.help)
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _default(value: Any) -> str:
    return "" if value is None or value is False or value == [] else f"`{value}`"


if __name__ == "__main__":
    print(reference())
