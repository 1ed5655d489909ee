"""HTML pages: one self-contained file each, no network, no script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fewshot_cli.files import write_text
from fewshot_cli.report.choices import trained_text
from fewshot_cli.report.tables import (
    gap_text,
    kept_base_classes,
    mean_ap,
    memory_text,
    number,
    option_value,
    three_digits,
)


def write_page(path: Path, template: str, **content: Any) -> None:
    """Fill `templates/TEMPLATE` and write it.

    Everything that is filled in is escaped: class names and paths come from outside.

    Raises:
        StorageError: the disk cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("fewshot_cli.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    filters = {
        "gap_text": gap_text,
        "mean_ap": mean_ap,
        "memory_text": memory_text,
        "number": number,
        "option_value": option_value,
        "three_digits": three_digits,
        "kept_base_classes": kept_base_classes,
        "trained_text": trained_text,
    }
    environment.filters |= filters
    write_text(path, environment.get_template(template).render(**content))
