"""`--source miniature`: a small world drawn by this package, for work without a network."""

from __future__ import annotations

from fewshot_cli.sources.survey import Query, Survey

DETECTOR = "retinanet_mini"
"""Pretrained on the base classes of this world."""


def survey(query: Query) -> Survey:
    """The scenes of the requested classes; see `source.survey_world`."""
    from fewshot_cli.sources.miniature.source import survey_world

    return survey_world(query)
