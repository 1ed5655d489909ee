"""Weights into an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from fewshot_cli.detectors.weights import load_exactly
from fewshot_cli.errors import CheckpointError


def load(network: nn.Module, state: Mapping[str, Tensor], path: Path, *, what: str) -> None:
    """Load a state dict if it is exactly the network's; raises CheckpointError.

    Args:
        what: names the network in the message.
    """
    try:
        load_exactly(network, state, what=f"{what} from {path}")
    except CheckpointError as error:
        raise CheckpointError(
            error.message, hint=f"Give weights of {what}, or name the model that they are of."
        ) from error
