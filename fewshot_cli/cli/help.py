"""`--help` of a subcommand: options under headings, a line each where the screen is wide enough.

Options without a heading stand under Output, with `--help` itself. Rich is imported where help is drawn.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

from fewshot_cli.panels import OUTPUT, place

ARGUMENTS = "Arguments"


class PanelledCommand(TyperCommand):
    """A command whose parameters are sorted by the heading of their panel, and whose help shows them so."""

    def __init__(self, name: str | None, **attributes: Any) -> None:
        super().__init__(name, **attributes)
        self.params.sort(key=lambda parameter: _place(panel_of(parameter)))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Draw the help on stdout."""
        from rich.console import Console

        console = Console(highlight=False, markup=False, emoji=False)
        console.print(self.get_usage(ctx), style="bold")
        console.print(f"\n{self.help}\n")
        panels: dict[str, list[Any]] = {}
        for parameter in self.get_params(ctx):
            panels.setdefault(panel_of(parameter), []).append(parameter)
        # Of one width, so that the texts of all panels begin in the same column.
        width = max(len(names_of(parameter)) for parameter in self.get_params(ctx))
        for panel, parameters in panels.items():
            console.print(_drawn(panel, parameters, min(width, console.width // 2 - 4)))


def panel_of(parameter: Any) -> str:
    """The heading of an option or argument."""
    return getattr(parameter, "rich_help_panel", None) or (
        ARGUMENTS if parameter.param_type_name == "argument" else OUTPUT
    )


def names_of(parameter: Any) -> str:
    """As they are typed: `-q, --quiet`, `--draw/--no-draw`, `--iterations <int>`, `RUN`."""
    value = str(parameter.display_type_rich(ctx=None) or "").replace(" range>", ">")
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    names = [switch for switch in sorted(parameter.opts, key=len) if not switch.startswith("--")]
    names.append(_long(parameter))
    return ", ".join(names) + (f" {value}" if value and not parameter.is_flag else "")


def default_of(parameter: Any) -> str:
    """The default as it is typed on the command line, with six digits; empty where nothing is set."""
    named = getattr(parameter, "show_default", None)
    value = named if isinstance(named, str) else parameter.default
    if value is True:
        return str(parameter.opts[0])
    if value is None or value is False or value in ([], (), ""):
        return ""
    values = value if isinstance(value, list | tuple) else (value,)
    return " ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in values)


def _place(panel: str) -> int:
    return -1 if panel == ARGUMENTS else place(panel)


def _long(parameter: Any) -> str:
    """`--json`, `--draw/--no-draw`: the opposite where it is not what happens anyway."""
    on = str(max(parameter.opts, key=len))
    off = [name for name in parameter.secondary_opts if parameter.default is True or name != f"--no-{on[2:]}"]
    return "/".join([on, *off])


def _drawn(panel: str, parameters: list[Any], width: int) -> Any:
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(width=width, overflow="fold")
    table.add_column(overflow="fold")
    for parameter in parameters:
        default = "on" if parameter.default is True else default_of(parameter)
        shown = f" [default: {default}]" if default else ""
        text = Text(parameter.help or "").append(shown, style="dim")
        table.add_row(Text(names_of(parameter), style="bold cyan"), text)
    return Panel(table, title=panel, title_align="left", border_style="dim")
