"""`fsod`: the subcommands, and the one place where errors become messages and exit codes.

    0 fine · 1 a bug · 2 usage · 3 data · 4 policy or configuration · 5 model or checkpoint · 6 diverged
    7 network · 130 Ctrl-C · 141 the reader of stdout closed it · 143 SIGTERM

Nothing else in the package prints an error or exits.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from typer.core import TyperGroup
from typing_extensions import Doc, NotRequired, TypedDict

import fewshot_cli
from fewshot_cli.cli import console
from fewshot_cli.cli.commands import COMMANDS, Commands
from fewshot_cli.errors import ConfigError, DatasetError, FsodError, StorageError, UsageError
from fewshot_cli.paths import hint_for, reason_of, shown
from fewshot_cli.schemas import schema_of

_CPU_ALLOCATOR_WORDS = ("can't allocate memory", "not enough memory")

# Typer brings its own copy of Click and gives this root class no public name.
_CommandLineError = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


class RecordProblem(TypedDict):
    """One problem of a data set."""

    file: Annotated[str, Doc("Where.")]
    record: Annotated[str, Doc("In which record; may be empty.")]
    reason: Annotated[str, Doc("What is wrong.")]


class ErrorDetails(TypedDict):
    """What went wrong."""

    type: Annotated[str, Doc("Class of the error in `fewshot_cli.errors`; `Interrupted`, `Terminated`; else a bug.")]
    message: Annotated[str, Doc("What is wrong, and where.")]
    hint: Annotated[str | None, Doc("What would be right.")]
    exit_code: Annotated[int, Doc("Of the command.")]
    problems: NotRequired[Annotated[list[RecordProblem], Doc("All of a data set's.")]]


class Failed(TypedDict):
    """What any command prints with --json instead of its result if it fails."""

    schema: Annotated[Literal["fsod/error/1"], Doc("Kind and version.")]
    error: Annotated[ErrorDetails, Doc("What went wrong.")]


class Terminated(KeyboardInterrupt):
    """SIGTERM, as an exception that code which cleans up after Ctrl-C handles as well."""


class _ReaderLeft(Exception):
    """The reader of stdout has closed it, as `head` does."""


class BoundaryGroup(TyperGroup):
    """A group whose commands may raise anything: it becomes a message on stderr and an exit code."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        console.begin(json=_asks_for_json(args))
        with _boundary():
            _refuse_null_characters(args)
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: Any) -> Any:
        with _boundary(), _sigterm_as_interrupt():
            return super().invoke(ctx)


def _asks_for_json(args: Sequence[str]) -> bool:
    """Whether --json is given; known before parsing, because the parser's own errors are printed as JSON as well."""
    options = args[: args.index("--")] if "--" in args else args
    return "--json" in options


def _refuse_null_characters(args: Sequence[str]) -> None:
    """No path and no name can hold one; a shell cannot pass it, but a program that calls the command line can."""
    for word in args:
        if "\0" in word:
            raise UsageError(f"{word[:80]!r} holds a null character", hint="Leave it out.")


# --- the boundary ---

_READER_LEFT = 141  # what a shell reports of a program that SIGPIPE ended


@contextlib.contextmanager
def _boundary() -> Iterator[None]:
    try:
        try:
            yield
        finally:
            _flush_stdout()
    except typer.Exit:
        raise
    except (KeyboardInterrupt, typer.Abort) as stop:
        code = _report_interrupt(stop)
    except _ReaderLeft:
        code = _READER_LEFT
    except SystemExit as leaving:
        # Rich exits with 1 on a closed pipe; here 1 is the code of a bug.
        if not isinstance(leaving.__context__, BrokenPipeError):
            raise
        code = _READER_LEFT
    except Exception as error:
        code = _READER_LEFT if isinstance(error, BrokenPipeError) and _reader_left() else _report(error)
    else:
        return
    raise typer.Exit(code)


def _report_interrupt(stop: BaseException) -> int:
    text, code = ("Terminated.", 143) if isinstance(stop, Terminated) else ("Interrupted.", 130)
    note = console.interrupt_note()
    print(f"{text} {note}" if note else text, file=sys.stderr)
    _answer({"type": text.rstrip("."), "message": text, "hint": note, "exit_code": code})
    return code


def _report(error: Exception) -> int:
    known = as_fsod_error(error)
    if os.environ.get("FSOD_TRACEBACK"):
        traceback.print_exception(error)
    if known is None:
        return _report_bug(error)
    console.print_error("error", known.message, known.hint)
    document: dict[str, Any] = {
        "type": type(known).__name__,
        "message": known.message,
        "hint": known.hint,
        "exit_code": known.exit_code,
    }
    if isinstance(known, DatasetError):
        document["problems"] = [
            {"file": problem.file, "record": problem.record, "reason": problem.reason} for problem in known.problems
        ]
    _answer(document)
    return known.exit_code


def _report_bug(error: Exception) -> int:
    message = f"{type(error).__name__}: {error} at {_place(error)}"
    hint = "set FSOD_TRACEBACK=1 for the traceback and please report it"
    print(f"bug: {message}; {hint}", file=sys.stderr)
    _answer({"type": type(error).__name__, "message": message, "hint": hint, "exit_code": 1})
    return 1


def _report_thread(failed: threading.ExceptHookArgs) -> None:
    """A thread of another library failed, such as one that writes to a full disk: one line, no traceback."""
    if os.environ.get("FSOD_TRACEBACK") and failed.exc_value is not None:
        traceback.print_exception(failed.exc_value)
    name = failed.thread.name if failed.thread is not None else "a thread"
    console.print_error("warning", f"{name} failed: {failed.exc_type.__name__}: {failed.exc_value}")


def _place(error: Exception) -> str:
    """The innermost line of this package that the error passed through, or of any, if it passed none."""
    home = Path(fewshot_cli.__file__).parent
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if home in Path(frame.filename).parents and frame.filename != __file__]
    frame = (ours or frames)[-1]
    return f"{frame.filename}:{frame.lineno}"


def _answer(error: dict[str, Any]) -> None:
    if not console.wants_json():
        return
    # The error is on stderr already; that stdout cannot be written must not replace its exit code.
    with contextlib.suppress(_ReaderLeft, StorageError, OSError):
        console.print_json({"schema": schema_of(Failed), "error": error})
        _flush_stdout()


def as_fsod_error(error: Exception) -> FsodError | None:
    """The error as an FsodError, or None if it is a bug."""
    if isinstance(error, FsodError):
        return error
    if isinstance(error, _CommandLineError):
        return _usage_error(error)
    if _is_out_of_memory(error):
        return ConfigError(
            f"out of memory: {_first_line(error)}",
            hint="Lower --batch-size, --image-size or --cache-memory, or choose another --device.",
        )
    if reason := reason_of(error):
        place = getattr(error, "filename", None)
        return StorageError(f"{shown(place) if place else 'cannot write'}: {reason}", hint=hint_for(error))
    return None


def _usage_error(error: Any) -> UsageError:
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "fsod"
    return UsageError(error.format_message(), hint=f"`{command} --help` shows what is possible.")


def _is_out_of_memory(error: Exception) -> bool:
    """MemoryError, torch's error for the GPU, and its plain RuntimeError for the CPU, without importing torch."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _CPU_ALLOCATOR_WORDS)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


# --- stdout and signals ---


def _flush_stdout() -> None:
    """Write what is still buffered now, because an error while Python shuts down could no longer be reported.

    Raises _ReaderLeft, or StorageError if stdout goes to a file on a full disk.
    """
    if sys.stdout is None:  # started with stdout closed
        return
    try:
        sys.stdout.flush()
    except OSError as error:
        _abandon_stdout()
        if isinstance(error, BrokenPipeError):
            raise _ReaderLeft from error
        reason, hint = reason_of(error) or error.strerror, "Check where it is redirected to."
        raise StorageError(f"cannot write to standard output: {reason}", hint=hint) from error


def _reader_left() -> bool:
    """Whether a BrokenPipeError came from our output, and not from a connection or a worker."""
    if not hasattr(select, "poll"):
        return False
    gone = False
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            poll = select.poll()
            poll.register(stream.fileno(), 0)
            gone = gone or any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    if gone:
        _abandon_stdout()
    return gone


def _abandon_stdout() -> None:
    """Discard what is left in the buffer, so that Python's own flush at exit raises nothing."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set a handler
        return
    process = os.getpid()

    def stop(_signal: int, _frame: object) -> NoReturn:
        if os.getpid() != process:
            os._exit(143)  # a forked worker that inherited this handler, with nothing to clean up
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


# --- the commands ---


class FsodGroup(BoundaryGroup):
    """The subcommands of COMMANDS, none of them imported before it is called."""

    def __init__(self, **attributes: Any) -> None:
        # Plain help: importing Rich for it would take longer than all the rest of `fsod --help`.
        super().__init__(**{**attributes, "commands": Commands(), "rich_markup_mode": None})

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.summary) for name, command in COMMANDS.items()])


app = typer.Typer(
    name="fsod",
    cls=FsodGroup,
    help="Adapt a pretrained object detector to a new class from about ten images.",
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
    pretty_exceptions_enable=False,
)


def _print_version(value: bool) -> None:
    if value:
        print(f"fsod {fewshot_cli.__version__}")
        raise typer.Exit


@app.callback()
def _fsod(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(UsageError.exit_code)


def main() -> None:
    """The entry point of `fsod`."""
    for stream in (sys.stdout, sys.stderr):
        # A console that lacks a character shows a stand-in for it instead of failing.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    threading.excepthook = _report_thread
    # What Pillow and matplotlib say of a file or a font is nothing that a person could act on; errors stay errors.
    warnings.filterwarnings("ignore", module=r"(PIL|matplotlib)\b")
    warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        app(prog_name="fsod")
    except KeyboardInterrupt:  # before the command line is parsed
        sys.exit(_report_interrupt(KeyboardInterrupt()))
