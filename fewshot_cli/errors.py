"""Everything that can go wrong on purpose, each with the exit code a script will see.

    FsodError                 1   never raised itself
    ├── UsageError            2   the command line contradicts itself
    ├── DataError             3   images, annotations or the disk they live on
    │   ├── DatasetError      3   a data set with a list of problems, all of them at once
    │   └── StorageError      3   a full, read-only or forbidden disk
    ├── ConfigError           4   an option or a configuration file
    │   └── PolicyError       4   a policy or a budget that this detector cannot spend
    ├── ModelError            5   an unknown detector
    │   └── CheckpointError   5   weights that are missing, damaged, foreign or hostile
    ├── DivergedError         6   the loss is no longer a number
    └── NetworkError          7   a download that did not come, or came wrong

A message says what is wrong and where; `hint` says what would be right. The library raises; only the
boundary in `fewshot_cli.cli.app` prints and exits. A bug leaves with 1, Ctrl-C with 130.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class FsodError(Exception):
    """Root of every error raised on purpose."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(FsodError):
    """Options that do not go together."""

    exit_code = 2


class DataError(FsodError):
    """An image, an annotation or a sample that cannot be used."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a data set: the file, the record in it, and the reason."""

    file: str
    record: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.record}: {self.reason}" if self.record else f"{self.file}: {self.reason}"


class DatasetError(DataError):
    """A data set with problems. All of them are listed, so that one correction round is enough."""

    SHOWN = 20

    def __init__(self, where: str, problems: Sequence[Problem], *, hint: str | None = None) -> None:
        self.problems = tuple(problems)
        shown = [f"  {problem}" for problem in self.problems[: self.SHOWN]]
        if len(self.problems) > self.SHOWN:
            shown.append(f"  … and {len(self.problems) - self.SHOWN} more (--json lists all)")
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__("\n".join([f"{where}: {count}", *shown]), hint=hint)


class StorageError(DataError):
    """The disk is full, read-only, or not ours to write."""


class ConfigError(FsodError):
    """An option or a configuration file holds a value that cannot work."""

    exit_code = 4


class PolicyError(ConfigError):
    """A policy or budget that the detector's head cannot spend."""


class ModelError(FsodError):
    """An unknown detector, or something that a detector does not have."""

    exit_code = 5


class CheckpointError(ModelError):
    """Weights that are missing, truncated, of another detector, or not plain tensors."""


class DivergedError(FsodError):
    """The loss became infinite or not a number. What was saved before stays."""

    exit_code = 6


class NetworkError(FsodError):
    """A download failed, was cut short, or a server answered with something else."""

    exit_code = 7


def closest(name: str, valid: Iterable[str]) -> str:
    """A sentence for `hint`: the closest valid name, if any, and all of them, or the first NAMED of very many."""
    names = list(valid)
    folded = {candidate.casefold(): candidate for candidate in names}
    match = difflib.get_close_matches(name[:LONGEST].casefold(), folded, n=1, cutoff=0.6)
    guess = f"Did you mean {folded[match[0]]}? " if match else ""
    more = f", … and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"{guess}Valid: {', '.join(names[:NAMED]) or 'none'}{more}."


NAMED = 100
"""Names in a message."""
LONGEST = 200
"""Characters of a name that are compared."""
