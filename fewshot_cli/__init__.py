"""fsod: adapt a pretrained object detector to a new class from about ten images.

    from fewshot_cli import evaluate, fetch, finetune

    data = fetch("helmet", source="my_photos", shots=10)
    run = finetune(data, policy="symmetric", budget=3)
    print(run.result["ap"])
    print(evaluate(run).metrics.numbers)

Everything in `__all__` is imported when it is first used, so importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from os import environ
from typing import TYPE_CHECKING, Any

from fewshot_cli.threads import limit_spinning

# Both are here, because they are read when torch is imported.
limit_spinning()
environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")  # what Apple's GPUs lack runs on the CPU; torch says so once

__version__ = "0.1.0"

_MODULES = {
    "augment": "fewshot_cli.verbs.augment",
    "compare": "fewshot_cli.verbs.compare",
    "evaluate": "fewshot_cli.verbs.evaluate",
    "export": "fewshot_cli.verbs.export",
    "fetch": "fewshot_cli.verbs.fetch",
    "finetune": "fewshot_cli.verbs.finetune",
    "load_run": "fewshot_cli.runs.folder",
    "open_dataset": "fewshot_cli.datasets.store",
    "predict": "fewshot_cli.verbs.predict",
    "sweep": "fewshot_cli.sweeps.run",
}
"""Public function → module that defines it; what else is public is an error."""

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DatasetError",
    "DivergedError",
    "FsodError",
    "ModelError",
    "NetworkError",
    "PolicyError",
    "StorageError",
    "UsageError",
    "augment",
    "compare",
    "evaluate",
    "export",
    "fetch",
    "finetune",
    "load_run",
    "open_dataset",
    "predict",
    "sweep",
]

if TYPE_CHECKING:
    from fewshot_cli.datasets.store import open_dataset
    from fewshot_cli.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        DatasetError,
        DivergedError,
        FsodError,
        ModelError,
        NetworkError,
        PolicyError,
        StorageError,
        UsageError,
    )
    from fewshot_cli.runs.folder import load_run
    from fewshot_cli.sweeps.run import sweep
    from fewshot_cli.verbs.augment import augment
    from fewshot_cli.verbs.compare import compare
    from fewshot_cli.verbs.evaluate import evaluate
    from fewshot_cli.verbs.export import export
    from fewshot_cli.verbs.fetch import fetch
    from fewshot_cli.verbs.finetune import finetune
    from fewshot_cli.verbs.predict import predict


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES.get(name, "fewshot_cli.errors")), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
