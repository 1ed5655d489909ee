"""Files on disk: the old content or the new one, never a part, and refusals that name the path."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from pathlib import Path

import pytest

from fewshot_cli.errors import StorageError
from fewshot_cli.files import (
    claim_folder,
    make_folder,
    sha256_of,
    storage_errors,
    write_atomically,
    write_json,
    write_text,
)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_with_its_folders(tmp_path: Path) -> None:
    """Missing folders are made, the text is UTF-8, and no temporary file is left."""
    write_text(tmp_path / "a" / "b" / "note.txt", "größer\n")
    assert "größer\n".encode() == (tmp_path / "a" / "b" / "note.txt").read_bytes()
    assert ["note.txt"] == names_in(tmp_path / "a" / "b")


def test_a_file_is_replaced(tmp_path: Path) -> None:
    """Writing again replaces the whole content."""
    write_text(tmp_path / "note.txt", "a long first version")
    write_text(tmp_path / "note.txt", "short")
    assert "short" == (tmp_path / "note.txt").read_text()
    assert ["note.txt"] == names_in(tmp_path)


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    """After an error or Ctrl-C half way the old content stands and no temporary file is left."""
    target = tmp_path / "note.txt"
    target.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half of the n")
        raise error

    with pytest.raises(type(error)):
        write_atomically(target, fail)
    assert "old" == target.read_text()
    assert ["note.txt"] == names_in(tmp_path)


def test_readers_never_see_a_part(tmp_path: Path) -> None:
    """While the writer works the target holds the old content, and the temporary file lies on the same disk."""
    target = tmp_path / "note.txt"
    target.write_text("old")
    seen: list[str] = []

    def write(temporary: Path) -> None:
        temporary.write_text("new")
        seen.extend([target.read_text(), str(temporary.parent)])

    write_atomically(target, write)
    assert ["old", str(tmp_path)] == seen
    assert "new" == target.read_text()


@pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX's")
def test_a_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    """The temporary file's private mode does not stay: the file gets what the umask allows."""
    write_text(tmp_path / "ours.txt", "x")
    (tmp_path / "plain.txt").write_text("x")
    ours, plain = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours.txt", "plain.txt"))
    assert plain == ours


def test_json_comes_back(tmp_path: Path) -> None:
    """A document is readable, keeps its order and its letters, and ends with a newline."""
    document = {"z": [1, 2.5, None], "a": {"name": "größer"}}
    write_json(tmp_path / "d.json", document)
    text = (tmp_path / "d.json").read_text(encoding="utf-8")
    assert document == json.loads(text)
    assert list(document) == list(json.loads(text))
    assert "größer" in text
    assert text.endswith("}\n")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_has_no_nan(tmp_path: Path, value: float) -> None:
    """What JSON cannot say is refused before anything is written; the old file stands."""
    write_json(tmp_path / "d.json", {"ap": 0.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "d.json", {"ap": value})
    assert {"ap": 0.5} == json.loads((tmp_path / "d.json").read_text())
    assert ["d.json"] == names_in(tmp_path)


@pytest.mark.parametrize("below", ["file/new.txt", "file/deeper/new.txt"])
def test_a_path_below_a_file_is_refused(tmp_path: Path, below: str) -> None:
    """A part of the path that is a file is a storage error that names the path."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="file") as caught:
        write_text(tmp_path / below, "x")
    assert str((tmp_path / below).parent) in caught.value.message
    assert caught.value.hint
    assert "x" == (tmp_path / "file").read_text()


def test_a_folder_is_not_overwritten_by_a_file(tmp_path: Path) -> None:
    """A folder in the file's place is a storage error, and nothing is left beside it."""
    (tmp_path / "note.txt").mkdir()
    with pytest.raises(StorageError, match="a folder stands where the file should be"):
        write_text(tmp_path / "note.txt", "x")
    assert ["note.txt"] == names_in(tmp_path)


def test_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    """Writing to a pipe, a socket or a device is refused: a rename would put a plain file in its place."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match="not a regular file"):
        write_text(tmp_path / "pipe", "x")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    """The file system's limit is a storage error."""
    with pytest.raises(StorageError, match="the name is too long"):
        make_folder(tmp_path / ("x" * 300))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """The kernel's own "no space left" becomes a storage error; the old content stands."""
    target = tmp_path / "note.txt"
    target.write_text("old")

    def fill(_: Path) -> None:
        Path("/dev/full").write_text("x")

    with pytest.raises(StorageError, match="the disk is full") as caught:
        write_atomically(target, fill)
    assert str(target) in caught.value.message
    assert "old" == target.read_text()
    assert ["note.txt"] == names_in(tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_forbidden_folder_is_refused(tmp_path: Path) -> None:
    """A folder without the right to write is a storage error."""
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StorageError, match="permission denied"):
            write_text(tmp_path / "note.txt", "x")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.EROFS, "the file system is read-only"), (errno.EDQUOT, "the disk quota is used up"), (errno.EIO, "input")],
)
def test_the_disks_refusals_are_translated(number: int, reason: str) -> None:
    """What cannot be provoked in a test is translated by its number, the original kept as cause."""
    original = OSError(number, os.strerror(number))
    with pytest.raises(StorageError, match=reason) as caught, storage_errors(Path("some/where")):
        raise original
    assert original is caught.value.__cause__
    assert "cannot write some/where" in caught.value.message


def test_other_operating_system_errors_pass() -> None:
    """What is no refusal of the disk, such as an interrupted call, stays what it is."""
    with pytest.raises(InterruptedError), storage_errors(Path("x")):
        raise InterruptedError(errno.EINTR, "interrupted")


def test_a_checksum_is_that_of_all_bytes(tmp_path: Path) -> None:
    """A file of more than one piece, and an empty one, have the SHA-256 of their content."""
    content = bytes(range(256)) * (5 << 10)
    (tmp_path / "large").write_bytes(content)
    (tmp_path / "empty").write_bytes(b"")
    assert hashlib.sha256(content).hexdigest() == sha256_of(tmp_path / "large")
    assert hashlib.sha256().hexdigest() == sha256_of(tmp_path / "empty")


def test_a_folder_is_claimed_once(tmp_path: Path) -> None:
    """The second call gets a number; a file in the way counts as taken."""
    (tmp_path / "out-2").touch()
    assert ["out", "out-3", "out-4"] == [claim_folder(tmp_path, "out").name for _ in range(3)]


def test_a_name_that_is_not_utf_8_comes_back_from_json(tmp_path: Path) -> None:
    """A byte of another encoding in a file's name is kept."""
    name = os.fsdecode(b"caf\xe9.jpg")
    write_json(tmp_path / "a.json", {"image": name})
    assert {"image": name} == json.loads((tmp_path / "a.json").read_text("utf-8"))
