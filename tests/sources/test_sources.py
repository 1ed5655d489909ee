"""The registry of sources: a source is one module and one line; its options and its detector are its own."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from helpers_data import draw_coco
from helpers_runs import fsod

from fewshot_cli.datasets.formats import FORMATS
from fewshot_cli.errors import UsageError
from fewshot_cli.sources.fetch import FetchRequest, fetch
from fewshot_cli.sources.registry import SOURCES, check_options, default_detector, options_by_source, parse_source

PATCHES = '''
    """Squares of one colour each: a class is a colour, an image is drawn when it is brought."""

    from collections import Counter
    from dataclasses import dataclass
    from pathlib import Path
    from typing import Annotated, ClassVar

    from fewshot_cli.errors import UsageError
    from fewshot_cli.settings import Option, validate
    from fewshot_cli.sources.survey import Brought, Candidates, Survey

    ARGUMENT = "FOLDER"
    DETECTOR = "yolox_nano"
    COUNT, SMUDGED = 40, 4


    @dataclass(frozen=True, kw_only=True)
    class Options:
        TRANSPORT: ClassVar = ("effort",)

        side: Annotated[int, Option("Side of the images, pixels.", ge=8)] = 16
        effort: Annotated[float, Option("Does nothing.")] = 0.5

        def __post_init__(self):
            validate(self, error=UsageError)


    def survey(query):
        return Survey(
            pool=_candidates("pool", query) if query.pool else None,
            test=_candidates("test", query) if query.test else None,
            origin=lambda: {"name": "patches"},
        )


    def _candidates(part, query):
        place = Path(query.argument) / part
        ids = {name: range(COUNT * label, COUNT * (label + 1)) for label, name in enumerate(query.classes)}
        return Candidates(place=place, ids=ids, bring=lambda wanted: _bring(place, query, wanted))


    def _bring(place, query, ids):
        """Every fourth image is smudged."""
        import numpy as np
        from PIL import Image

        from fewshot_cli.datasets.types import ImageRecord

        side, images = query.options.side, {}
        place.mkdir(parents=True, exist_ok=True)
        for image_id in ids:
            if image_id % SMUDGED:
                name = query.classes[image_id // COUNT]
                path = place / f"{image_id}.png"
                Image.new("RGB", (side, side + image_id), name).save(path)
                images[image_id] = ImageRecord(
                    id=image_id, path=path, width=side, height=side + image_id,
                    boxes=np.array([[0, 0, side, side]], np.float32),
                    labels=np.array([query.classes.index(name)]), crowd=np.array([False]),
                )
        return Brought(
            images=images, left_out=Counter(smudged=len(ids) - len(images)), licences=["none"],
            facts={image.path: {"colour": "plain"} for image in images.values()},
        )
'''


@pytest.fixture
def patches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A source added as the registry says: a module, and a line."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "patches_source.py").write_text(textwrap.dedent(PATCHES))
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.setitem(SOURCES, "patches", "patches_source")
    monkeypatch.delitem(sys.modules, "patches_source", raising=False)
    return f"patches:{tmp_path / 'drawn'}"


def test_a_source_is_one_module_and_one_line(patches: str, tmp_path: Path) -> None:
    """Shots and tests are drawn from it, others stand in for what it leaves out, and the record says what it knows."""
    request = FetchRequest(
        source=patches, classes=("red", "blue"), shots=4, test_images=7, root=tmp_path, options={"side": 20}
    )
    result = fetch(request)
    record = result.dataset.record
    assert {"red": 4, "blue": 4} == result.to_json()["train"]["images_per_class"]
    assert 7 == len(result.dataset.require_test().images)
    assert {20} == {image.width for image in result.dataset.train.images}
    assert not [image for image in result.dataset.train.images if image.id % 4 == 0]
    assert ({"side": 20}, "yolox_nano", {"name": "patches"}, ["none"]) == tuple(
        record[key] for key in ("options", "detector", "origin", "licences")
    )
    assert {"plain"} == {entry["colour"] for entry in record["splits"]["train"]["files"]}
    left_out = len(list((tmp_path / "drawn" / "pool").iterdir())), record["filters"][0]
    assert (8, True) == (left_out[0], left_out[1].startswith("pool: smudged: "))


def test_no_more_images_are_brought_than_drawn(patches: str, tmp_path: Path) -> None:
    """Without a test set the source is asked for none, and for one class the shots are all that it brings."""
    fetch(FetchRequest(source=patches, classes=("red",), shots=5, test_images=0, root=tmp_path))
    assert ["pool"] == [path.name for path in (tmp_path / "drawn").iterdir()]
    assert 5 == len(list((tmp_path / "drawn" / "pool").iterdir()))


def test_too_few_images_say_what_was_left_out(patches: str, tmp_path: Path) -> None:
    """A class that runs out is an error with the counts and the source's reasons."""
    with pytest.raises(Exception, match=r"pool: too few images for 31 shots \(red: 30\); left out: 10 smudged"):
        fetch(FetchRequest(source=patches, classes=("red",), shots=31, root=tmp_path))


def test_a_source_can_be_the_test_source(patches: str, tmp_path: Path) -> None:
    """Shots from one's own images, the test set from elsewhere, each with its own options."""
    draw_coco(tmp_path / "own", [["red"]] * 3, classes=("red",))
    request = FetchRequest(
        source=f"coco:{tmp_path / 'own'}",
        test_source=patches,
        classes=("red",),
        shots=2,
        test_images=3,
        root=tmp_path,
        options={"side": 12},
    )
    dataset = fetch(request).dataset
    assert {12} == {image.width for image in dataset.require_test().images}
    assert {"test_source": {"name": "patches"}} == dataset.record["origin"]
    assert ["test"] == [path.name for path in (tmp_path / "drawn").iterdir()]


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "openimage",
            "unknown source 'openimage'",
            f"Did you mean openimages? Valid: DIR, {', '.join(f'{name}:DIR' for name in FORMATS)}, miniature, openimages.",
        ),
        ("coco", "--source coco needs a DIR", "Write coco:DIR."),
        ("miniature:x", "--source miniature takes no argument", "Write --source miniature."),
        ("openimages:x", "--source openimages takes no argument", "Write --source openimages."),
    ],
)
def test_a_source_that_cannot_be_meant_is_a_usage_error(text: str, message: str, hint: str) -> None:
    """The message says what is wrong, the hint what would be right."""
    with pytest.raises(UsageError) as raised:
        parse_source(text)
    assert (message, hint) == (raised.value.message, raised.value.hint)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("patches:x", {"side": 4}, "side is 4"),
        ("patches:x", {"offline": True}, "--offline does not go with --source patches"),
        ("miniature", {"side": 16}, "--side does not go with --source miniature"),
        ("patches:x", {"colour": 1}, "unknown option 'colour' of fetch"),
    ],
)
def test_options_belong_to_their_source(patches: str, source: str, options: dict[str, object], message: str) -> None:
    """A wrong value, another source's option and an unknown one are usage errors."""
    with pytest.raises(UsageError, match=message):
        check_options(options, [parse_source(source)])


def test_sources_declare_their_detector_and_options() -> None:
    """miniature has a detector of its own; openimages takes options; own files have neither."""
    detectors = {text: default_detector(text) for text in ("miniature", "openimages", "coco:x", "nothing")}
    assert {"miniature": "retinanet_mini", "openimages": None, "coco:x": None, "nothing": None} == detectors
    assert ["openimages"] == list(options_by_source())


def test_listing_the_options_imports_nothing_heavy() -> None:
    """`fsod fetch --help` needs every source's options, and neither NumPy nor Pillow nor pydantic."""
    heavy = ("torch", "numpy", "PIL", "pydantic", "fiftyone")
    code = f"import sys, fewshot_cli.cli.fetch; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]" == found.stdout.strip()


def test_the_command_has_the_options_of_the_sources() -> None:
    """They are listed under the name of their source, with their defaults."""
    text = " ".join(fsod("fetch", "--help").stdout.split())
    assert "Options of --source openimages" in text
    for name in ("--split", "--test-split", "--allow", "--smallest-box", "--mirror", "--offline"):
        assert name in text
    result = fsod("fetch", "--class", "x", "--source", "miniature", "--offline", "--json")
    assert 2 == result.exit_code
    assert "--offline does not go with --source miniature" == json.loads(result.stdout)["error"]["message"]
