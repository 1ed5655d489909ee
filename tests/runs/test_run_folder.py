"""A run's folder: what is told of damaged files, and how runs of an earlier version are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fewshot_cli.errors import DataError
from fewshot_cli.runs.folder import Run


def edited(**changes: Any) -> Callable[[str], str]:
    """The document of a JSON text with other values."""
    return lambda text: json.dumps({**json.loads(text), **changes})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text[:-20], "is damaged: no valid JSON"),
        (lambda text: "", "is damaged: no valid JSON"),
        (lambda text: "[]", "is damaged: input should be a valid dict"),
        (edited(thresholds={"cat": "high"}), "thresholds.cat: input should be a valid number"),
        (edited(thresholds=[0.5]), "thresholds: input should be a valid dict"),
        (edited(parameters={"trained": 1}), "parameters.total: field required"),
        (edited(best=None), "ap, metrics without the rest of what is measured on a test set"),
        (edited(ap=float("nan")), "ap: input should be a finite number"),
        (edited(caveats="few images"), "caveats: input should be a valid list"),
        (edited(drift={}), "drift lacks the trained layer 'head.1'"),
    ],
)
def test_a_damaged_result_is_told(change: Callable[[str], str], reason: str, trained: Run, tmp_path: Path) -> None:
    """A copy that was cut, or edited by hand: the file, the field and the reason."""
    run = Run(tmp_path)
    run.result_file.write_text(change(trained.result_file.read_text()))
    with pytest.raises(DataError, match=f"{run.result_file} is damaged: ") as refused:
        _ = run.thresholds
    assert reason in refused.value.message


def test_a_run_begun_before_there_was_averaging_is_not_averaged(tmp_path: Path) -> None:
    """Its config.json says nothing of it; continued, it must end as it began."""
    run = Run(tmp_path)
    run.config_file.write_text(json.dumps({"command": "finetune", "options": {"data": "x", "policy": "all"}}))
    assert 1.0 == run.read_config().average
