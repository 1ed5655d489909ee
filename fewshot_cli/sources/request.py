"""The settings of a draw, checked when they are built; light to import, so that the command line can list them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from fewshot_cli.bounds import SEED, SHOTS, TEST_IMAGES
from fewshot_cli.datasets.formats import FORMATS
from fewshot_cli.datasets.sampling import subsets_of
from fewshot_cli.errors import UsageError
from fewshot_cli.panels import ADVANCED, DATA, OUTPUT
from fewshot_cli.paths import LONGEST_NAME, is_plain_name, shown
from fewshot_cli.settings import Option, validate
from fewshot_cli.sources.registry import Source, check_options, parse_source

ALL = "all"
"""`--class all`: every class of the sources."""
SHOTS_DRAWN = 10
"""Where neither --shots nor --fraction is given."""


def texts_of(source: str | tuple[str, ...]) -> tuple[str, ...]:
    """One source or several, as a tuple."""
    return (source,) if isinstance(source, str) else source


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchRequest:
    """What to draw, and where it goes; raises UsageError for what cannot be meant."""

    classes: Annotated[
        tuple[str, ...],
        Option(
            f"Class to detect; may be given several times, in label order. {ALL}: every one; none: list them.",
            panel=DATA,
        ),
    ]
    shots: Annotated[
        int | None, Option(f"Training images per class; default: {SHOTS_DRAWN}.", panel=DATA, within=SHOTS)
    ] = None
    fraction: Annotated[
        float | None,
        Option("Instead of --shots: share of all training images, 0.01 to 1.", panel=DATA, ge=0.01, le=1),
    ] = None
    subset: Annotated[
        int, Option("Which of the disjoint subsets of that --fraction and --seed: 1, 2, ….", panel=DATA, ge=1)
    ] = 1
    source: Annotated[
        str | tuple[str, ...],
        Option(
            "Where images come from: openimages; your own DIR, or FORMAT:DIR (" + ", ".join(FORMATS) + "); miniature.",
            panel=DATA,
            metavar="SOURCE",
        ),
    ] = "openimages"
    test_source: Annotated[
        str | None,
        Option(
            "Where test images come from; default: the source's test split, else what the shots leave.",
            panel=DATA,
            metavar="SOURCE",
        ),
    ] = None
    test_images: Annotated[
        int, Option("Largest number of test images; 0: no test set.", panel=DATA, within=TEST_IMAGES)
    ] = 100
    seed: Annotated[int, Option("Random seed of the draw: same seed, same data set.", panel=DATA, within=SEED)] = 0
    name: Annotated[str | None, Option("Folder under --root; default: from the class names.", panel=OUTPUT)] = None
    root: Annotated[Path, Option("Folder that holds data sets.", panel=OUTPUT)] = Path("data")
    force: Annotated[bool, Option("Replace a data set of that name.", panel=OUTPUT)] = False
    skip_invalid: Annotated[bool, Option("Leave faulty images and boxes out and draw others.", panel=ADVANCED)] = False
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the source and the test source, by name; see the `Options` of each source."""

    def __post_init__(self) -> None:
        validate(self, error=UsageError, hint="`fsod fetch --help` says what each option takes.")
        if not self.classes or not all(name.strip() for name in self.classes):
            raise UsageError("no class is named", hint="Give at least one --class NAME.")
        if self.folder_name.startswith(".") or not is_plain_name(self.folder_name):
            raise UsageError(
                f"{shown(self.folder_name)!r} cannot be the name of a data set",
                hint=f"Give --name of at most {LONGEST_NAME} letters, without slashes and without a dot in front.",
            )
        if self.test_source and not self.test_images:
            raise UsageError("--test-source does not go with --test-images 0", hint="Leave one of them out.")
        # Kept as they were parsed: with their format, and whole paths.
        object.__setattr__(self, "source", tuple(str(parse_source(text)) for text in texts_of(self.source)))
        if not self.source or len(set(self.source)) < len(self.source):
            raise UsageError("a source is given twice, or none", hint="Give every --source once.")
        if self.test_source is not None:
            object.__setattr__(self, "test_source", str(parse_source(self.test_source)))
        check_options(self.options, [*self.sources, *filter(None, [self.source_of_test])])
        self._check_amount()

    def _check_amount(self) -> None:
        """Shots or a fraction, and a subset that there is; 10 shots if nothing is said."""
        if self.fraction is None:
            if self.subset != 1:
                raise UsageError(f"--subset {self.subset} without --fraction", hint="Give --fraction too: 0.25.")
            object.__setattr__(self, "shots", self.shots or SHOTS_DRAWN)
            return
        if self.shots is not None:
            raise UsageError("--shots does not go with --fraction", hint="Give one of them.")
        if self.subset > (subsets := subsets_of(self.fraction)):
            there_are = f"there are {subsets} disjoint subsets" if subsets > 1 else "there is one subset"
            raise UsageError(
                f"--subset {self.subset} of --fraction {self.fraction:g}: {there_are}",
                hint=f"Give --subset {subsets} or less, or a --fraction of at most {1 / self.subset:.3g}.",
            )
        if others := [source.name for source in self.sources if not source.at_hand]:
            raise UsageError(
                f"--fraction does not go with --source {others[0]}, whose images are made available as they are drawn",
                hint="Give --shots; or fetch a large number of shots, and give the data set as a --source.",
            )

    @property
    def sources(self) -> list[Source]:
        """Where the shots come from."""
        return [parse_source(text) for text in texts_of(self.source)]

    @property
    def source_of_test(self) -> Source | None:
        """Where the test images come from, if it is named."""
        return parse_source(self.test_source) if self.test_source is not None else None

    @property
    def folder_name(self) -> str:
        """`--name`, or the class names in lower case joined with hyphens: `coffee_cup-helmet`."""
        if self.name is not None:
            return self.name
        return "-".join(re.sub(r"[^\w.]+", "_", name.strip().casefold()).strip("._") for name in self.classes)

    @property
    def folder(self) -> Path:
        return self.root / self.folder_name

    @property
    def amount(self) -> dict[str, Any]:
        """How many training images are drawn: `shots`, or `fraction` and `subset`."""
        if self.fraction is None:
            return {"shots": self.shots}
        return {"fraction": self.fraction, "subset": self.subset}

    def record(self) -> dict[str, Any]:
        """What makes two requests the same, besides the classes."""
        options: dict[str, Any] = {}
        for source in [*self.sources, *filter(None, [self.source_of_test])]:
            options.update(source.drawing_options(self.options))
        texts = list(texts_of(self.source))
        return {
            "source": texts[0] if len(texts) == 1 else texts,
            "test_source": self.test_source,
            **self.amount,
            "test_images": self.test_images,
            "seed": self.seed,
            "skip_invalid": self.skip_invalid,
            "options": options,
        }
