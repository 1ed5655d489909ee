"""The two output streams: results on stdout, everything else on stderr.

    console = Console(json=json, quiet=quiet)
    console.say("256 images")                         # stderr, nothing under --quiet
    console.warn("2 images have no box")              # stderr, always
    with console.progress("training", 200) as task:   # stderr: a bar on a terminal, plain lines elsewhere
        task.advance()
        task.update("loss 0.31")
    console.result({"map": 0.34}, table)              # stdout: the table, or under --json the document alone

Rich is imported where it draws, so that `fsod --help` does not wait for its progress bars.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TextIO

from fewshot_cli.progress import SilentTask, Task

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PIPED_WIDTH = 1000
"""Columns of a table that goes into a pipe or a file, where no screen limits its width."""

_RED, _YELLOW, _CYAN = 31, 33, 36


# --- state of the current command that the error boundary needs ---


@dataclass(slots=True)
class _Invocation:
    json: bool = False
    answered: bool = False
    interrupt_note: str | None = None


_invocation = _Invocation()


def begin(*, json: bool) -> None:
    """A new command starts: reset the state of the previous one in this process."""
    global _invocation
    _invocation = _Invocation(json=json)


def note_on_interrupt(text: str | None) -> None:
    """Text to print if this command is interrupted, e.g. how to resume it; None removes it."""
    _invocation.interrupt_note = text


def interrupt_note() -> str | None:
    """The last note of `note_on_interrupt`."""
    return _invocation.interrupt_note


def wants_json() -> bool:
    """Whether the JSON document is still to be printed on stdout."""
    return _invocation.json and not _invocation.answered


# --- the two streams ---


def print_json(document: Any) -> None:
    """The one JSON document of stdout. A number that JSON does not have (NaN, infinity) becomes null."""
    # ASCII, so that neither a file name that is not UTF-8 nor the console's code page can spoil it.
    print(json.dumps(_plain(document), indent=1, allow_nan=False, default=str))
    _invocation.answered = True


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, PurePath) else value


def print_error(label: str, message: str, hint: str | None = None) -> None:
    """`error: what and where`, then `hint: what would be right`, on stderr."""
    _print_labelled(label, _RED, message)
    if hint:
        _print_labelled("hint", _CYAN, hint)


def _print_labelled(label: str, colour: int, text: str) -> None:
    start = f"\033[1;{colour}m{label}:\033[0m" if _takes_colour(sys.stderr) else f"{label}:"
    print(f"{start} {_printable(text)}", file=sys.stderr)


def _printable(text: str) -> str:
    """The text without what would steer a terminal: names in files from outside may hold anything."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else repr(letter)[1:-1] for letter in text)


def _takes_colour(stream: TextIO) -> bool:
    return _is_terminal(stream) and not os.environ.get("NO_COLOR")


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


# --- what subcommands use ---


class Console:
    """The `Reporter` of the command line; every command creates one first."""

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self.json = json
        self.quiet = quiet
        self._bars: Progress | None = None
        self._plain_tasks = 0
        _invocation.json = json

    def say(self, text: str) -> None:
        """Print a line on stderr; nothing under --quiet."""
        if not self.quiet:
            print(_printable(text), file=sys.stderr)

    def warn(self, text: str) -> None:
        """Print a warning on stderr, also under --quiet."""
        _print_labelled("warning", _YELLOW, text)

    def on_interrupt(self, text: str) -> None:
        """Print this if the command is interrupted."""
        note_on_interrupt(text)

    def result(self, document: Mapping[str, Any], *renderables: object) -> None:
        """Print the result on stdout, once.

        Args:
            document: what --json prints, and nothing else then; paths become text, NaN becomes null.
            renderables: printed without --json: text, Rich objects, or functions that make one (they
                are not called under --json).
        """
        if self.json:
            print_json(document)
            return
        for renderable in renderables:
            _render(renderable() if callable(renderable) else renderable)

    @contextmanager
    def progress(self, description: str, total: float | None, done: float = 0) -> Iterator[Task]:
        """Show work of `total` steps (None: unknown) on stderr while the context lasts.

        `done` steps were done before: they count as progress, and not for the speed that the remaining time comes from.

        Tasks may be nested; an inner one leaves no trace when it ends.
        """
        if self.quiet:
            yield SilentTask()
        elif _is_terminal(sys.stderr):
            with self._bar(description, total, done) as bar:
                yield bar
        else:
            with self._lines(description, total, done) as lines:
                yield lines

    @contextmanager
    def _bar(self, description: str, total: float | None, done: float) -> Iterator[Task]:
        if self._bars is not None:
            bar = _Bar(self._bars, description, total, done)
            try:
                yield bar
            finally:
                self._bars.remove_task(bar.number)
            return
        with _new_bars() as self._bars:
            try:
                yield _Bar(self._bars, description, total, done)
            finally:
                self._bars = None

    @contextmanager
    def _lines(self, description: str, total: float | None, done: float) -> Iterator[Task]:
        task = PlainTask(description, total, done=done, nested=self._plain_tasks > 0)
        self._plain_tasks += 1
        try:
            yield task
        except BaseException:
            task.finish("stopped")
            raise
        else:
            task.finish("done")
        finally:
            self._plain_tasks -= 1


def _render(renderable: object) -> None:
    if isinstance(renderable, str):
        print(renderable)
        return
    from rich.console import Console as RichConsole
    from rich.table import Table

    width = None if _is_terminal(sys.stdout) else PIPED_WIDTH
    console = RichConsole(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)
    if isinstance(renderable, Table) and isinstance(renderable.title, str):
        # A table breaks its title at its own width, in the middle of a path.
        console.print(renderable.title, style="italic", soft_wrap=True)
        renderable.title = None
    console.print(renderable)


class _Bar:
    """A Rich task behind the library's `Task`."""

    def __init__(self, bars: Progress, description: str, total: float | None, done: float) -> None:
        self._bars = bars
        self.number: TaskID = bars.add_task(description, total=total, completed=int(done), remark="")

    def advance(self, steps: float = 1) -> None:
        self._bars.advance(self.number, steps)

    def update(self, text: str) -> None:
        self._bars.update(self.number, remark=text)


def _new_bars() -> Progress:
    from rich.console import Console as RichConsole
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}", markup=False),
        console=RichConsole(stderr=True),
        # Drawing takes processor time from training; four times a second is enough.
        refresh_per_second=4,
        # stdout belongs to results, which must not end up on the bar's stream.
        redirect_stdout=False,
    )


class PlainTask:
    """Progress for a log: about ten lines per task, more if it takes longer than an hour.

    A line at the start and one at the end; between them one a tenth, or, where the total is unknown, after 10 s,
    20 s, 40 s … A nested task prints only if it takes long, so that a log is not full of short ones.
    """

    GAP = 2.0
    """Least seconds between two lines, so that a quick task takes two lines and not twelve."""

    LONG = 10.0
    """Seconds after which a nested task, or one of unknown length, prints its first line."""

    SILENCE = 300.0
    """Seconds after which a step prints a line in any case: CI services stop jobs that print nothing for 10 minutes."""

    def __init__(
        self,
        description: str,
        total: float | None,
        *,
        done: float = 0,
        nested: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._description = description
        self._total = total = total or None  # nothing to do has no tenths either
        self._nested = nested
        self._clock = clock
        self._done = self._before = done
        self._tenth = int(10 * done / total) if total else 0
        self._remark = ""
        self._gap = self.LONG if nested or total is None else self.GAP
        self._started = self._printed = clock()
        if not nested:
            self._print(self._amount() if total else "started")

    def advance(self, steps: float = 1) -> None:
        self._done += steps
        if self._total and self._done >= self._total:
            return  # `finish` prints the last line
        silent = self._clock() - self._printed
        if silent < self._gap:
            return
        if self._total is None:
            self._gap = min(2 * self._gap, self.SILENCE)
        elif not self._enters_new_tenth(self._total) and silent < self.SILENCE:
            return
        self._printed = self._clock()
        self._print(self._state())

    def update(self, text: str) -> None:
        self._remark = text

    def finish(self, how: str) -> None:
        """The last line; `how` it ended: done or stopped."""
        if self._nested:
            return
        where = f" after {self._amount()}" if how != "done" else ""
        self._print(f"{how}{where} in {_duration(self._clock() - self._started)}")

    def _enters_new_tenth(self, total: float) -> bool:
        before, self._tenth = self._tenth, int(10 * self._done / total)
        return self._tenth > before

    def _amount(self) -> str:
        return f"{_count(self._done)} of {_count(self._total)}" if self._total else _count(self._done)

    def _state(self) -> str:
        elapsed = self._clock() - self._started
        if not self._total:
            return f"{self._amount()}, {_duration(elapsed)}"
        left = elapsed * (self._total - self._done) / (self._done - self._before)
        percent = 100 * self._done / self._total
        return f"{self._amount()} ({percent:.0f} %), {_duration(elapsed)}, about {_duration(left)} left"

    def _print(self, text: str) -> None:
        remark = f", {self._remark}" if self._remark else ""
        print(f"{_printable(f'{self._description}: {text}{remark}')}", file=sys.stderr, flush=True)


def _count(number: float | None) -> str:
    return "?" if number is None else f"{number:.0f}" if float(number).is_integer() else f"{number:.1f}"


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
