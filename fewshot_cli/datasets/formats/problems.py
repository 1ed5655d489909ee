"""The problems of one annotation file, collected while it is read, so that all are reported at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewshot_cli.datasets.formats.values import is_id, shown
from fewshot_cli.errors import DatasetError, Problem


@dataclass(slots=True)
class Problems:
    """Faults of `file`, in the order in which they were found."""

    file: Path
    found: list[Problem] = field(default_factory=list)

    def add(self, record: str, reason: str, file: Path | None = None) -> None:
        """Note a fault of a record (empty: of the whole file); `file`: if it is one of another file."""
        self.found.append(Problem(str(file or self.file), record, reason))

    def error(self, hint: str) -> DatasetError:
        return DatasetError(str(self.file), self.found, hint=hint)


def numbered(records: list[Any], kind: str, problems: Problems) -> Iterator[tuple[int, dict[str, Any]]]:
    """(id, record) of the JSON objects in a list that have an integer id of their own; the others are problems."""
    seen: set[int] = set()
    for position, record in enumerate(records):
        record_id = record.get("id") if isinstance(record, dict) else None
        if not isinstance(record, dict):
            problems.add(f"{kind} at position {position}", "not an object")
        elif not is_id(record_id):
            problems.add(f"{kind} at position {position}", f"the id is not an integer: {shown(record_id)}")
        elif record_id in seen:
            problems.add(f"{kind} {record_id}", "the id is used twice")
        else:
            seen.add(record_id)
            yield record_id, record
