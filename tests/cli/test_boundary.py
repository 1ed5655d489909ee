"""The command line: arguments in, exit code and two streams out.

Run as a program, this file is a throw-away command line whose commands misbehave, for what only a real process shows.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

import fewshot_cli
from fewshot_cli import errors
from fewshot_cli.cli import console
from fewshot_cli.cli.app import BoundaryGroup, Terminated, app
from fewshot_cli.cli.options import Json, Quiet

REPOSITORY = Path(__file__).parents[2]
COMMANDS = [
    "fetch", "augment", "finetune", "eval", "predict", "export", "inspect-layers", "compare", "report", "sweep", "demo",
]  # fmt: skip


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own, which the boundary knows by name to stay light."""


def throw_away_app() -> typer.Typer:
    """A command line with the boundary of `fsod` and commands that raise, wait or chatter."""
    misbehaving = typer.Typer(cls=BoundaryGroup, name="fsod", context_settings={"help_option_names": ["-h", "--help"]})

    @misbehaving.command()
    def fail(name: str, json: Json = False) -> None:
        raise FAILURES[name]()

    @misbehaving.command()
    def wait() -> None:
        console.note_on_interrupt("Resume with: fsod wait --resume")
        print("ready", flush=True)
        # A signal just before a sleep does not end it.
        for _ in range(300):
            time.sleep(0.1)

    @misbehaving.command()
    def chatter() -> None:
        for _ in range(100_000):
            print("word " * 20)

    @misbehaving.command()
    def draw(json: Json = False, quiet: Quiet = False) -> None:
        speaker = console.Console(json=json, quiet=quiet)
        with speaker.progress("drawing", 3) as task:
            speaker.say("half way")
            task.advance(3)
        speaker.result({"drawn": 3}, "three")

    @misbehaving.command()
    def answer_and_fail(json: Json = False) -> None:
        console.Console(json=json).result({"map": 0.5})
        raise errors.DataError("too late")

    return misbehaving


FAILURES: dict[str, Callable[[], BaseException]] = {
    "usage": lambda: errors.UsageError("A and B exclude each other", hint="Give one."),
    "data": lambda: errors.DataError("no images in x", hint="Put some there."),
    "dataset": lambda: errors.DatasetError("x", [errors.Problem("a.jpg", "image 7", "is empty")], hint="Replace it."),
    "config": lambda: errors.ConfigError("budget -1 is not possible", hint="Give 1 to 5."),
    "policy": lambda: errors.PolicyError("unknown policy 'lats'", hint="Did you mean last?"),
    "model": lambda: errors.ModelError("unknown detector 'yolo'"),
    "checkpoint": lambda: errors.CheckpointError("x.pth is truncated", hint="Download it again."),
    "diverged": lambda: errors.DivergedError("the loss is NaN at iteration 3", hint="Lower --lr."),
    "network": lambda: errors.NetworkError("no answer from example.org", hint="Try later."),
    "full disk": lambda: OSError(errno.ENOSPC, "No space left on device", "runs/x"),
    "read-only disk": lambda: OSError(errno.EROFS, "Read-only file system", "runs/x"),
    "forbidden": lambda: PermissionError(errno.EACCES, "Permission denied", "runs/x"),
    "gpu memory": lambda: OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore"),
    "cpu memory": lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"),
    "memory": MemoryError,
    "lost worker": lambda: BrokenPipeError(errno.EPIPE, "Broken pipe"),
    "bug": lambda: ZeroDivisionError("division by zero"),
    "exit": lambda: typer.Exit(9),
    "interrupt": KeyboardInterrupt,
    "termination": Terminated,
    "abort": typer.Abort,
}


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the developer's nor the CI's settings decide what these tests see."""
    monkeypatch.delenv("FSOD_TRACEBACK", raising=False)


def call(*arguments: str, of: typer.Typer = app) -> Result:
    return CliRunner().invoke(of, list(arguments))


def call_failing(*arguments: str) -> Result:
    return call("fail", *arguments, of=throw_away_app())


def process(*command: str, **settings: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [sys.executable, *command], env=environment, stdout=settings.pop("stdout", subprocess.PIPE),
        stderr=settings.pop("stderr", subprocess.PIPE), text=True, **settings,
    )  # fmt: skip


# --- the command line itself ---


@pytest.mark.parametrize(
    ("arguments", "code", "stdout", "stderr"),
    [
        (["--help"], 0, COMMANDS, []),
        (["-h"], 0, COMMANDS, []),
        ([], 2, COMMANDS, []),
        (["--version"], 0, [f"fsod {fewshot_cli.__version__}"], []),
        (["finetun"], 2, [], ["error: No such command 'finetun'", "finetune", "hint: `fsod --help`"]),
        (["inspect-layer"], 2, [], ["inspect-layers"]),
        (["--bogus"], 2, [], ["error: No such option: --bogus", "hint: `fsod --help`"]),
        (["finetune", "--bogus"], 2, [], ["error: No such option: --bogus", "hint: `fsod finetune --help`"]),
        (["finetune", "--config"], 2, [], ["error:", "--config"]),
        (["finetune", "--config", "no.toml"], 4, [], ["error: no.toml: no such configuration file", "hint:"]),
        (["finetune", "--help"], 0, ["--config", "--json", "--quiet"], []),
    ],
)
def test_every_call_has_its_exit_code_and_says_why(
    arguments: list[str], code: int, stdout: list[str], stderr: list[str]
) -> None:
    """Each way to call fsod ends with the documented exit code and the words that help."""
    result = call(*arguments)

    assert code == result.exit_code
    assert [] == [word for word in stdout if word not in result.stdout]
    assert [] == [word for word in stderr if word not in result.stderr]


def test_every_command_option_and_argument_is_explained() -> None:
    """Nothing can be given to fsod that its help does not explain."""
    group: Any = typer.main.get_command(app)
    silent = [name for name, command in group.commands.items() if not command.help]
    silent += [
        f"{name} {parameter.name}"
        for name, command in [("fsod", group), *group.commands.items()]
        for parameter in command.params
        if not parameter.help
    ]

    assert COMMANDS == list(group.commands) == group.list_commands(None)
    assert [] == silent


def test_every_command_that_computes_takes_threads() -> None:
    """--threads is one option, the same wherever something is computed."""
    group: Any = typer.main.get_command(app)
    takers = {
        name
        for name, command in group.commands.items()
        if any(parameter.name == "threads" and "auto|N" == parameter.metavar for parameter in command.params)
    }

    assert {"augment", "finetune", "eval", "demo"} <= takers


def test_every_command_takes_a_config_file_json_and_quiet() -> None:
    """What scripts rely on is the same on every command."""
    group: Any = typer.main.get_command(app)
    lacking = {
        name: missing
        for name, command in group.commands.items()
        if (missing := {"config", "json", "quiet"} - {parameter.name for parameter in command.params})
    }

    assert {} == lacking


def test_module_and_entry_point_are_the_same_program() -> None:
    """`python -m fewshot_cli` calls itself fsod."""
    child = process("-m", "fewshot_cli", "nonsense")
    _, stderr = child.communicate(timeout=60)

    assert 2 == child.returncode
    assert "`fsod --help`" in stderr


def test_completion_offers_the_commands() -> None:
    """A shell that asks for completions of `fsod f` gets fetch and finetune."""
    environment = {"_FSOD_COMPLETE": "complete_bash", "COMP_WORDS": "fsod f", "COMP_CWORD": "1"}
    found = CliRunner().invoke(app, [], env=environment, prog_name="fsod")

    assert ["fetch", "finetune"] == found.stdout.split()


# --- how fast it starts ---


def test_help_loads_nothing_heavy() -> None:
    """`fsod --help` imports no subcommand, Rich or pydantic; `fsod COMMAND --help` no library that computes."""
    program = (
        "import sys\n"
        "from fewshot_cli.cli.app import app\n"
        "def show(*words):\n"
        "    try: app([*words, '--help'])\n"
        "    except SystemExit: pass\n"
        "show()\n"
        "early = {'rich', 'pydantic', 'fewshot_cli.cli.finetune', 'fewshot_cli.cli.sweep'} & set(sys.modules)\n"
        f"for command in {COMMANDS}: show(command)\n"
        "heavy = {'torch', 'torchvision', 'numpy', 'PIL', 'pycocotools', 'matplotlib', 'rich.progress'}\n"
        "print('loaded:', sorted(early | heavy & set(sys.modules)))"
    )
    stdout, _ = process("-c", program).communicate(timeout=60)

    assert stdout.endswith("loaded: []\n")


def test_help_is_quick() -> None:
    """`fsod --help` answers at once: 0.15 s measured on an idle core, and four times that in the best of five here.

    The best, because a shared CI machine may be busy in any one of them; one import of torch (1 s and more) in the
    wrong place still fails it.
    """
    assert min(_seconds_for_help() for _ in range(5)) < 0.6


def test_the_package_is_imported_quickly_and_without_its_dependencies() -> None:
    """`import fewshot_cli` takes under 0.1 s on an idle machine, for it imports nothing but the standard library."""
    code = "import sys, fewshot_cli; print(sorted({'typer', 'rich', 'torch', 'numpy', 'pydantic', 'psutil'} & set(sys.modules)))"
    stdout, _ = process("-c", code).communicate(timeout=60)

    assert "[]\n" == stdout


def _seconds_for_help() -> float:
    started = time.perf_counter()
    process("-m", "fewshot_cli", "--help").communicate(timeout=60)
    return time.perf_counter() - started


# --- the error boundary ---


@pytest.mark.parametrize(
    ("failure", "code", "message", "hint"),
    [
        ("usage", 2, "A and B exclude each other", "Give one."),
        ("data", 3, "no images in x", "Put some there."),
        ("dataset", 3, "x: 1 problem\n  a.jpg: image 7: is empty", "Replace it."),
        ("config", 4, "budget -1 is not possible", "Give 1 to 5."),
        ("policy", 4, "unknown policy 'lats'", "Did you mean last?"),
        ("model", 5, "unknown detector 'yolo'", None),
        ("checkpoint", 5, "x.pth is truncated", "Download it again."),
        ("diverged", 6, "the loss is NaN at iteration 3", "Lower --lr."),
        ("network", 7, "no answer from example.org", "Try later."),
    ],
)
def test_an_error_is_told_on_stderr_with_its_hint(failure: str, code: int, message: str, hint: str | None) -> None:
    """What the library raises becomes `error:` and `hint:` on stderr, its exit code, and nothing on stdout."""
    result = call_failing(failure)

    expected = f"error: {message}\n" + (f"hint: {hint}\n" if hint else "")
    assert (code, expected, "") == (result.exit_code, result.stderr, result.stdout)


@pytest.mark.parametrize("failure", ["full disk", "read-only disk", "forbidden"])
def test_a_refusing_disk_is_a_data_error(failure: str) -> None:
    """A disk that refuses is no bug: exit code 3 and the path, even where nobody caught the OSError."""
    result = call_failing(failure)

    assert 3 == result.exit_code
    assert "error: runs/x: " in result.stderr


@pytest.mark.parametrize("failure", ["gpu memory", "cpu memory", "memory"])
def test_out_of_memory_says_what_to_lower(failure: str) -> None:
    """Too little memory is a matter of options: exit code 4, one line, and the options to lower."""
    result = call_failing(failure)

    assert 4 == result.exit_code
    assert "error: out of memory: " in result.stderr
    assert "--batch-size" in result.stderr
    assert 2 == len(result.stderr.splitlines())


def test_a_bug_names_its_place() -> None:
    """What nobody foresaw ends with 1 and one line that a person can report."""
    result = call_failing("bug")

    assert 1 == result.exit_code
    assert result.stderr.startswith("bug: ZeroDivisionError: division by zero at ")
    assert "test_boundary.py:" in result.stderr
    assert "FSOD_TRACEBACK=1" in result.stderr
    assert 1 == len(result.stderr.splitlines())


def test_a_broken_pipe_to_something_else_is_not_silent() -> None:
    """A connection that breaks while stdout is fine is told, not taken for `| head`."""
    result = call_failing("lost worker")

    assert 1 == result.exit_code
    assert "bug: BrokenPipeError: " in result.stderr


def test_a_bug_shows_its_traceback_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """FSOD_TRACEBACK=1 adds the traceback."""
    monkeypatch.setenv("FSOD_TRACEBACK", "1")

    assert "Traceback (most recent call last)" in call_failing("bug").stderr


def test_a_command_may_choose_its_exit_code() -> None:
    """typer.Exit passes the boundary untouched."""
    result = call_failing("exit")

    assert (9, "") == (result.exit_code, result.stderr)


@pytest.mark.parametrize(("failure", "code"), [("interrupt", 130), ("abort", 130), ("termination", 143)])
def test_being_stopped_is_no_error(failure: str, code: int) -> None:
    """Ctrl-C and SIGTERM leave with the exit codes that shells expect, in one line."""
    result = call_failing(failure)

    assert code == result.exit_code
    assert ["Terminated." if failure == "termination" else "Interrupted."] == result.stderr.splitlines()


def test_json_repeats_every_failure_on_stdout() -> None:
    """Under --json, stdout holds one document with the error, and it agrees with the exit code and stderr."""
    for failure in sorted(set(FAILURES) - {"exit"}):
        result = call_failing("--json", failure)
        error = json.loads(result.stdout)["error"]

        assert result.exit_code == error["exit_code"], failure
        assert error["message"] in result.stderr
        assert {"type", "message", "hint", "exit_code"} <= set(error), failure


def test_json_lists_every_problem_of_a_data_set() -> None:
    """A data set's problems come as records, so that a script need not parse a message."""
    error = json.loads(call_failing("--json", "dataset").stdout)["error"]

    assert "DatasetError" == error["type"]
    assert [{"file": "a.jpg", "record": "image 7", "reason": "is empty"}] == error["problems"]


def test_json_covers_the_command_line_itself() -> None:
    """A mistyped command is reported as JSON too, if --json is anywhere on the line."""
    error = json.loads(call("finetun", "--json").stdout)["error"]

    assert ("UsageError", 2) == (error["type"], error["exit_code"])


def test_json_is_one_document_even_if_a_command_fails_after_its_answer() -> None:
    """A failure after the result keeps its exit code and leaves stdout one parsable document."""
    result = call("answer-and-fail", "--json", of=throw_away_app())

    assert (3, {"map": 0.5}) == (result.exit_code, json.loads(result.stdout))


def test_one_call_leaves_nothing_behind_for_the_next() -> None:
    """--json of one call in a process does not turn the next one's error into JSON."""
    call_failing("--json", "data")

    assert "" == call_failing("data").stdout


# --- what only a real process shows ---


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "Interrupted."), (signal.SIGTERM, 143, "Terminated.")]
)
def test_a_signal_ends_a_command_and_says_how_to_go_on(number: signal.Signals, code: int, word: str) -> None:
    """Ctrl-C and SIGTERM end a waiting command at once, and the command's own advice is printed."""
    child = process(__file__, "wait")
    assert child.stdout is not None
    assert "ready\n" == child.stdout.readline()
    child.send_signal(number)
    _, stderr = child.communicate(timeout=20)

    assert (code, f"{word} Resume with: fsod wait --resume\n") == (child.returncode, stderr)


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
@pytest.mark.parametrize("command", [[__file__, "chatter"], ["-m", "fewshot_cli", "--help"]])
def test_a_reader_that_leaves_is_no_error(command: list[str]) -> None:
    """`fsod … | head` ends silently, with the exit code of a closed pipe."""
    read, write = os.pipe()
    os.close(read)
    child = process(*command, stdout=write)
    os.close(write)
    _, stderr = child.communicate(timeout=60)

    assert (141, "") == (child.returncode, stderr)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_a_full_disk_behind_stdout_is_told(argument: str) -> None:
    """`fsod … > file` on a full disk is a data error, not a silent success."""
    with Path("/dev/full").open("w") as full:
        child = process("-m", "fewshot_cli", argument, stdout=full)
        _, stderr = child.communicate(timeout=60)

    assert 3 == child.returncode
    assert stderr.startswith("error: ")
    assert "the disk is full" in stderr


@pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals")
@pytest.mark.parametrize("no_color", [False, True])
def test_a_terminal_gets_a_bar_and_colour_unless_it_declines(no_color: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal progress is a bar on stderr, stdout stays clean, and NO_COLOR removes every colour."""
    _set_terminal(monkeypatch, no_color)
    stdout, stderr = _on_terminal(__file__, "draw")

    assert "three\n" == stdout
    assert "half way" in stderr
    assert "drawing" in stderr
    assert "3/3" in stderr
    assert no_color != ("\033[38;5;" in stderr or "\033[3" in stderr.replace("\033[3m", ""))


@pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals")
@pytest.mark.parametrize("no_color", [False, True])
def test_an_error_is_coloured_only_where_colour_is_welcome(no_color: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """`error:` is red on a terminal, and plain under NO_COLOR."""
    _set_terminal(monkeypatch, no_color)
    _, stderr = _on_terminal(__file__, "fail", "data")

    assert ("error: no images in x" if no_color else "\033[1;31merror:\033[0m no images in x") in stderr


def _set_terminal(monkeypatch: pytest.MonkeyPatch, no_color: bool) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")


def _on_terminal(*command: str) -> tuple[str, str]:
    """stdout and stderr of a process whose stderr is a terminal."""
    import pty

    ours, theirs = pty.openpty()
    child = process(*command, stderr=theirs)
    os.close(theirs)
    stderr = b""
    while piece := _read_terminal(ours):
        stderr += piece
    os.close(ours)
    stdout, _ = child.communicate(timeout=60)
    return stdout, stderr.decode()


def _read_terminal(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # how Linux says that the other side has closed
        return b""


if __name__ == "__main__":
    throw_away_app()(prog_name="fsod")


def test_a_path_that_is_too_long_is_a_data_error() -> None:
    """Wherever a path is given."""
    for command in (["eval"], ["predict"], ["export"], ["fetch", "--class", "cat", "--source"]):
        result = CliRunner().invoke(app, [*command, 300 * "a"])
        assert 3 == result.exit_code, result.output
        assert "the name is too long" in result.stderr


def test_a_librarys_failing_thread_has_one_line() -> None:
    """No traceback of a thread, such as TensorBoard's on a full disk."""
    code = (
        "import threading, typer\n"
        "from fewshot_cli.cli import app as module\n"
        "def fail(): raise OSError(28, 'No space left on device')\n"
        "def app(**_):\n"
        "    thread = threading.Thread(target=fail, name='writer'); thread.start(); thread.join()\n"
        "module.app = app\n"
        "module.main()\n"
    )
    _, stderr = process("-c", code).communicate(timeout=60)
    assert "warning: writer failed: OSError: [Errno 28] No space left on device\n" == stderr
