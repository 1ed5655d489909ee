"""Features that several fine-tunes share: the same images, frozen layers and cut give the same activations."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from fewshot_cli.training.cache import FeatureCache
from fewshot_cli.training.variants import Example


class FeatureStore:
    """Keeps the last cache of each kind, so that the next fine-tune need not fill it again.

    At most one cache a kind is held: memory stays bounded by what one fine-tune may take.
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Hashable, FeatureCache[Example]]] = {}
        self.reused = 0

    def get(self, kind: str, key: Hashable, make: Callable[[], FeatureCache[Example]]) -> FeatureCache[Example]:
        """The cache of that kind if its key is the same, else what `make` makes, which is then kept.

        Args:
            kind: `train` or `test`.
            key: everything that the activations depend on.
        """
        kept = self._kept.pop(kind, None)
        if kept is not None and kept[0] == key:
            self._kept[kind] = kept
            self.reused += 1
            return kept[1]
        # Dropped before the next is filled: two at a time would take twice the memory.
        del kept
        self._kept[kind] = key, make()
        return self._kept[kind][1]
