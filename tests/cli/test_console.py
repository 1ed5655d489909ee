"""What a person and a script see of a command's work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fewshot_cli.cli.console import Console, PlainTask
from fewshot_cli.progress import Reporter


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def run_task(total: float | None, steps: int, seconds: float, *, nested: bool = False, step: float = 1) -> None:
    """A task of `steps` steps in `seconds` seconds."""
    clock = Clock()
    task = PlainTask("training", total, nested=nested, clock=clock)
    for _ in range(steps):
        clock.now += seconds / steps
        task.advance(step)
    task.finish("done")


def test_the_console_is_a_reporter() -> None:
    """The library's Reporter and the command line's Console agree; mypy holds the types, this the call."""
    reporter: Reporter = Console(quiet=True)
    with reporter.progress("nothing", None) as task:
        task.advance()
        task.update("text")


def test_remarks_and_warnings_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """stdout belongs to the result."""
    console = Console()
    console.say("using data/helmet")
    console.warn("2 images have no [box]")

    assert ("", "using data/helmet\nwarning: 2 images have no [box]\n") == capsys.readouterr()


def test_quiet_leaves_warnings_and_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    """--quiet silences remarks and progress, and nothing that a person must know."""
    console = Console(quiet=True)
    console.say("using data/helmet")
    with console.progress("training", 10) as task:
        task.advance()
    console.warn("no box")
    console.result({"map": 0.5}, "mAP 0.5")

    assert ("mAP 0.5\n", "warning: no box\n") == capsys.readouterr()


def test_json_prints_the_document_and_drops_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Under --json, stdout is one document; tables are not even built."""
    Console(json=True).result({"map": 0.5}, "mAP 0.5", lambda: pytest.fail("built in vain"))

    assert {"map": 0.5} == json.loads(capsys.readouterr().out)


def test_json_has_no_nan_and_no_foreign_types(capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers that JSON lacks become null and paths become text, at any depth."""
    document: dict[Any, Any] = {
        "ap": [float("nan"), {"x": float("-inf")}],
        "run": Path("runs") / "a",
        "shots": (1, 2),
        3: True,
    }
    Console(json=True).result(document)

    assert {"ap": [None, {"x": None}], "run": str(Path("runs") / "a"), "shots": [1, 2], "3": True} == json.loads(
        capsys.readouterr().out
    )


def test_json_survives_a_file_name_that_is_not_text(capsys: pytest.CaptureFixture[str]) -> None:
    """A file name with bytes that are not UTF-8 arrives as Python holds it."""
    Console(json=True).result({"file": "caf\udce9.jpg", "class": "Fußgänger"})

    assert {"file": "caf\udce9.jpg", "class": "Fußgänger"} == json.loads(capsys.readouterr().out)


def test_a_piped_table_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """A table of more than 80 columns stays whole in a pipe, and without markup being read into it."""
    from rich.table import Table

    def table() -> Table:
        drawn = Table(*[f"column-{number}" for number in range(30)])
        drawn.add_row(*["[bold]value"] * 30)
        return drawn

    Console().result({}, "title", table)
    title, *lines = capsys.readouterr().out.splitlines()

    assert "title" == title
    assert "column-29" in lines[1]
    assert 30 == lines[3].count("[bold]value")


def test_a_log_gets_a_line_a_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    """A long task takes eleven lines: the start, nine tenths with time left, and the end."""
    run_task(200, steps=200, seconds=400)
    lines = capsys.readouterr().err.splitlines()

    assert "training: 0 of 200" == lines[0]
    assert "training: 20 of 200 (10 %), 40 s, about 6 min 00 s left" == lines[1]
    assert "training: 180 of 200 (90 %), 6 min 00 s, about 40 s left" == lines[-2]
    assert "training: done in 6 min 40 s" == lines[-1]
    assert 11 == len(lines)


def test_what_was_done_before_does_not_count_as_speed(capsys: pytest.CaptureFixture[str]) -> None:
    """A task that goes on at 150 of 200 and makes a step a second has 40 s left after ten."""
    clock = Clock()
    task = PlainTask("training", 200, done=150, clock=clock)
    for _ in range(10):
        clock.now += 1
        task.advance()
    lines = capsys.readouterr().err.splitlines()

    assert ["training: 150 of 200", "training: 160 of 200 (80 %), 10 s, about 40 s left"] == lines


def test_a_log_is_never_silent_for_long(capsys: pytest.CaptureFixture[str]) -> None:
    """With a step a minute a line comes every five minutes at least, whether the length is known or not."""
    for total in (400, None):
        run_task(total, steps=400, seconds=400 * 60)
        assert 80 <= len(capsys.readouterr().err.splitlines()) <= 90


def test_a_quick_task_takes_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """A task of a second does not fill a log."""
    run_task(1000, steps=1000, seconds=1)

    assert ["training: 0 of 1000", "training: done in 1.0 s"] == capsys.readouterr().err.splitlines()


def test_a_task_of_unknown_length_speaks_ever_less_often(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a total a line comes after 10, 20, 40 … seconds, up to five minutes."""
    run_task(None, steps=3600, seconds=3600)
    lines = capsys.readouterr().err.splitlines()

    assert ["training: started", "training: 10, 10 s", "training: 30, 30 s"] == lines[:3]
    assert "training: done in 1 h 00 min" == lines[-1]
    assert len(lines) <= 18


@pytest.mark.parametrize(("seconds", "spoken"), [(5, 0), (30, 2)])
def test_a_nested_task_speaks_only_when_it_takes_long(
    seconds: float, spoken: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """An evaluation inside training leaves the log to training, unless it takes long."""
    run_task(100, steps=100, seconds=seconds, nested=True)

    assert spoken == len(capsys.readouterr().err.splitlines())


def test_an_empty_task_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    """A total of zero divides nothing."""
    run_task(0, steps=1, seconds=30, step=0)

    assert capsys.readouterr().err.endswith("training: done in 30 s\n")


def test_a_remark_stands_beside_the_progress(capsys: pytest.CaptureFixture[str]) -> None:
    """What `update` says, e.g. the loss, ends the next lines."""
    with Console().progress("training", 2) as task:
        task.advance(2)
        task.update("loss 0.31")

    assert capsys.readouterr().err.endswith(" s, loss 0.31\n")


def test_a_task_that_fails_says_how_far_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    """An error inside a task leaves the place where it happened in the log, and goes on."""
    with pytest.raises(ZeroDivisionError), Console().progress("training", 200) as task:
        task.advance(87)
        raise ZeroDivisionError

    assert "training: stopped after 87 of 200 in 0.0 s" == capsys.readouterr().err.splitlines()[-1]


def test_nested_tasks_of_a_console_leave_the_log_to_the_outer_one(capsys: pytest.CaptureFixture[str]) -> None:
    """A console knows by itself which task is an inner one, and when it is over."""
    console = Console()
    with console.progress("training", 1), console.progress("evaluating", 100) as inner:
        inner.advance(100)
    with console.progress("writing", 1):
        pass

    assert ["training", "training", "writing", "writing"] == [
        line.split(":")[0] for line in capsys.readouterr().err.splitlines()
    ]
