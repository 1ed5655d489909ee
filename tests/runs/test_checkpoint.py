"""Checkpoints: what is not one, or not of this base, is refused, with exit 5 and a way out; nothing in it is run."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers_data import write_document
from helpers_runs import SIDE, argv_of, config_of, draw_shapes, fine_tune, fsod
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fewshot_cli.detectors.registry import build_detector
from fewshot_cli.detectors.weights import state_fingerprint
from fewshot_cli.errors import CheckpointError
from fewshot_cli.runs.checkpoint import CheckpointInfo, read_checkpoint, restore, save_checkpoint
from fewshot_cli.runs.folder import Run


@pytest.fixture
def run(trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy of a finished run, to be spoilt."""
    monkeypatch.chdir(tmp_path)
    return Run(Path(shutil.copytree(trained.folder, tmp_path / "run")))


class Hostile:
    """Unpickled by a careless reader, it leaves a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


def write_hostile(path: Path, trace: Path, *, how: Callable[..., None]) -> None:
    """A file that is proven to run code where it is unpickled without care."""
    with path.open("wb") as stream:
        how({"model": {"head.stems.0.conv.weight": Hostile(trace)}}, stream)
    content = io.BytesIO(path.read_bytes())
    pickle.load(content) if how is pickle.dump else torch.load(content, weights_only=False)
    assert trace.is_dir()
    trace.rmdir()


@pytest.mark.parametrize("name", ["evil.pth", "evil.safetensors"])
def test_hostile_weights_are_refused_and_not_run(
    name: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--weights FILE with a pickle that runs code: exit 5, and the code has not run."""
    monkeypatch.chdir(tmp_path)
    write_hostile(tmp_path / name, tmp_path / "trace", how=torch.save)
    result = fsod(*argv_of(shapes, weights=tmp_path / name))
    assert (5, False) == (result.exit_code, (tmp_path / "trace").exists())
    assert name in result.stderr and "hint:" in result.stderr
    if name != "evil.safetensors":
        assert "Nothing was run" in result.stderr


@pytest.mark.parametrize("how", [pickle.dump, torch.save], ids=["pickle", "torch.save"])
@pytest.mark.parametrize("file", ["checkpoint", "state_file"])
def test_hostile_files_of_a_run_are_refused_and_not_run(
    how: Callable[..., None], file: str, run: Run, tmp_path: Path
) -> None:
    """The same in a run from somebody else: as its checkpoint for eval, as its state for --resume."""
    write_hostile(getattr(run, file), tmp_path / "trace", how=how)
    if file == "state_file":
        run.result_file.unlink()
    result = fsod("eval", run.folder) if file == "checkpoint" else fsod("finetune", "--resume", run.folder)
    assert (5, False) == (result.exit_code, (tmp_path / "trace").exists())
    assert str(getattr(run, file)) in result.stderr and "hint:" in result.stderr


def cut(run: Run) -> None:
    run.checkpoint.write_bytes(run.checkpoint.read_bytes()[:-1000])


def cut_in_the_header(run: Run) -> None:
    run.checkpoint.write_bytes(run.checkpoint.read_bytes()[:50])


def empty(run: Run) -> None:
    run.checkpoint.write_bytes(b"")


def text(run: Run) -> None:
    run.checkpoint.write_text("version https://git-lfs.github.com/spec/v1\n")


def without_metadata(run: Run) -> None:
    save_file(load_file(run.checkpoint), run.checkpoint)


def with_others_metadata(run: Run) -> None:
    save_file(load_file(run.checkpoint), run.checkpoint, {"fsod": '["a", "list"]'})


def of_a_later_version(run: Run) -> None:
    tensors = load_file(run.checkpoint)
    with safe_open(run.checkpoint, framework="pt") as file:
        info = json.loads(file.metadata()["fsod"])
    del info["sha256"]
    save_file(tensors, run.checkpoint, {"fsod": json.dumps({**info, "format": 2, "shape": "new"})})


def missing(run: Run) -> None:
    run.checkpoint.unlink()


def rewrite(run: Run, tensors: dict[str, torch.Tensor] | None = None, **changes: object) -> None:
    own, info = read_checkpoint(run.checkpoint)
    save_checkpoint(run.checkpoint, own if tensors is None else tensors, replace(info, **changes))  # type: ignore[arg-type]


def of_another_detector(run: Run) -> None:
    rewrite(run, detector="yolox_tiny")


def of_an_unknown_detector(run: Run) -> None:
    rewrite(run, detector="yolox_huge")


def on_another_base(run: Run) -> None:
    rewrite(run, seed=5)


def with_foreign_tensors(run: Run) -> None:
    rewrite(run, {"head.cls_convs.9.weight": torch.zeros(1)})


def with_another_shape(run: Run) -> None:
    own, _ = read_checkpoint(run.checkpoint)
    rewrite(run, {**own, "head.cls_preds.0.weight": torch.zeros(80, 64, 1, 1)})


@pytest.mark.parametrize(
    ("spoil", "message", "hint"),
    [
        (cut, "is truncated or damaged", "Copy it again"),
        (cut_in_the_header, "is truncated or damaged", "Copy it again"),
        (empty, "is truncated or damaged", "Copy it again"),
        (text, "is truncated or damaged", "Copy it again"),
        (without_metadata, "is not a checkpoint of fsod", "checkpoint.safetensors"),
        (with_others_metadata, "checkpoint.safetensors is damaged", "checkpoint.safetensors"),
        (of_a_later_version, "has format 2, and this version of fsod reads 1", "Use the version of fsod"),
        (missing, "no checkpoint", "--resume"),
        (of_another_detector, "was trained on other yolox_tiny weights", "--weights"),
        (of_an_unknown_detector, "unknown detector 'yolox_huge'", "Valid: retinanet_resnet50_fpn"),
        (on_another_base, "was trained on other yolox_nano weights than none", "--weights"),
        (with_foreign_tensors, "fit yolox_nano: 1 tensors are foreign, first head.cls_convs.9.weight", "2 classes"),
        (with_another_shape, "1 tensors are of another shape or type, first head.cls_preds.0.weight", "2 classes"),
    ],
)  # fmt: skip
def test_a_spoilt_checkpoint_is_an_error_that_says_how(
    spoil: Callable[[Run], None], message: str, hint: str, run: Run
) -> None:
    """Every way in which a checkpoint can be wrong: exit 5, the file, the reason and a hint, for eval."""
    spoil(run)
    result = fsod("eval", run.folder)
    assert 5 == result.exit_code, result.output
    error, _, advice = result.stderr.partition("hint: ")
    assert message in error and hint in advice
    if "unknown" not in message:
        assert str(run.checkpoint) in error


def test_the_wrong_base_is_told_before_anything_is_put_on_it(run: Run, base_weights: Path) -> None:
    """eval --weights with a file that is not the run's base: refused by its fingerprint."""
    result = fsod("eval", run.folder, "--weights", base_weights)
    assert 5 == result.exit_code
    assert f"was trained on other yolox_nano weights than {base_weights}" in result.stderr


def test_weights_of_another_detector_are_named(shapes: Path, base_weights: Path, run: Run) -> None:
    """finetune --detector X --weights of Y: exit 5, and the message says what they look like."""
    result = fsod(*argv_of(shapes, detector="yolox_tiny", weights=base_weights))
    assert 5 == result.exit_code
    assert "weights do not fit: yolox_tiny" in result.stderr and "look like weights of yolox_nano" in result.stderr


def test_truncated_weights_are_told(shapes: Path, base_weights: Path, run: Run, tmp_path: Path) -> None:
    """A weights file that lost its end: exit 5, its name, and the advice to copy it again."""
    half = tmp_path / "half.pth"
    half.write_bytes(base_weights.read_bytes()[:100_000])
    result = fsod(*argv_of(shapes, weights=half))
    assert 5 == result.exit_code
    assert f"{half} is truncated or damaged (100,000 bytes)" in result.stderr and "copy it again" in result.stderr


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    """Tensors of any type and memory layout, and what they belong to, survive the file."""
    tensors = {
        "a": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "b": torch.arange(3),
        "c": torch.rand(4, 4).T.bfloat16(),
    }
    info = CheckpointInfo(
        detector="yolox_nano", weights="none", base_fingerprint="0", classes=("Größe", "b"), image_size=64,
        policy="last", budget=None, trained_layers=("head.4",), iteration=3, seed=1,
    )  # fmt: skip
    save_checkpoint(tmp_path / "c.safetensors", tensors, info)
    loaded, said = read_checkpoint(tmp_path / "c.safetensors")
    assert info == said
    assert all(
        torch.equal(tensors[name], loaded[name]) and tensors[name].dtype == loaded[name].dtype for name in tensors
    )


def test_a_restored_detector_is_base_and_checkpoint(trained: Run) -> None:
    """What trained comes from the checkpoint, all else from the base, and nothing is in training mode."""
    detector, info = restore(trained.checkpoint)
    kept, _ = read_checkpoint(trained.checkpoint)
    base = build_detector("yolox_nano", weights="none", image_size=info.image_size, seed=info.seed).network.state_dict()
    for name, tensor in detector.network.state_dict().items():
        assert torch.equal(kept.get(name, base[name]), tensor), name
    assert not any(module.training for module in detector.modules())


@pytest.mark.slow
def test_classes_that_the_base_has_already_come_back(tmp_path: Path) -> None:
    """Policy none on exactly the base's classes changes no tensor; the checkpoint still holds the predictor."""
    base = build_detector("yolox_nano", weights="none", image_size=SIDE)
    base.replace_classes(["square", "disc"], [(), ()])
    names = ["class 0", "class 1"]
    weights, data = tmp_path / "two.pth", tmp_path / "data"
    torch.save(base.network.state_dict(), weights)
    document = draw_shapes(data / "train", 2, seed=1)
    document["categories"] = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    write_document(data / "train", document)
    run = fine_tune(
        tmp_path / "run", config_of(data, weights=str(weights), policy="none", budget=None, cross_validate=0)
    )
    detector, _ = restore(run.checkpoint)
    whole = build_detector("yolox_nano", weights=weights, image_size=SIDE)
    assert state_fingerprint(whole.network) == state_fingerprint(detector.network)


def test_a_run_finds_its_base_where_it_is_now(
    shapes: Path, base_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A moved weights file is an error that names it; with --weights the same mAP as before comes out."""
    monkeypatch.chdir(tmp_path)
    before, after = tmp_path / "before.pth", tmp_path / "after.pth"
    shutil.copy(base_weights, before)
    made = json.loads(
        fsod(*argv_of(shapes, weights=before, name="moved", iterations=1), "--no-report", "--json").stdout
    )
    before.rename(after)
    lost = fsod("eval", "runs/moved")
    assert 5 == lost.exit_code and f"are not at {before} any more" in lost.stderr
    found = fsod("eval", "runs/moved", "--weights", after, "--json")
    assert made["metrics"]["numbers"] == json.loads(found.stdout)["numbers"]


def test_reading_says_what_went_wrong_to_programs_too(tmp_path: Path) -> None:
    """The library raises CheckpointError, a ModelError with exit code 5, never safetensors' own error."""
    (tmp_path / "x.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(tmp_path / "x.safetensors")
    assert 5 == caught.value.exit_code and caught.value.hint
