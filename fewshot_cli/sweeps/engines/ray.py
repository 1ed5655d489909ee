"""A cluster, through Ray: every item is a task on one of its nodes. Needs the extra `fsod[ray]`.

Ray starts a task again when its node or its process is gone. That repeats nothing, because the work looks at what is
done already. A driver that was stopped is started again with the same command.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fewshot_cli.errors import ConfigError, NetworkError, UsageError
from fewshot_cli.settings import Option, validate
from fewshot_cli.sweeps.engines.contract import Outcomes, Work, as_they_come
from fewshot_cli.threads import use_threads

CONNECT = 10.0
"""Seconds to wait for the cluster's port."""
RETRIES = 3
"""How often a task is started again after its node or its process is gone."""


@dataclass(frozen=True, kw_only=True)
class RayEngine:
    """The nodes of a cluster, all of which see the folder of the sweep."""

    address: Annotated[
        str | None, Option("Address of the cluster: auto, HOST:PORT or ray://HOST:PORT; default: this machine alone.")
    ] = None

    def __post_init__(self) -> None:
        validate(self, error=UsageError)

    def run(self, work: Work, items: Sequence[Any]) -> Outcomes:
        """See `contract.Engine`.

        Raises:
            ConfigError: Ray is not installed.
            NetworkError: there is no cluster at the address.
        """
        ray = _connect(self.address)
        try:
            # One GPU a task where there are any; else one core, so that a node runs as many tasks as it has cores.
            gpus = 1 if ray.cluster_resources().get("GPU", 0) >= 1 else 0
            task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(_run_task)
            futures = {task.remote(work, item).future(): item for item in items}
            yield from as_they_come(futures, ray.exceptions.RayError, _failed)
        finally:
            ray.shutdown()


def _connect(address: str | None) -> Any:
    """The module `ray`, connected."""
    try:
        import ray
    except ImportError as error:
        raise ConfigError("Ray is not installed", hint="pip install 'fsod[ray]', or use --engine local.") from error
    try:
        _check_reachable(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        hint = "Start one with `ray start --head`, or leave --address out for this machine alone."
        raise NetworkError(f"no Ray cluster at {address}: {error}", hint=hint) from error
    return ray


def _check_reachable(address: str | None) -> None:
    """Raise OSError at once where nothing listens: Ray itself would try for minutes."""
    host, found, port = (address or "").removeprefix("ray://").rpartition(":")
    if found and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=CONNECT).close()


def _run_task(work: Work, item: Any) -> Any:
    """On a node. Ray says in OMP_NUM_THREADS how many cores the task has."""
    use_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
    return work(item)


def _failed(error: Exception) -> str:
    return f"its Ray task failed ({type(error).__name__}); a task whose node is gone is started {1 + RETRIES} times"
