"""The options of `--source openimages`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from fewshot_cli.errors import UsageError, closest
from fewshot_cli.settings import Option, validate
from fewshot_cli.sources.openimages.release import ALLOWABLE

SplitName = Literal["validation", "test", "train"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenImagesOptions:
    """Which images of Open Images may be drawn, and how they are brought; raises UsageError."""

    TRANSPORT: ClassVar[tuple[str, ...]] = ("mirror", "offline")

    split: Annotated[
        SplitName, Option("Split that shots come from: validation, test, or train, whose lists weigh 3 GB.")
    ] = "validation"
    test_split: Annotated[SplitName, Option("Split that test images come from: test, validation or train.")] = "test"
    allow: Annotated[
        tuple[str, ...],
        Option(
            f"Marks that an image may have and is left out for otherwise: {', '.join(ALLOWABLE)}.",
            metavar="MARKS",
            words=True,
        ),
    ] = ()
    smallest_box: Annotated[
        float,
        Option(
            "Leave out images with a box of the class below this share of their width or height.",
            metavar="SHARE",
            ge=0,
            lt=1,
        ),
    ] = 0.0
    mirror: Annotated[
        str | None, Option("Address of a copy with the original paths, to download from.", metavar="URL")
    ] = None
    offline: Annotated[bool, Option("Download nothing; use what was downloaded before.")] = False

    def __post_init__(self) -> None:
        validate(self, error=UsageError, hint="`fsod fetch --help` says what each option takes.")
        for mark in self.allow:
            if mark not in ALLOWABLE:
                raise UsageError(f"allow is {mark!r}", hint=closest(mark, ALLOWABLE))
        if self.mirror and not _is_address(self.mirror):
            raise UsageError(
                f"mirror is {self.mirror!r}, which is no address", hint="Give http://HOST/PATH or https://…."
            )
        # The order does not matter, so it makes no other request.
        object.__setattr__(self, "allow", tuple(sorted(self.allow)))


def _is_address(text: str) -> bool:
    parts = urlsplit(text)
    return parts.scheme in ("http", "https") and bool(parts.netloc)
