"""What was chosen, in words: what trains, with policy `auto` too, and how the detector is averaged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def chosen_text(search: Mapping[str, Any]) -> str:
    """What policy `auto` chose; `search` is that of result.json."""
    return f"{search['chosen']}, of {len(search['candidates'])} candidates (policy auto)"


def trained_text(result: Mapping[str, Any]) -> str:
    """The layers that trained, and what of them did not; `result` is that of a run."""
    layers = ", ".join(result["trained_layers"]) or "nothing"
    frozen = result.get("freeze_first")
    return f"{layers}, without the first {frozen} convolutions" if frozen else layers


def averaged_text(result: Mapping[str, Any]) -> str | None:
    """How a detector is averaged with its weights before training; None if it is what training made of it.

    Args:
        result: of a run; runs made before there was averaging say nothing of it.
    """
    from fewshot_cli.training.averaging import Average  # torch: not at import, other tables do without

    average = result.get("average")
    if not average or average["alpha"] == 1 or not result["trained_layers"]:
        return None
    return Average(**average).describe()


def outcomes(search: Mapping[str, Any]) -> dict[str, str]:
    """Candidate → what became of it, and why: `chosen`, `clearly worse after 4 of 10 shots`, `more parameters`, …"""
    candidates = search["candidates"]
    stayed = search["chosen"] == search.get("default")  # runs before there was a default to stay at have none
    chosen = next(one for one in candidates if one["name"] == search["chosen"])
    best = max(_finished(search), key=lambda one: one["score"])
    return {
        one["name"]: _dropped(one, chosen) or (_stayed if stayed else _compared)(one, chosen, best)
        for one in candidates
    }


def _finished(search: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The candidates that were measured on all shots and compared at the end."""
    return [one for one in search["candidates"] if not one["dropped"]]


def _dropped(candidate: Mapping[str, Any], chosen: Mapping[str, Any]) -> str:
    """Why it was dropped, and after how many shots; empty if it was not."""
    if 0 < candidate["shots"] < chosen["shots"]:
        return f"{candidate['dropped']} after {candidate['shots']} of {chosen['shots']} shots"
    return candidate["dropped"] or ""


def _stayed(candidate: Mapping[str, Any], chosen: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    """Why it was not chosen, where the default was."""
    return "chosen, the default" if candidate is chosen else "not clearly better than the default"


def _compared(candidate: Mapping[str, Any], chosen: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    """Why it was chosen or not, by the rule of `selection.trials.choose`."""
    if candidate is chosen:
        return "chosen"
    if candidate is best:
        return "best score, but more parameters"
    if candidate["parameters"] > chosen["parameters"]:
        return "more parameters"
    # Of the same number the better one is chosen, unless it is too far from the best.
    same = candidate["parameters"] == chosen["parameters"] and candidate["score"] <= chosen["score"]
    return "lower score" if same else "worse by more than one standard error"
