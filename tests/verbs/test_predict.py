"""predict: from images to files, by the command line and by the library."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers_data import draw_image
from helpers_runs import REPOSITORY, fsod, start_fsod
from PIL import Image

from fewshot_cli import predict
from fewshot_cli.datasets.formats.writing import WRITERS
from fewshot_cli.errors import DataError, StorageError
from fewshot_cli.runs.folder import Run
from fewshot_cli.verbs import predict as verb


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FSOD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(shapes: Path) -> Path:
    """Six images of squares and discs, two of them in a folder below."""
    folder = Path("photos")
    shutil.copytree(shapes / "test" / "images", folder)
    (folder / "more").mkdir()
    for name in ("0005.png", "0006.png"):
        (folder / name).rename(folder / "more" / name)
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def film(path: Path, frames: int = 12) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for number in range(frames):
        writer.write(np.full((48, 64, 3), 4 * number, dtype=np.uint8))
    writer.release()
    return path


def answer(*arguments: str | Path, code: int = 0) -> dict[str, Any]:
    result = fsod("predict", *arguments, "--json", "--threads", 2)
    assert code == result.exit_code, result.output
    return dict(json.loads(result.stdout))


# --- what is written ---


def test_a_folder_of_images(trained: Run, photos: Path) -> None:
    """A line and a drawing for each image, under its name in the folder, and the same numbers in every place."""
    document = answer(trained.folder, photos, "--threshold", "0.02")
    found = lines(Path("predictions/detections.jsonl"))
    images = sorted(photos.rglob("*.png"))
    assert [str(path) for path in images] == sorted(line["image"] for line in found)
    drawn = {path.relative_to("predictions/drawn") for path in Path("predictions/drawn").rglob("*.png")}
    assert {path.relative_to(photos) for path in images} == drawn
    counted = [detection["class"] for line in found for detection in line["detections"]]
    assert 0 < len(counted) and document["detections"] == {name: counted.count(name) for name in set(counted)}
    assert (6, "predictions", "jsonl", []) == tuple(
        document[key] for key in ("images", "folder", "format", "unreadable")
    )
    assert {"square": 0.02, "disc": 0.02} == document["thresholds"]
    recorded = json.loads(Path("predictions/predict.json").read_text())
    assert recorded == {key: value for key, value in document.items() if key != "page"}


def test_lines_are_what_the_predictor_finds(trained: Run, photos: Path) -> None:
    """The command and the library agree, and scores are rounded only."""
    answer(trained.folder, photos, "--no-draw", "--threshold", "0.05")
    predictor = trained.predictor(threshold=0.05)
    for line in lines(Path("predictions/detections.jsonl")):
        prediction = predictor(line["image"])
        assert list(prediction.names) == [each["class"] for each in line["detections"]]
        for each, score, box in zip(line["detections"], prediction.scores, prediction.boxes, strict=True):
            assert each["score"] == pytest.approx(float(score), abs=2e-5)
            assert each["box"] == pytest.approx(box.tolist(), abs=0.01)
    assert not Path("predictions/drawn").exists()


def test_results_do_not_depend_on_batch_or_threads(trained: Run, photos: Path) -> None:
    """The same bytes."""
    outputs = []
    for number, options in enumerate((["--batch-size", 1, "--threads", 1], ["--batch-size", 5, "--threads", 3])):
        result = fsod("predict", trained.folder, photos, "--threshold", 0, "--out", f"out{number}", *options)
        assert 0 == result.exit_code, result.output
        outputs.append(Path(f"out{number}/detections.jsonl").read_bytes())
    assert outputs[0] == outputs[1]


def test_the_latest_run_detects_and_its_threshold_decides(trained: Run, photos: Path) -> None:
    """Without RUN: that finished last, which is said; --threshold auto is the run's own, class by class."""
    run = Run(Path(shutil.copytree(trained.folder, "runs/mine")))
    run.write_result({**run.read_result(), "thresholds": {"square": 0.01, "disc": 0.999}})
    result = fsod("predict", photos, "--no-draw")
    assert 0 == result.exit_code, result.output
    assert "Run: runs/mine, the one finished last." in result.stderr
    document = json.loads(Path("predictions/predict.json").read_text())
    assert {"square": 0.01, "disc": 0.999} == document["thresholds"]
    assert {"square"} == set(document["detections"])
    assert "square" in result.stdout and "images/s" in result.stdout and "Next:" in result.stdout


def test_a_second_call_takes_a_folder_of_its_own(trained: Run, photos: Path) -> None:
    """predictions, predictions-2; and its drawings are no inputs, also when everything here is searched."""
    first, second = answer(trained.folder, "."), answer(trained.folder, ".")
    assert ("predictions", "predictions-2") == (first["folder"], second["folder"])
    assert 6 == first["images"] == second["images"]


def test_an_output_folder_must_be_empty(trained: Run, photos: Path) -> None:
    """So no image and no result is ever overwritten; the photographs stay as they are."""
    before = {path: path.read_bytes() for path in photos.rglob("*.png")}
    result = fsod("predict", trained.folder, photos, "--out", photos)
    assert 3 == result.exit_code and "photos is not empty" in result.stderr and "hint:" in result.stderr
    assert before == {path: path.read_bytes() for path in photos.rglob("*.png")}


def test_stdout_is_for_pipes(trained: Run, photos: Path) -> None:
    """--out -: the lines alone on stdout, remarks on stderr, no folder."""
    result = fsod("predict", trained.folder, photos, "--out", "-")
    assert 0 == result.exit_code, result.output
    assert 6 == len([json.loads(line) for line in result.stdout.splitlines()])
    assert "images/s" in result.stderr and not Path("predictions").exists()


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error(trained: Run, photos: Path) -> None:
    """`| head -1` gets its line."""
    process = start_fsod("predict", trained.folder.resolve(), photos, "--out", "-", "--quiet")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["image"]
    process.stdout.close()
    assert process.wait(60) in (0, 141)


def test_classes_and_most_detections(trained: Run, photos: Path) -> None:
    """--classes as people type them, and at most so many of an image."""
    answer(trained.folder, photos, "--no-draw", "--threshold", 0, "--classes", "Squares", "--max-detections", 2)
    found = lines(Path("predictions/detections.jsonl"))
    assert {"square"} == {each["class"] for line in found for each in line["detections"]}
    assert {2} == {len(line["detections"]) for line in found}


def test_tiles_find_small_objects(trained: Run, shapes: Path) -> None:
    """Nine training-size images as one of 192 × 192: cut in tiles, more of its squares are found."""
    sheet = Image.new("RGB", (192, 192))
    parts = [Image.open(path) for path in sorted((shapes / "test" / "images").iterdir())]
    for number in range(9):
        sheet.paste(parts[number % len(parts)], (64 * (number % 3), 64 * (number // 3)))
    sheet.save("sheet.png")
    counts = [
        sum(answer(trained.folder, "sheet.png", "--threshold", 0.02, *tiles)["detections"].values())
        for tiles in ([], ["--tiles", "64:0"])
    ]
    assert counts[0] < counts[1]


def test_a_pretrained_detector_detects_with_its_classes(base_weights: Path, photos: Path) -> None:
    """--detector with --weights, or the weights file alone."""
    options = ["--detector", "yolox_nano", "--weights", base_weights, "--image-size", 64]
    named = answer(photos, *options, "--no-draw", "--threshold", 0)
    assert ("yolox_nano", 80) == (named["model"], len(named["thresholds"]))
    alone = answer(base_weights, photos / "0001.png", "--no-draw")
    assert (str(base_weights), 1) == (alone["model"], alone["images"])


def test_a_page_shows_the_surest_first(trained: Run, photos: Path) -> None:
    """--page: index.html with every drawing, sorted by best score, which needs nothing from elsewhere."""
    document = answer(trained.folder, photos, "--page", "--threshold", 0.01)
    page = Path(document["page"]).read_text("utf-8")
    found = lines(Path("predictions/detections.jsonl"))
    ranked = sorted(found, key=lambda line: -max((each["score"] for each in line["detections"]), default=0))
    places = [page.index(f'src="drawn/{Path(line["image"]).relative_to(photos)}"') for line in ranked]
    assert sorted(places) == places
    assert "http:" not in page and "https:" not in page and "<script" not in page


# --- videos ---


def test_a_video_is_detected_in_frame_by_frame(trained: Run) -> None:
    """A line a frame with its number, and a drawn video."""
    document = answer(trained.folder, film(Path("clip.avi")), "--threshold", 0)
    found = lines(Path("predictions/detections.jsonl"))
    assert list(range(12)) == [line["frame"] for line in found]
    assert (0, 12, 1) == (document["images"], document["frames"], document["videos"])
    drawn = cv2.VideoCapture("predictions/drawn/clip.mp4")
    assert 12 == int(drawn.get(cv2.CAP_PROP_FRAME_COUNT))


def test_a_cut_video_keeps_what_lies_before(trained: Run) -> None:
    """Exit 3 and how many frames there were; they are written and drawn."""
    path = film(Path("cut.avi"), 40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    document = answer(trained.folder, path, code=3)
    assert 0 < document["frames"] < 40
    assert "of 40 frames: cut or damaged" in document["unreadable"][0]["reason"]
    assert document["frames"] == len(lines(Path("predictions/detections.jsonl")))
    assert Path("predictions/drawn/cut.mp4").is_file()


# --- what cannot be read ---


def test_unreadable_files_are_reported_at_the_end(trained: Run, photos: Path) -> None:
    """Exit 3, each with its reason; everything else is kept. A pixel is an image, 400 million are not."""
    (photos / "a_damaged.jpg").write_bytes(b"\xff\xd8 no more")
    (photos / "empty.mp4").touch()
    Image.new("RGB", (1, 1)).save(photos / "pixel.png")
    Image.new("1", (20_000, 20_000)).save(photos / "huge.png")
    result = fsod("predict", trained.folder, photos, "--json", "--threads", 2)
    document = json.loads(result.stdout)
    assert (3, 7) == (result.exit_code, document["images"])
    reasons = {Path(each["file"]).name: each["reason"] for each in document["unreadable"]}
    assert {"a_damaged.jpg", "empty.mp4", "huge.png"} == set(reasons)
    assert "decompression bomb" in reasons["huge.png"] and "not readable as a video" in reasons["empty.mp4"]
    assert all(f"{photos / name}: {reason}" in result.stderr for name, reason in reasons.items())
    assert 7 == len(lines(Path("predictions/detections.jsonl")))


def test_the_library_returns_what_it_could_not_read(trained: Run, photos: Path) -> None:
    """No exception for a single file of many."""
    (photos / "bad.jpg").touch()
    result = predict(photos, trained, out="out", draw=False, threads=1)
    assert ["photos/bad.jpg"] == [problem.file for problem in result.unreadable]
    assert 6 == len(result.images) and 0 < result.images_per_second
    with pytest.raises(DataError, match="out is not empty"):
        predict(photos, trained, out="out")


@pytest.mark.parametrize(
    ("words", "code", "message", "hint"),
    [
        (["RUN"], 2, "nothing to detect in", "fsod predict RUN"),
        (["RUN", "nowhere"], 3, "nowhere does not exist", "Give images"),
        (["RUN", "empty"], 3, "empty holds no image and no video", "Images end in"),
        (["photos"], 3, "no finished run in runs/", "fsod finetune"),
        (["RUN", "photos", "--detector", "yolox_nano"], 2, "--detector names a detector without a run", "not both"),
        (["photos", "--detector", "yolo"], 5, "unknown detector 'yolo'", "yolox_nano"),
        (["RUN", "photos", "--image-size", "64"], 2, "--image-size goes with --detector", "trained at"),
        (["RUN", "photos", "--format", "cocoo"], 2, "unknown format 'cocoo'", "Valid:"),
        (["RUN", "photos", "--threshold", "high"], 2, "a threshold of high is not possible", "0 to 1"),
        (["RUN", "photos", "--classes", "sqare"], 2, "unknown class 'sqare'", "Did you mean square?"),
        (["RUN", "photos", "--tiles", "10"], 2, "--tiles '10' is not possible", "SIZE:OVERLAP"),
        (["RUN", "photos", "--max-detections", "0"], 2, "--max-detections", "--help"),
        (["RUN", "photos", "--out", "-", "--json"], 2, "both write to stdout", "--out DIR"),
        (["RUN", "photos", "--page", "--no-draw"], 2, "--page shows drawn images", "--no-draw"),
        (["RUN", "photos", "--device", "tpu9"], 4, "unknown device 'tpu9'", "auto, cpu"),
        (["RUN", "photos", "--precision", "fp8"], 4, "unknown precision 'fp8'", "fp32"),
        (["nowhere.pth", "photos"], 5, "no weights file nowhere.pth", ".safetensors"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_told(words: list[str], code: int, message: str, hint: str, trained: Run, photos: Path) -> None:
    """Exit code, what is wrong and what would be right; nothing is written."""
    Path("empty").mkdir()
    result = fsod("predict", *(str(trained.folder) if word == "RUN" else word for word in words))
    error, _, advice = result.stderr.partition("\nhint: ")
    assert code == result.exit_code, result.output
    assert message in error and hint in advice and "Traceback" not in result.output
    assert not Path("predictions").exists()


@pytest.mark.parametrize("format", WRITERS)
def test_a_name_that_is_not_utf_8_is_written_in_every_format(format: str, trained: Run) -> None:
    """Labels, drawing, page and record, in which a byte of another encoding is escaped."""
    draw_image(Path(os.fsdecode(b"photos/caf\xe9.png")), 0, (64, 64))
    document = answer(trained.folder, "photos", "--format", format, "--page")
    assert (1, []) == (document["images"], document["unreadable"])
    assert Path("predictions/index.html").is_file()
    assert Path(os.fsdecode(b"predictions/drawn/caf\xe9.png")).is_file()


@pytest.mark.parametrize(
    ("redirected", "code", "message"),
    [
        pytest.param("> /dev/full", 3, "cannot write standard output: the disk is full", marks=pytest.mark.slow),
        (">&-", 2, "which is closed"),
    ],
)
def test_lines_that_cannot_be_written_to_stdout_end_it(
    redirected: str, code: int, message: str, trained: Run, photos: Path
) -> None:
    """`--out -` into a file on a full disk, and without a standard output."""
    words = ("predict", trained.folder, photos, "--out", "-", "--threads", 1)
    command = shlex.join([sys.executable, "-m", "fewshot_cli", *map(str, words)])
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        ["bash", "-c", f"{command} {redirected}"], env=environment, capture_output=True, text=True, check=False
    )
    assert code == done.returncode, done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr


# --- interrupted ---


def test_finished_images_stay_when_it_is_interrupted(
    trained: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C at the fourth image: three whole lines, their drawings, and no temporary file."""
    write, written = verb._write, []

    def write_and_stop(*arguments: Any) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(arguments)
        write(*arguments)

    monkeypatch.setattr(verb, "_write", write_and_stop)
    assert 130 == fsod("predict", trained.folder, photos, "--threads", 1).exit_code
    found = lines(Path("predictions/detections.jsonl"))
    assert 3 == len(found)
    for line in found:
        with Image.open(Path("predictions/drawn", Path(line["image"]).relative_to(photos))) as drawn:
            drawn.load()
    assert [] == list(Path("predictions").rglob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_finished_images_stay_when_it_is_stopped(number: signal.Signals, code: int, trained: Run) -> None:
    """Ctrl-C and SIGTERM: whole lines, whole drawings, no temporary file, and it ends at once."""
    for image in range(300):
        draw_image(Path(f"many/{image:03}.jpg"), image, (640, 480))
    process = start_fsod("predict", trained.folder.resolve(), "many", "--threads", 1)
    detections = Path("predictions/detections.jsonl")
    wait_for(lambda: detections.exists() and detections.stat().st_size > 0)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert code == process.returncode, stderr
    assert 0 < len(lines(detections)) < 300
    for line in lines(detections):
        with Image.open(Path("predictions/drawn", Path(line["image"]).name)) as drawn:
            drawn.load()
    assert [] == list(Path("predictions").rglob(".*"))


def wait_for(done: Callable[[], bool]) -> None:
    for _ in range(600):
        if done():
            return
        time.sleep(0.05)
    raise AssertionError("not done after 30 s")


def test_a_full_disk_ends_it_and_spares_what_was_written(trained: Run, tmp_path: Path) -> None:
    """A disk of 400 kB: exit 3 and the file's name; whole lines, whole drawings, no temporary file."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        for image in range(60):
            noise = np.random.default_rng(image).integers(0, 255, (120, 160, 3), dtype=np.uint8)
            path = Path(f"many/{image:03}.png")
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(noise).save(path)
        result = fsod("predict", trained.folder, "many", "--out", disk / "out", "--threads", 1)
        assert 3 == result.exit_code, result.output
        assert "the disk is full" in result.stderr and str(disk) in result.stderr
        found = lines(disk / "out" / "detections.jsonl")
        assert 0 < len(found) < 60
        for line in found:
            with Image.open(disk / "out" / "drawn" / Path(line["image"]).name) as drawn:
                drawn.load()
        assert [] == list(disk.rglob(".*"))
        with pytest.raises(StorageError):
            predict("many", trained, out=disk / "again", threads=1)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_help_answers_without_torch() -> None:
    """`fsod predict --help` imports nothing heavy."""
    code = (
        "import sys; from typer.testing import CliRunner; from fewshot_cli.cli.app import app; "
        "assert 'INPUT' in CliRunner().invoke(app, ['predict', '--help']).output; "
        "sys.exit(bool({'torch', 'numpy', 'PIL', 'cv2'} & set(sys.modules)))"
    )
    assert 0 == subprocess.run([sys.executable, "-c", code], check=False).returncode
