"""A sweep on Ray: groups of cells as tasks on the nodes of a cluster. Needs the extra `fsod[ray]`.

The sweep's folder must be one that every node sees. It is also what makes retries safe: a task begins by looking which
of its cells are finished, and goes on with a cell that another left half-way, so a task that Ray starts again after a
node died loses nothing and repeats nothing. A driver that died is started again with the same command.
"""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Any

from fewshot_cli.errors import ConfigError, NetworkError
from fewshot_cli.progress import Task
from fewshot_cli.sweeps.engine import POLL, Failure, Sweep, run_group, unfinished
from fewshot_cli.sweeps.grid import Group, SweepConfig

CONNECT = 10.0
"""Seconds to wait for the cluster's port."""
RETRIES = 3
"""Times that a task is started again after its node or its process died."""


def run_on_ray(
    sweep: Sweep, groups: list[Group], *, address: str | None, share: bool, device: str, task: Task
) -> list[Failure]:
    """Run the unfinished cells of the groups on a cluster, or on this machine alone.

    Args:
        address: as of ray.init: `auto`, `HOST:PORT`, `ray://HOST:PORT`; None: a cluster of this machine's own.

    Raises:
        ConfigError: Ray is not installed.
        NetworkError: there is no cluster at the address.
    """
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
    try:
        return _run(ray, sweep, groups, share, device, task)
    finally:
        ray.shutdown()


def _check_reachable(address: str | None) -> None:
    """Raise OSError at once where nobody listens: Ray itself would try for minutes."""
    host, found, port = (address or "").removeprefix("ray://").rpartition(":")
    if found and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=CONNECT).close()


def _run(ray: Any, sweep: Sweep, groups: list[Group], share: bool, device: str, task: Task) -> list[Failure]:
    # One GPU a task where there are any; else one core, so that a node runs as many tasks as it has cores.
    gpus = 1 if ray.cluster_resources().get("GPU", 0) >= 1 else 0
    remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(_run_task)
    folder, config = str(sweep.folder.resolve()), sweep.config.to_json()
    waiting = {remote.remote(folder, config, tuple(group), share, device): group for group in groups}
    failures: list[Failure] = []
    left = len(sweep.missing())
    while waiting:
        done, _ = ray.wait(list(waiting), timeout=POLL)
        for reference in done:
            group = waiting.pop(reference)
            try:
                failures += [Failure(*failure) for failure in ray.get(reference)]
            except ray.exceptions.RayError as error:
                reason = f"its task failed {RETRIES + 1} times: {type(error).__name__}"
                failures += [Failure(cell, reason, 1) for cell in unfinished(sweep, group)]
        before, left = left, len(sweep.missing())
        task.advance(before - left)
    return failures


def _run_task(folder: str, config: dict[str, Any], group: tuple[str, int, int, str], share: bool, device: str) -> Any:
    """On a node. Plain values in and out, so that driver and node need not agree on classes."""
    import torch

    torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
    sweep = Sweep(Path(folder), SweepConfig(**config))
    return run_group(sweep, Group(*group), share=share, device=device)
