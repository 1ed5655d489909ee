"""Placeholder; the lead writes this one."""

from __future__ import annotations

from fewshot_cli.cli.console import Console
from fewshot_cli.cli.options import Config, Json, Quiet


def augment(config: Config = None, json: Json = False, quiet: Quiet = False) -> None:
    """Not written yet."""
    Console(json=json, quiet=quiet).result({}, "not written yet")
