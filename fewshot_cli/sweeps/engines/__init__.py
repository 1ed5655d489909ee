"""The engines that run the work of a sweep, on one screen.

To add one, write a module and add a line to ENGINES. The module has a class that
- is a settings class (`fewshot_cli.settings`): its fields are the engine's options (`local`: jobs; `ray`: address);
  a new option also becomes a parameter of `fewshot_cli.sweeps.run.sweep` and of `fsod sweep`;
- has the method `run(work, items)` of `contract.Engine`: call `work(item)` for each item, anywhere and in any order,
  and yield `Done(item, result)`, or `Lost(item, reason)` if the process or the machine that ran it is gone.

Work and items can be pickled. Work may be started again on an item that was lost: it looks by itself at what is done
already. Every machine must see the folder of the sweep under the same path. Nothing else is known to an engine.
The module imports a library that not everybody has (Ray) when it runs, not at the top.
"""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from typing import Any

from fewshot_cli.errors import UsageError, closest
from fewshot_cli.sweeps.engines.contract import Engine

ENGINES: dict[str, str] = {
    "local": "fewshot_cli.sweeps.engines.local:LocalEngine",
    "ray": "fewshot_cli.sweeps.engines.ray:RayEngine",
}
"""Name → module:class, imported when used."""


def get_engine(name: str, **options: Any) -> Engine:
    """The engine of that name with its options; an option that is None counts as not given.

    Raises:
        UsageError: an unknown engine, an option that it does not take, or a value that cannot work.
    """
    if name not in ENGINES:
        raise UsageError(f"unknown engine {name!r}", hint=closest(name, ENGINES))
    given = {option: value for option, value in options.items() if value is not None}
    for option in given:
        if option not in _options_of(name):
            takers = [other for other in ENGINES if option in _options_of(other)]
            raise UsageError(
                f"--{option} does not go with --engine {name}", hint=f"It goes with {', '.join(takers) or 'no engine'}."
            )
    engine: Engine = _load(name)(**given)
    return engine


def _options_of(name: str) -> list[str]:
    return [field.name for field in fields(_load(name))]


def _load(name: str) -> Any:
    module, _, kind = ENGINES[name].partition(":")
    return getattr(import_module(module), kind)
