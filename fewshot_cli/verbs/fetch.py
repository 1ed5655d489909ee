"""fetch: a few images of a class and a test set, on disk."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from fewshot_cli.progress import Reporter
from fewshot_cli.sources.fetch import FetchRequest, FetchResult
from fewshot_cli.sources.fetch import fetch as fetch_request

__all__ = ["FetchRequest", "FetchResult", "fetch"]


def fetch(
    classes: str | Sequence[str],
    *,
    source: str = "openimages",
    test_source: str | None = None,
    shots: int = 10,
    test_images: int = 100,
    seed: int = 0,
    name: str | None = None,
    root: PathLike[str] | str = "data",
    force: bool = False,
    skip_invalid: bool = False,
    reporter: Reporter | None = None,
    **options: Any,
) -> FetchResult:
    """Draw shots and a test set of some classes and write them as a data set, as `fsod fetch` does.

        data = fetch("helmet", source="coco:photos")
        finetune(data)

    A data set of that name from the same request is used again.

    Args:
        classes: name of the class, or several in label order; case, separators and plurals do not matter.
        source: `coco:DIR` (images of one's own), `openimages` or `miniature`.
        test_source: the same for test images; None: the source's own test split, or what the shots leave of its images.
        shots: training images per class, 1 or more.
        test_images: largest number of test images; 0: no test set, and nothing is downloaded for one.
        seed: of the draw: the same seed and request give the same data set.
        name: folder under `root`; None: from the class names.
        root: folder that holds data sets.
        force: replace a data set of that name.
        skip_invalid: leave faulty images and boxes out, and draw others, instead of raising.
        reporter: receives progress and remarks; None: silent.
        **options: of the source; for openimages: `split`, `test_split`, `allow`, `smallest_box` (a share of width and
            height), `mirror`, `offline`.

    Returns:
        the data set and what was left out of it; a path too, so that it can be given wherever a data set is wanted.

    Raises:
        UsageError: an unknown source or option, or a value that cannot be meant.
        DataError: an unknown class, too few images, or a data set of that name from another request.
        DatasetError: the problems of the source's images and annotations, all at once.
        NetworkError: the source downloads, and that failed; the same call continues where it stopped.
        ConfigError: the source needs a package that is not installed.
        StorageError: the data set cannot be written.
    """
    request = FetchRequest(
        classes=(classes,) if isinstance(classes, str) else tuple(classes),
        source=source,
        test_source=test_source,
        shots=shots,
        test_images=test_images,
        seed=seed,
        name=name,
        root=Path(root),
        force=force,
        skip_invalid=skip_invalid,
        options=options,
    )
    return fetch_request(request, reporter)
