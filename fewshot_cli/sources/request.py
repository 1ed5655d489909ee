"""The settings of a draw, checked when they are built; light to import, so that the command line can list them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from fewshot_cli.errors import UsageError
from fewshot_cli.settings import Option, validate
from fewshot_cli.sources.registry import Source, check_options, parse_source


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchRequest:
    """What to draw, and where it goes; raises UsageError for what cannot be meant."""

    classes: Annotated[
        tuple[str, ...], Option("Class to detect; may be given several times. Their order is the label order.")
    ]
    shots: Annotated[int, Option("Training images per class.", ge=1)] = 10
    source: Annotated[
        str,
        Option(
            "Where images come from: openimages, public photographs; coco:DIR, your own images with COCO "
            "annotations; or miniature, a small drawn world.",
            metavar="SOURCE",
        ),
    ] = "openimages"
    test_source: Annotated[
        str | None,
        Option(
            "Where test images come from; default: the source's own test split, or what the shots leave of its images.",
            metavar="SOURCE",
        ),
    ] = None
    test_images: Annotated[int, Option("Largest number of test images; 0: no test set.", ge=0)] = 100
    seed: Annotated[int, Option("Random seed of the draw: same seed, same data set.")] = 0
    name: Annotated[str | None, Option("Folder under --root; default: from the class names.")] = None
    root: Annotated[Path, Option("Folder that holds data sets.")] = Path("data")
    force: Annotated[bool, Option("Replace a data set of that name.")] = False
    skip_invalid: Annotated[
        bool, Option("Leave faulty images and boxes out, and draw others, instead of stopping.")
    ] = False
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the source and the test source, by name; see the `Options` of each source."""

    def __post_init__(self) -> None:
        validate(self, error=UsageError, hint="`fsod fetch --help` says what each option takes.")
        if not self.classes or not all(name.strip() for name in self.classes):
            raise UsageError("no class is named", hint="Give at least one --class NAME.")
        if not re.fullmatch(r"[^/\\\0.][^/\\\0]*", self.folder_name):
            raise UsageError(
                f"{self.folder_name!r} cannot be the name of a data set",
                hint="Give --name without slashes and without a dot in front.",
            )
        if self.test_source and not self.test_images:
            raise UsageError("--test-source does not go with --test-images 0", hint="Leave one of them out.")
        check_options(self.options, self.sources)

    @property
    def sources(self) -> list[Source]:
        """Where the shots come from and, if it is named, where the test images come from."""
        return [parse_source(text) for text in (self.source, self.test_source) if text is not None]

    @property
    def folder_name(self) -> str:
        """`--name`, or the class names in lower case joined with hyphens: `coffee_cup-helmet`."""
        if self.name is not None:
            return self.name
        return "-".join(re.sub(r"[^\w.]+", "_", name.strip().casefold()).strip("._") for name in self.classes)

    @property
    def folder(self) -> Path:
        return self.root / self.folder_name

    def record(self) -> dict[str, Any]:
        """What makes two requests the same, besides the classes."""
        sources = self.sources
        options: dict[str, Any] = {}
        for source in sources:
            options.update(source.drawing_options(self.options))
        return {
            "source": str(sources[0]),
            "test_source": str(sources[1]) if self.test_source else None,
            "shots": self.shots,
            "test_images": self.test_images,
            "seed": self.seed,
            "skip_invalid": self.skip_invalid,
            "options": options,
        }
