"""`fsod demo`: the whole way offline, and what it leaves to look at."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers_runs import fsod
from PIL import Image

from fewshot_cli import demo as module
from fewshot_cli.demo import SETUPS, DemoResult, run_demo
from fewshot_cli.progress import SilentReporter

SHOTS, TESTS, VARIANTS = 2, 3, 2
"""Fewer on the page than the real demo shows."""
SHORT = {"iterations": 1, "test_images": TESTS, "copies": 2}
"""Enough to go the whole way, and to fill the page."""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FSOD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def short() -> Iterator[None]:
    """A demo with fewer images."""
    with pytest.MonkeyPatch.context() as patch:
        for name, count in (("SHOTS", SHOTS), ("SHOWN_TESTS", TESTS), ("SHOWN_VARIANTS", VARIANTS)):
            patch.setattr(module, name, count)
        yield


@pytest.fixture(scope="module")
def demo(short: None, tmp_path_factory: pytest.TempPathFactory) -> DemoResult:
    """A demo whose fine-tunes are cut short."""
    folder = tmp_path_factory.mktemp("demo") / "a demo"
    return run_demo(folder, seed=0, reporter=SilentReporter(), **SHORT)


@pytest.fixture(scope="module")
def page(demo: DemoResult) -> str:
    return demo.page.read_text("utf-8")


def test_every_setup_has_a_row(demo: DemoResult) -> None:
    """Equal budgets train the same number of layers; `none` trains nothing."""
    assert list(SETUPS) == [row["setup"] for row in demo.rows]
    assert [3, 3, 0] == [0 if row["layers"] == "none" else len(row["layers"].split(", ")) for row in demo.rows]
    assert 0 == demo.rows[-1]["parameters"]


def test_the_page_needs_nothing_but_itself(page: str) -> None:
    """No address, no script, no other file."""
    assert not re.search(r"https?://|<script|<link|url\(", page)
    sources = re.findall(r'src="([^"]*)"', page)
    assert SHOTS + VARIANTS + TESTS * (1 + len(SETUPS)) == len(sources)
    for source in sources:
        content = base64.b64decode(source.removeprefix("data:image/jpeg;base64,"), validate=True)
        with Image.open(io.BytesIO(content)) as image:
            assert 256 <= max(image.size) <= 800


def test_every_image_says_what_it_shows(page: str) -> None:
    """Each has a text of its own for those who cannot see it."""
    texts = re.findall(r'<img [^>]*alt="([^"]+)"', page)
    assert page.count("<img ") == len(set(texts))


@pytest.mark.slow
def test_a_second_call_uses_what_is_there(demo: DemoResult) -> None:
    """Runs are not trained again; the page is the same."""
    folder = demo.page.parent
    before = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/result.json")}
    again = run_demo(folder, seed=0, reporter=SilentReporter(), **SHORT)
    assert demo == again
    assert before == {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/result.json")}


def test_the_printed_commands_give_the_same_data(demo: DemoResult, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetch and augment, typed as printed in another folder, give the same files."""
    other = demo.page.parent.parent / "by hand"
    other.mkdir()
    monkeypatch.chdir(other)
    for line in demo.commands[1:3]:
        assert 0 == fsod(*shlex.split(line)[1:]).exit_code
    for part in ("train", "test"):
        names = {path.relative_to(other) for path in other.glob(f"data/*/{part}/images/*")}
        assert names
        assert all((other / name).read_bytes() == (demo.page.parent / name).read_bytes() for name in names)


@pytest.mark.slow
def test_the_printed_commands_give_the_same_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole demo by the command line, then what it prints, typed in its folder: the same mAP."""
    monkeypatch.chdir(tmp_path)
    document = json.loads(fsod("demo", "--json").stdout)
    monkeypatch.chdir(tmp_path / "fsod-demo")
    figures = []
    for line in document["commands"][1:]:
        result = fsod(*shlex.split(line)[1:], "--json")
        assert 0 == result.exit_code, line
        if " finetune " in line:
            figures.append(json.loads(result.stdout)["ap"])
    assert [row["ap"] for row in document["rows"]] == pytest.approx(figures, abs=2e-3)
    assert document["rows"][2]["ap"] < document["rows"][1]["ap"]
