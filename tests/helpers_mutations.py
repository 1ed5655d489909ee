"""Documents that somebody damaged or edited: any key gone, any value of another type, any byte changed."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

VALUES = st.sampled_from([None, True, -1, 0, 2.5, 10**30, float("nan"), "", "x", [], {}, [None], {"x": None}, [[1]]])


def _places(document: Any) -> list[list[Any]]:
    """The path of every value in a document, the document itself first; of long lists only the first ones."""
    found: list[list[Any]] = [[]]
    if isinstance(document, dict):
        children = list(document.items())
    else:
        children = list(enumerate(document))[:3] if isinstance(document, list) else []
    for key, value in children:
        found += [[key, *path] for path in _places(value)]
    return found


@st.composite
def mutated(draw: st.DrawFn, document: Any) -> Any:
    """The document with one value replaced or deleted."""
    path = draw(st.sampled_from(_places(document)))
    if not path:
        return draw(VALUES)
    changed = copy.deepcopy(document)
    parent = changed
    for key in path[:-1]:
        parent = parent[key]
    if draw(st.booleans()):
        del parent[path[-1]]
    else:
        parent[path[-1]] = draw(VALUES)
    return changed


@st.composite
def damaged_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """A JSON or JSON Lines file: mutated, cut, or with a byte changed."""
    how = draw(st.sampled_from(["mutated", "mutated", "mutated", "cut", "byte"]))
    if how == "cut":
        return content[: draw(st.integers(0, len(content) - 1))]
    if how == "byte":
        place = draw(st.integers(0, len(content) - 1))
        return content[:place] + bytes([draw(st.integers(0, 255))]) + content[place + 1 :]
    try:
        return json.dumps(draw(mutated(json.loads(content)))).encode()
    except json.JSONDecodeError:
        first, *others = content.splitlines()
        return b"\n".join([json.dumps(draw(mutated(json.loads(first)))).encode(), *others])
