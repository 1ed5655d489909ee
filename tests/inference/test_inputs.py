"""Inputs: which files words name, and under which names they are filed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fewshot_cli.errors import DataError
from fewshot_cli.inference.inputs import RECORD, find_inputs


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def names(*words: str) -> list[str]:
    return [each.name for each in find_inputs(words)]


def test_a_folder_is_searched_recursively() -> None:
    """Images and videos in order, under their path in the folder; hidden ones and other files are left out."""
    touch(
        "photos/b/2.PNG",
        "photos/a/1.jpg",
        "photos/clip.mp4",
        "photos/notes.md",
        "photos/.hidden.jpg",
        "photos/.x/3.jpg",
    )
    assert ["clip.mp4", "a/1.jpg", "b/2.PNG"] == names("photos")
    assert [True, False, False] == [each.is_video for each in find_inputs(["photos"])]


def test_files_of_one_name_in_two_folders_keep_both() -> None:
    """Names are relative to what holds all that was named."""
    touch("x/a/1.jpg", "x/b/1.jpg")
    assert ["a/1.jpg", "b/1.jpg"] == names("x/a", "x/b") == names("x/a/1.jpg", "x/b/1.jpg") == names("x")


def test_drawings_differ_without_their_suffix() -> None:
    """No drawing is written over another, also where case is ignored; the name stays that of the file."""
    touch("1.jpg", "1.png", "sub/1.jpg", "A.jpg", "a.JPG")
    words = ["1.jpg", "1.png", "sub/1.jpg", "A.jpg", "a.JPG"]
    assert words == names(*words)
    assert ["1.jpg", "1-2.png", "sub/1.jpg", "A.jpg", "a-2.JPG"] == [each.drawing for each in find_inputs(words)]


def test_a_file_named_twice_is_taken_once() -> None:
    """By its own name and in its folder."""
    touch("photos/1.jpg", "photos/2.jpg")
    assert ["2.jpg", "1.jpg"] == names("photos/2.jpg", "photos")


def test_patterns_are_expanded() -> None:
    """As a shell would, and ** too, for those who quote them; hidden files do not match."""
    touch("p/1.jpg", "p/q/2.jpg", "p/q/r/3.png", "p/.4.jpg", "p/5.txt")
    assert ["1.jpg", "q/2.jpg", "q/r/3.png"] == names("p/**")
    assert ["1.jpg"] == names("p/*.jpg")
    assert ["q/2.jpg", "q/r/3.png"] == names("p/?")


def test_a_list_holds_paths_relative_to_itself() -> None:
    """Blank lines and comments are left out; a file that is gone stays, to be reported with the unreadable ones."""
    touch("lists/a/1.jpg", "other/2.jpg", "lists/b/3.jpg")
    Path("lists/all.txt").write_text("# photos\na/1.jpg\n\n../other/2.jpg\nb\ngone.jpg\n")
    found = find_inputs(["lists/all.txt"])
    assert ["1.jpg", "2.jpg", "3.jpg", "gone.jpg"] == [each.path.name for each in found]


def test_a_pipe_is_not_read_and_a_loop_of_links_ends() -> None:
    """A folder may hold anything."""
    touch("photos/1.jpg")
    os.mkfifo("photos/pipe.jpg")
    Path("photos/again").symlink_to(Path("photos").resolve(), target_is_directory=True)
    Path("photos/broken.jpg").symlink_to("nowhere.jpg")
    assert ["1.jpg"] == names("photos")


def test_what_predict_has_drawn_is_no_input() -> None:
    """`fsod predict .` twice detects in the photographs twice."""
    touch("1.jpg", f"predictions/{RECORD}", "predictions/drawn/1.jpg")
    assert ["1.jpg"] == names(".")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("nowhere.jpg", "nowhere.jpg does not exist"),
        ("empty", "empty holds no image and no video"),
        ("empty/*", "empty/* matches no image"),
        ("empty/list.txt", "no image and no video is named"),
        ("bytes.txt", "cannot be read as a list"),
        ("zeros.txt", "cannot be read as a list of paths: line 2 is no path"),
        ("line.txt", "cannot be read as a list of paths: line 1 is no path"),
        ("name.txt", "name.txt: cannot be looked up: the name is too long"),
        (300 * "a" + ".jpg", "the name is too long"),
        ("", "an input is empty"),
    ],
)
def test_what_names_nothing_is_told(word: str, message: str) -> None:
    """A data error with what would be right."""
    touch("empty/list.txt")
    Path("bytes.txt").write_bytes(b"\xff\xfe\x00")
    Path("zeros.txt").write_text("a.jpg\nb\0.jpg\n")
    Path("line.txt").write_text(5000 * "a/")
    Path("name.txt").write_text(300 * "a" + ".jpg\n")
    with pytest.raises(DataError) as caught:
        find_inputs([word])
    assert message in caught.value.message and caught.value.hint


def test_a_list_is_no_device_and_not_endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of many gigabytes is not read, nor is a device."""
    monkeypatch.setattr("fewshot_cli.inference.inputs.LARGEST_LIST", 1_000_000)
    with Path("large.txt").open("wb") as file:
        file.truncate(1_000_001)
    with pytest.raises(DataError, match="large.txt: cannot be read as a list of paths: it has more than 1 million"):
        find_inputs(["large.txt"])
    Path("device.txt").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="device.txt is not a regular file"):
        find_inputs(["device.txt"])
