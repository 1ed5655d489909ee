"""The subcommands of `fsod`, each imported when it is called, so that `fsod --help` answers at once.

A new subcommand is a module here and a line in COMMANDS.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, NamedTuple

import typer

from fewshot_cli.cli.help import PanelledCommand


class Command(NamedTuple):
    """Where a subcommand is, and its line in `fsod --help`; `fsod COMMAND --help` shows its docstring."""

    module: str
    function: str
    summary: str


COMMANDS = {
    "fetch": Command("fetch", "fetch", "Draw training and test images of a class."),
    "augment": Command("augment", "augment", "Write a data set with variants of its training images."),
    "finetune": Command("finetune", "finetune", "Train the layers that a policy chooses."),
    "eval": Command("eval", "evaluate", "Evaluate a run or a pretrained detector."),
    "predict": Command("predict", "predict", "Detect objects in images, folders and videos."),
    "export": Command("export", "export", "Write a detector as one ONNX or weights file."),
    "inspect-layers": Command("inspect_layers", "inspect_layers", "Show a detector's layers and what would train."),
    "compare": Command("compare", "compare", "Compare runs: mAP by class, drift, learning curves."),
    "report": Command("report", "report", "Write the page of a run or a sweep again."),
    "sweep": Command("sweep", "sweep", "Fine-tune over a grid of policies, budgets and seeds."),
    "demo": Command("demo", "demo", "Adapt an embedded detector to a new class, offline."),
}


class Commands(Mapping[str, Any]):
    """The commands by name, as Typer makes them, in the order of COMMANDS."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = _make(name, COMMANDS[name])
        return self._made[name]


def _make(name: str, command: Command) -> Any:
    alone = typer.Typer(add_completion=False)
    function = getattr(import_module(f"fewshot_cli.cli.{command.module}"), command.function)
    alone.command(name, cls=PanelledCommand)(function)
    return typer.main.get_command(alone)
