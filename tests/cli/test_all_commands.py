"""The whole command line: what a person types wrongly, what a script relies on."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers_data import write_document
from helpers_runs import TINY, argv_of, draw_shapes, fsod

from fewshot_cli.detectors.registry import DETECTORS
from fewshot_cli.policies import POLICIES
from fewshot_cli.runs.checkpoint import read_checkpoint
from fewshot_cli.runs.folder import Run


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FSOD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FSOD_TRACEBACK", raising=False)


# --- bad options ---


@pytest.mark.parametrize(
    ("options", "code", "message", "hint"),
    [
        ({"policy": "symetric"}, 4, "unknown policy 'symetric'", "Did you mean symmetric?"),
        ({"detector": "yolox_nanno"}, 5, "unknown detector 'yolox_nanno'", "Did you mean yolox_nano?"),
        ({"budget": 0}, 4, "a budget of 0 is not possible with policy symmetric: this head has M = 4 layers", "2 to 4"),
        ({"budget": 5}, 4, "M = 4 layers", "It would work with: retinanet_resnet50_fpn"),
        ({"budget": "three"}, 4, "budget is 'three': give a number of head layers (3), of parameters (60k", "--help"),
        (
            {"backbone_stages": 6},
            4,
            "--backbone-stages 6 is not possible: this backbone has 5 stages",
            "0 (frozen) to 5",
        ),
        ({"backbone_stages": 1, "policy": "none"}, 4, "policy none trains nothing", "Drop those options"),
        ({"init_class": "kat", "weights": "BASE"}, 5, "no base class 'kat' to start from", "Did you mean cat?"),
        ({"weights": "imagenet"}, 5, "yolox_nano has no ImageNet weights", "retinanet_resnet50_fpn"),
        ({"weights": "nowhere.pth"}, 5, "nowhere.pth", ".safetensors file"),
        (
            {"image_size": 100},
            4,
            "image_size is 100: give a multiple of 32 that is at least 64 and at most 2,048",
            "--help",
        ),
        ({"device": "cuda:7"}, 4, "no device cuda:7", "--device auto or cpu"),
        ({"device": "tpu9"}, 4, "unknown device 'tpu9'", "auto, cpu, cuda"),
        ({"device": "meta"}, 4, "device meta is not supported", "auto, cpu, cuda"),
        ({"optimizer": "adam"}, 4, "optimizer is 'adam': Did you mean adamw? Valid: adamw, sgd.", "--help"),
        ({"ops": "flip,rotato"}, 4, "unknown operation 'rotato'. Did you mean rotate? Valid: positive, flip", "--help"),
        (
            {"batch_size": 0, "copies": -2},
            4,
            "at most 10,000; batch_size is 0: give a number that is at least 1",
            "--help",
        ),
        ({"lr": "nan"}, 4, "lr is nan: give a finite number", "--help"),
        ({"threads": 0}, 2, "'0' is neither auto nor a number that is at least 1", "--help"),
        ({"data": "nowhere"}, 3, "nowhere does not exist", "fsod fetch"),
        ({"data": "."}, 3, "is not a data set: it has no train/", "annotations.json and images/"),
        ({"name": "a/b"}, 4, "--name 'a/b' is not a plain folder name", "--runs"),
        ({"name": "taken"}, 4, "a run runs/taken exists already", "--resume runs/taken"),
        ({"resume": "nowhere"}, 2, "--resume continues with the options the run was started with", "new run"),
        ({"lr": "1e30", "optimizer": "sgd", "clip": 0}, 6, "the loss is nan at iteration 2", "Lower --lr"),
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_a_bad_option_of_finetune_is_told(
    options: dict[str, Any], code: int, message: str, hint: str, shapes: Path, base_weights: Path
) -> None:
    """Each wrong option has its exit code, names what is wrong, and says what would be right."""
    Path("runs/taken").mkdir(parents=True)
    options = {key: base_weights if value == "BASE" else value for key, value in options.items()}
    hold(fsod(*argv_of(shapes, **options)), code, message, hint)


def hold(result: Any, code: int, message: str, hint: str) -> None:
    """An error as a person should see it: on stderr, with a hint, nothing on stdout, no traceback."""
    assert code == result.exit_code, result.output
    error, marker, advice = result.stderr.partition("\nhint: ")
    assert marker and message in error and hint in advice, result.stderr
    assert "Traceback" not in result.output and "bug:" not in result.output
    assert "" == result.stdout


@pytest.mark.slow
def test_without_a_budget_three_layers_train(shapes: Path) -> None:
    """--budget defaults to 3 for policies that take one, and the run records it; inspect-layers agrees."""
    without = {key: value for key, value in TINY.items() if key != "budget"}
    for policy, budget in (("symmetric", 3), ("all", None)):
        result = fsod(*argv_of(shapes, {**without, "policy": policy, "iterations": 1}), "--no-report", "--json")
        assert 0 == result.exit_code, result.stderr
        run = json.loads(result.stdout)
        assert (budget, budget) == (run["budget"], Run(Path(run["run"])).read_config().budget)
        shown = json.loads(fsod("inspect-layers", "yolox_nano", "--policy", policy, "--json").stdout)
        assert (budget, run["trained_layers"]) == (
            shown["budget"], [layer["name"] for layer in shown["layers"] if layer["trained"]]
        )  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "code", "message", "hint"),
    [
        (["inspect-layers", "yolox"], 5, "unknown detector 'yolox'", "yolox_s"),
        (["inspect-layers", "yolox_nano", "--policy", "lats", "--budget", "1"], 4, "unknown policy", "mean last?"),
        (["inspect-layers", "yolox_nano", "--image-size", "65"], 4, "image_size is 65: give a multiple of 32", "--help"),
        (["inspect-layers", "yolox_nano", "--classes", "0"], 2, "--classes", "--help"),
        (["eval", "nowhere"], 3, "nowhere is not a run", "fsod finetune"),
        (["eval", "--detector", "nope", "--data", "DATA"], 5, "unknown detector 'nope'", "Valid:"),
        (["finetune", "--resume", "nowhere"], 3, "nowhere is not a run", "fsod finetune"),
        (["finetune", "--budget", "3"], 3, "no data set under data", "fsod fetch"),
        (["augment"], 3, "no data set under data", "fsod fetch"),
        (["augment", "DATA", "--ops", "turn"], 4, "unknown operation 'turn'. Valid: positive", "--help"),
        (["augment", "DATA", "--copies", "0", "--flip", "2"], 4, "copies is 0: give a number that is at least 1", "--help"),
        (["sweep", "--class", "x", "--source", "miniature", "--set", "iterations=abc"], 4, "iterations is 'abc'", "--help"),
        (["sweep", "--class", "x", "--source", "miniature", "--set", "ops=5"], 4, "unknown operation '5'. Valid: positive", "--help"),
        (["augment", "nowhere"], 3, "nowhere does not exist", "fsod fetch"),
        (["fetch", "--source", "coco:POOL"], 2, "no class is named", "--class"),
        (["fetch", "--class", "square", "--split", "valid"], 2, "split is 'valid': Did you mean validation?", "--help"),
        (["fetch", "--class", "square", "--allow", "ocluded"], 2, "allow is 'ocluded'", "Did you mean occluded?"),
        (["fetch", "--class", "square", "--source", "coco:POOL", "--offline"], 2, "--offline does not go", "openimages"),
        (["fetch", "--class", "square", "--offline"], 7, "--offline allows no download", "without --offline"),
        (["fetch", "--class", "square", "--source", "cocoo:POOL"], 2, "unknown source", "Did you mean coco:DIR?"),
        (["fetch", "--class", "sqare", "--source", "coco:POOL"], 3, "unknown class 'sqare'", "Did you mean square?"),
        (["fetch", "--class", "square", "--source", "coco:POOL"], 3, "for 10 shots (square: 4)", "--shots 4"),
        (["fetch", "--class", "square", "--source", "coco:POOL", "--shots", "0"], 2, "shots is 0: give a number that is at least 1", "--help"),
        (["fetch", "--class", "square", "--source", "coco:nowhere"], 3, "nowhere does not exist", "COCO"),
        (["fetch", "--class", "square", "--source", "coco:POOL", "--name", "a/b"], 2, "cannot be the name", "slashes"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_every_other_command_tells_what_is_wrong(
    argv: list[str], code: int, message: str, hint: str, shapes: Path
) -> None:
    """The same for the other commands: exit code, what and where, and a hint."""
    places = {"DATA": str(shapes), "coco:POOL": f"coco:{shapes / 'train'}"}
    hold(fsod(*(places.get(word, word) for word in argv)), code, message, hint)


# --- bad data ---

Spoil = Callable[[Path, dict[str, Any]], Any]


def box(value: list[Any]) -> Spoil:
    return lambda folder, document: document["annotations"][0].update(bbox=value)


def half_of_it(folder: Path, document: dict[str, Any]) -> None:
    path = folder / "images" / "0001.png"
    path.write_bytes(path.read_bytes()[:80])


BAD_DATA: list[tuple[Spoil, str]] = [
    (lambda folder, document: document.clear(), '"images" is missing'),
    (lambda folder, document: document["images"][0].update(width=65), "the annotations say 65×64 pixels"),
    (half_of_it, "not readable as an image"),
    (box([50, 50, 30, 30]), "leaves the image of 64×64 pixels"),
]
"""One fault of the document, of an image, of a file and of a box; tests/datasets has the others."""


@pytest.mark.parametrize("command", ["finetune", "eval"])
def test_bad_data_is_told_with_file_record_and_reason(command: str, tmp_path: Path, trained: Run, shapes: Path) -> None:
    """A faulty test set stops fine-tune and eval with exit 3; the message names the file and the reason."""
    for number, (spoil, reason) in enumerate(BAD_DATA):
        data = Path(shutil.copytree(shapes, tmp_path / "data" / f"bad{number}"))
        document = json.loads((data / "test" / "annotations.json").read_text())
        spoil(data / "test", document)
        write_document(data / "test", document)
        result = fsod(*argv_of(data) if command == "finetune" else ("eval", trained.folder, "--data", data))
        hold(result, 3, reason, "")
        assert str(data) in result.stderr


def test_json_that_is_not_coco_is_told(shapes: Path, tmp_path: Path) -> None:
    """An annotations.json that is no COCO file: exit 3, its path, and what COCO looks like."""
    data = Path(shutil.copytree(shapes, tmp_path / "bad"))
    (data / "train" / "annotations.json").write_text("{")
    result = fsod(*argv_of(data))
    hold(result, 3, "annotations.json: not ", "")
    assert "train" in result.stderr


def test_all_problems_come_at_once_for_people_and_for_programs(shapes: Path, tmp_path: Path) -> None:
    """Faults in both splits are one list; --json has each with file, record and reason."""
    data = Path(shutil.copytree(shapes, tmp_path / "bad"))
    for name, spoil in (("train", box([0, 0, -1, 5])), ("test", box([60, 0, 30, 5]))):
        document = json.loads((data / name / "annotations.json").read_text())
        spoil(data / name, document)
        write_document(data / name, document)
    result = fsod(*argv_of(data), "--json")
    problems = json.loads(result.stdout)["error"]["problems"]
    assert (3, 2) == (result.exit_code, len(problems))
    assert ["annotation 1", "annotation 1"] == [problem["record"] for problem in problems]
    assert ["train", "test"] == [Path(problem["file"]).parent.name for problem in problems]
    assert all(problem["reason"] in result.stderr for problem in problems)


# --- the disk ---


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts tmpfs with given options: a real full or read-only disk, where root may do that."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        folder = tmp_path / "disk"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting a tmpfs needs root")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(("size", "left"), [("100k", False), ("400k", True), ("1200k", True)])
def test_a_full_disk_ends_the_run_and_spares_what_was_saved(
    size: str, left: bool, small_disk: Callable[[str], Path], shapes: Path
) -> None:
    """Full at the first checkpoint, at the first state, or later: exit 3, the file's name, no half-written file.

    Where nothing could be saved, no folder stays behind either.
    """
    folder = small_disk(f"size={size}")
    result = fsod(*argv_of(shapes, iterations=20, eval_every=2, runs=folder, name="run"))
    hold(result, 3, "the disk is full", "Free some space")
    assert str(folder / "run") in result.stderr
    run = Run(folder / "run")
    assert not run.finished and [] == list(run.folder.glob(".*"))
    assert left == run.folder.exists()
    if left:
        assert read_checkpoint(run.best_checkpoint)[1].iteration > 0


def test_a_read_only_disk_is_told(small_disk: Callable[[str], Path], shapes: Path, trained: Run) -> None:
    """finetune, fetch, augment and eval --predictions on a read-only disk: exit 3 and the path."""
    folder = small_disk("size=1m,ro")
    pool = f"coco:{shapes / 'test'}"
    for argv in (
        argv_of(shapes, runs=folder),
        ["fetch", "--class", "square", "--shots", 2, "--source", pool, "--root", folder],
        ["augment", shapes, "--out", folder / "more"],
        ["eval", trained.folder, "--predictions", folder / "p.json"],
    ):
        result = fsod(*argv)
        hold(result, 3, "the file system is read-only", "")
        assert str(folder) in result.stderr


def test_a_write_that_is_cut_short_is_told_without_root(shapes: Path) -> None:
    """A limit on file sizes, which any user can set, stands for a quota: exit 3, and the run can be resumed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
        result = fsod(*argv_of(shapes, name="small"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    hold(result, 3, "cannot write runs/small/state.pt: the file is larger than the disk allows", "")
    assert 0 == fsod("finetune", "--resume", "runs/small", "--no-report").exit_code


def test_a_file_where_a_folder_should_be_is_told(shapes: Path) -> None:
    """--runs that names a file: exit 3, not a traceback."""
    Path("runs").write_text("here already")
    hold(fsod(*argv_of(shapes)), 3, "a file stands where a folder should be", "Check the path")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_answer_that_cannot_be_written_is_an_error(trained: Run) -> None:
    """stdout on a full disk: exit 3, so a script does not go on with an empty file."""
    with open("/dev/full", "w") as full:  # noqa: PTH123
        command = [
            sys.executable,
            "-m",
            "fewshot_cli",
            "finetune",
            "--resume",
            str(trained.folder),
            "--json",
            "--no-report",
        ]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    assert 3 == done.returncode and "cannot write: the disk is full" in done.stderr


# --- what scripts rely on ---


@pytest.mark.parametrize("form", ["toml", "json"])
@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("iterations", "abc", 'iterations: "abc" does not fit'),
        ("optimizer", 7, "optimizer is '7': Valid: adamw, sgd."),
    ],
)  # fmt: skip
def test_a_wrong_type_in_a_file_is_told(form: str, option: str, value: Any, said: str, shapes: Path) -> None:
    """A value that an option cannot take is a configuration error that names the option, in TOML as in JSON."""
    file = Path(f"options.{form}")
    file.write_text(json.dumps({option: value}) if form == "json" else f"{option} = {json.dumps(value)}")
    hold(fsod("finetune", "--data", shapes, "--config", file), 4, said, "")


def test_a_runs_config_repeats_it(shapes: Path) -> None:
    """--config runs/X/config.json, or the folder: the same run again, to the same metrics."""
    first = fsod(*argv_of(shapes, name="first", ops="color,flip", lr=0.01, seed=3, iterations=2), "--no-report")
    assert 0 == first.exit_code, first.stderr
    for number, config in enumerate(("runs/first/config.json", "runs/first")):
        again = fsod("finetune", "--config", config, "--name", f"again{number}", "--no-report")
        assert 0 == again.exit_code, again.stderr
        assert Run(Path("runs/first")).read_config() == Run(Path(f"runs/again{number}")).read_config()
        assert Path("runs/first/metrics.jsonl").read_bytes() == Path(f"runs/again{number}/metrics.jsonl").read_bytes()


def test_a_toml_file_holds_options_and_the_command_line_wins(shapes: Path) -> None:
    """Flat keys and the command's own table; what is typed beats the file, the file beats the default."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in TINY.items()]
    Path("fsod.toml").write_text("\n".join(["seed = 4", "[finetune]", *lines, f'data = "{shapes}"']))
    result = fsod("finetune", "--config", "fsod.toml", "--iterations", "2", "--json")
    assert 0 == result.exit_code, result.stderr
    document = json.loads(result.stdout)
    assert (2, 4) == (document["iterations"], document["seed"])
    assert (64, 4, "symmetric") == tuple(
        getattr(Run(Path(document["run"])).read_config(), name) for name in ("image_size", "batch_size", "policy")
    )


def commands_on(shapes: Path, run: Run) -> dict[str, list[Any]]:
    return {
        "fetch": ["fetch", "--class", "square", "--shots", 2, "--source", f"coco:{shapes / 'test'}"],
        "augment": ["augment", shapes, "--copies", 2, "--out", "more"],
        "finetune": argv_of(shapes),
        "eval": ["eval", run.folder],
        "inspect-layers": ["inspect-layers", "yolox_nano", "--policy", "last", "--budget", 1],
        "inspect-layers of nothing": ["inspect-layers"],
        "inspect-layers of a run": ["inspect-layers", run.folder],
        "a finished run": ["finetune", "--resume", run.folder, "--no-report"],
        "an error": ["eval", "nowhere"],
        "a usage error": ["eval", "--bogus"],
    }


@pytest.mark.parametrize("name", list(commands_on(Path(), Run(Path()))))
def test_json_is_one_document_on_stdout_and_quiet_is_silence(name: str, shapes: Path, trained: Run) -> None:
    """With --json stdout parses as one document; with --quiet stderr has nothing but errors."""
    result = fsod(*commands_on(shapes, trained)[name], "--json", "--quiet")
    document = json.loads(result.stdout)
    assert isinstance(document, dict) and document
    assert ("error" in name) == (result.exit_code != 0) == ("error" in document)
    assert (result.stderr == "") == (result.exit_code == 0)


def test_quiet_leaves_the_table(shapes: Path) -> None:
    """--quiet silences stderr, not the answer on stdout."""
    result = fsod(*argv_of(shapes, iterations=1), "-q")
    assert (0, "") == (result.exit_code, result.stderr)
    assert "test mAP" in result.stdout and "0 of 5" in result.stdout


def test_a_run_speaks_on_stderr_and_answers_on_stdout(shapes: Path) -> None:
    """Without --quiet: the run's folder, the class's start and progress on stderr; the result on stdout."""
    result = fsod(*argv_of(shapes, name="spoken"))
    for text in ("Run: runs/spoken", "Class 'square' starts from random weights.", "Training: done"):
        assert text in result.stderr and text not in result.stdout
    for text in ("head.1, head.2, head.4", "frozen tensors changed", "train mAP", "Next: fsod eval runs/spoken"):
        assert text in result.stdout


def test_the_four_commands_without_names(shapes: Path, tmp_path: Path) -> None:
    """fetch, inspect-layers, finetune, eval as in the issue: the latest data set and run are taken and named."""
    for name, seed in (("older", 1), ("newer", 2)):
        draw_shapes(tmp_path / name, 8, seed)
        fetched = fsod(
            "fetch", "--source", f"coco:{tmp_path / name}", "--class", "square", "--shots", 3, "--name", name
        )
        assert 0 == fetched.exit_code, fetched.stderr
        os.utime(f"data/{name}/dataset.json", (seed * 1000, seed * 1000))
    assert 0 == fsod("inspect-layers", "yolox_nano", "--policy", "symmetric", "--budget", "3").exit_code
    trained = fsod(*argv_of(None, name="run", iterations=2), "--no-report")
    assert 0 == trained.exit_code, trained.stderr
    assert "Data set: data/newer, the most recently fetched one." in trained.stderr
    measured = fsod("eval", "--json")
    assert "Run: runs/run, the one finished last." in measured.stderr
    result = json.loads(Path("runs/run/result.json").read_text())
    assert result["metrics"]["numbers"] == json.loads(measured.stdout)["numbers"]
    assert (str(Path("data/newer").resolve()), ["square"], 3) == (
        result["data"],
        result["classes"],
        result["images"]["train"],
    )


def test_a_run_gets_a_telling_name(shapes: Path) -> None:
    """Without --name: data set, detector, policy, budget, seed; a number if that is taken."""
    names = [json.loads(fsod(*argv_of(shapes, iterations=1), "--no-report", "--json").stdout)["run"] for _ in range(2)]
    assert ["runs/shapes-yolox_nano-symmetric3-seed0", "runs/shapes-yolox_nano-symmetric3-seed0-2"] == names


def test_help_names_every_policy_and_the_registry_every_detector() -> None:
    """What can be chosen is told where it is chosen."""
    shown = " ".join(fsod("finetune", "--help").stdout.split())
    assert all(policy in shown for policy in POLICIES)
    listed = fsod("inspect-layers").stdout
    assert all(name in listed for name in DETECTORS)
