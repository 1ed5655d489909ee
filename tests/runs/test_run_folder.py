"""A run's folder: what is told of damaged files, and how runs of an earlier version are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fewshot_cli.errors import DataError
from fewshot_cli.runs.folder import Run


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"ap": 0.5, "thresh', "Unterminated string"),
        ("[]", "it is no JSON object"),
        ('{"thresholds": {"cat": "high"}}', "its thresholds are no scores by class"),
        ('{"thresholds": [0.5]}', "its thresholds are no scores by class"),
    ],
)
def test_a_damaged_result_is_told(content: str, reason: str, tmp_path: Path) -> None:
    """A copy that was cut, or edited by hand: the file and the reason."""
    run = Run(tmp_path)
    run.result_file.write_text(content)
    with pytest.raises(DataError, match=f"{run.result_file} is damaged: {reason}"):
        _ = run.thresholds


def test_a_run_begun_before_there_was_averaging_is_not_averaged(tmp_path: Path) -> None:
    """Its config.json says nothing of it; continued, it must end as it began."""
    run = Run(tmp_path)
    run.config_file.write_text(json.dumps({"command": "finetune", "options": {"data": "x", "policy": "all"}}))
    assert 1.0 == run.read_config().average
