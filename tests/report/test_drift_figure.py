"""The figure of the drift of each convolution."""

from __future__ import annotations

import math

from fewshot_cli.report.drift import drift_figure


def test_drift_within_rounding_is_a_gap_and_sets_no_scale() -> None:
    """Weights that only decayed keep their direction up to rounding; what turned stays."""
    (panel,) = drift_figure({"a": [1e-3, 1e-13, None, 1e-8]}, "base").axes
    (line,) = panel.lines
    drawn = [float(value) for value in line.get_ydata()]
    assert [1e-3, 1e-8] == [drawn[0], drawn[3]] and all(map(math.isnan, drawn[1:3]))
    assert "log" == panel.get_yscale()


def test_a_figure_without_drift_has_a_linear_axis() -> None:
    """A logarithmic one has no place for nothing."""
    assert "linear" == drift_figure({"a": [0.0, 1e-14]}, "base").axes[0].get_yscale()
