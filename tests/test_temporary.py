"""Temporary files and folders: gone at the end, and what a killed process left is removed by the next one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fewshot_cli import temporary
from fewshot_cli.files import write_folder, write_text
from fewshot_cli.temporary import REPLACED, temporary_file, temporary_folder

HOLD = """
import sys
from pathlib import Path
from fewshot_cli.temporary import temporary_file, temporary_folder
with temporary_file(Path(sys.argv[1])) as file, temporary_folder(Path(sys.argv[1])) as folder:
    file.write_text("half")
    (folder / "half").touch()
    print("ready", flush=True)
    sys.stdin.read()
"""
"""A program that is in the middle of writing until its stdin is closed."""


@pytest.fixture(autouse=True)
def a_new_process() -> None:
    """What was looked at before is looked at again."""
    temporary._remove_leftovers.cache_clear()


def writing(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and "ready\n" == process.stdout.readline()
    return process


def test_nothing_stays(tmp_path: Path) -> None:
    """Both are gone at the end, after an error too, and a file that was renamed is where it was put."""
    with temporary_file(tmp_path, ".mp4") as file:
        assert file.is_file() and file.suffix == ".mp4"
        file.rename(tmp_path / "video.mp4")
    with pytest.raises(KeyError), temporary_folder(tmp_path) as folder:
        (folder / "a").mkdir()
        raise KeyError
    assert ["video.mp4"] == [path.name for path in tmp_path.iterdir()]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """By whatever is written in the same folder next, under any name."""
    process = writing(tmp_path)
    process.kill()
    process.communicate()
    assert 2 == len(list(tmp_path.iterdir()))
    write_text(tmp_path / "note.txt", "x")
    assert ["note.txt"] == [path.name for path in tmp_path.iterdir()]


def test_what_another_process_writes_is_left_alone(tmp_path: Path) -> None:
    """A file and a folder that are in use stay, and are removed by the one who made them."""
    process = writing(tmp_path)
    write_folder(tmp_path / "set", lambda folder: None, overwrite=False)
    assert 3 == len(list(tmp_path.iterdir()))
    process.communicate()
    assert ["set"] == [path.name for path in tmp_path.iterdir()]


def test_a_folder_that_was_to_be_replaced_is_kept(tmp_path: Path) -> None:
    """A kill between the two renames of a replacement: the only copy of the old folder is not removed."""
    process = writing(tmp_path)
    process.kill()
    process.communicate()
    (leftover,) = (path for path in tmp_path.iterdir() if path.is_dir())
    (leftover / REPLACED).mkdir()
    write_text(tmp_path / "note.txt", "x")
    assert {"note.txt", leftover.name} == {path.name for path in tmp_path.iterdir()}
