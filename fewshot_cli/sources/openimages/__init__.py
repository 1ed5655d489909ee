"""`--source openimages`: public photographs with an author and a licence each, downloaded through FiftyOne."""

from __future__ import annotations

from fewshot_cli.sources.openimages.options import OpenImagesOptions as Options
from fewshot_cli.sources.survey import Query, Survey

__all__ = ["Options", "survey"]


def survey(query: Query) -> Survey:
    """Which images of the requested classes there are; see `source.survey_splits`."""
    from fewshot_cli.sources.openimages.source import survey_splits

    return survey_splits(query)
