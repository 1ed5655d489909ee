import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fewshot_cli.errors import DataError, StorageError
from fewshot_cli.locks import exclusive

HOLD = """
import sys, time
from pathlib import Path
from fewshot_cli.locks import exclusive
with exclusive(Path(sys.argv[1]), "x"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold(path: Path, seconds: float) -> subprocess.Popen[str]:
    """A process that holds the lock, for so many seconds at most."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path), str(seconds)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "held\n" == process.stdout.readline()
    return process


def test_a_lock_is_held_once_and_leaves_no_file(tmp_path: Path) -> None:
    """A second holder is refused with process, machine and a hint; afterwards the file is gone and the lock free."""
    path = tmp_path / "folder" / ".lock"

    with exclusive(path, "runs/a is being trained"):
        with pytest.raises(DataError) as refused, exclusive(path, "runs/a is being trained"):
            pass
        expected = f"runs/a is being trained by process {os.getpid()} on {socket.gethostname()}, since "
        assert refused.value.message.startswith(expected)
        assert "Wait until it ends, or stop it." == refused.value.hint

    assert [] == list(path.parent.iterdir())
    with exclusive(path, "x"):
        assert [path] == list(path.parent.iterdir())


def test_a_lock_is_free_after_an_error(tmp_path: Path) -> None:
    """An error inside leaves the lock free, and is passed on."""
    with pytest.raises(KeyError), exclusive(tmp_path / ".lock", "x"):
        raise KeyError("x")

    assert [] == list(tmp_path.iterdir())


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    """A process that holds the lock is named; once it is killed, its file locks nothing."""
    path = tmp_path / ".lock"
    process = hold(path, 60)
    with pytest.raises(DataError, match=f"process {process.pid} on"), exclusive(path, "x"):
        pass

    process.send_signal(signal.SIGKILL)
    process.wait()
    assert path.exists()
    with exclusive(path, "x"):
        assert f"{os.getpid()}\n{socket.gethostname()}\n" == path.read_text()


def test_a_lock_can_be_waited_for(tmp_path: Path) -> None:
    """With `waiting`, the second process says whom it waits for, once, and goes on when the first ends."""
    path, said = tmp_path / ".lock", []
    process = hold(path, 1)
    started = time.monotonic()

    with exclusive(path, "data/fox is being fetched", waiting=said.append):
        assert 0 == process.wait()
        assert time.monotonic() - started < 30

    assert 1 == len(said)
    assert f"data/fox is being fetched by process {process.pid} on" in said[0]


@pytest.mark.parametrize("content", ["", "nonsense", "1", "\x00\xff\n\n\n", "4711\nelsewhere\n"])
def test_what_another_process_left_in_the_file_does_not_matter(tmp_path: Path, content: str) -> None:
    """A lock file with any content is taken if nobody holds it."""
    path = tmp_path / ".lock"
    path.write_text(content)

    with exclusive(path, "x"):
        assert path.read_text().startswith(str(os.getpid()))


def test_a_lock_of_another_machine_says_how_to_remove_it(tmp_path: Path) -> None:
    """The hint for a lock that another machine holds names the file."""
    path = tmp_path / ".lock"

    with exclusive(path, "x"):
        path.write_text("4711\nelsewhere\n")
        with pytest.raises(DataError, match="process 4711 on elsewhere") as refused, exclusive(path, "x"):
            pass

    assert refused.value.hint is not None
    assert f"remove {path}" in refused.value.hint


def test_a_lock_that_cannot_be_written_is_an_error_of_the_disk(tmp_path: Path) -> None:
    """A folder in the place of the lock file gives a StorageError."""
    (tmp_path / ".lock").mkdir()

    with pytest.raises(StorageError, match="cannot lock"), exclusive(tmp_path / ".lock", "x"):
        pass
