"""Keeping the base classes: their detections are the pretrained detector's, bit for bit, and the new ones the run's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import stub_queries
import stub_two_stage
import torch
from helpers_runs import SIDE, argv_of, config_of, draw_shapes, fine_tune, fsod
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from fewshot_cli.detectors.canvas import batch_of
from fewshot_cli.detectors.chain import Detections, Detector
from fewshot_cli.detectors.registry import DETECTORS, build_detector
from fewshot_cli.detectors.two_heads import TwoHeads, copy_beside, kept_classes, second_head
from fewshot_cli.detectors.weights import state_fingerprint, tensor_fingerprints
from fewshot_cli.errors import ModelError
from fewshot_cli.inference.placed import PlacedDetector
from fewshot_cli.policies import select
from fewshot_cli.runs.checkpoint import read_checkpoint, restore, save_checkpoint
from fewshot_cli.runs.folder import Run
from fewshot_cli.training.plan import plan_chain, planned_parameters

STUBS = (stub_two_stage, stub_queries)
NAMES = ("yolox_nano", "retinanet_mini", "ssd_mobilenet_v2_fpnlite", *(stub.SPEC.name for stub in STUBS))
FASTER = "fasterrcnn_mobilenet_v3_large_fpn"
SETUPS = (("none", None), ("last", 1), ("symmetric", 2), ("all", None), ("full", None))


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stubs, by their names."""
    for stub in STUBS:
        monkeypatch.setitem(DETECTORS, stub.SPEC.name, stub.SPEC)


def base_of(name: str) -> Detector:
    """Pretrained where the weights ship with the package; otherwise random."""
    base = build_detector(name, weights="default" if name == "retinanet_mini" else "none", image_size=SIDE)
    if name == FASTER:  # the holes in COCO's numbering, which are classes there, are never kept
        base.replace_classes(["a", "b", "c"], [()] * 3)
    detect_more(base)
    return base


@torch.no_grad()
def detect_more(detector: Detector) -> None:
    """Raise the scores of random weights, which start so low that most detectors detect nothing."""
    for name, parameter in detector.layers[-1].parameters().items():
        if name in {f"{predictor.name}.bias" for predictor in detector.predictors} or "obj_preds" in name:
            parameter.add_(2.0)


def changed_by(detector: Detector, policy: str, budget: int | None) -> list[str]:
    """Names of what a policy trains, all of it away from its old value."""
    selection = select(policy, budget, detector.head_depth, stages=detector.backbone_stages)
    return planned_parameters(detector, plan_chain(detector, selection))


@torch.no_grad()
def two_heads(base: Detector, policy: str, budget: int | None, classes: Sequence[str]) -> TwoHeads:
    """As after a fine-tune with this policy."""
    names = changed_by(base, policy, budget)
    adapted = copy_beside(base, names)
    adapted.replace_classes(classes, [(0,)] * len(classes))
    for name in names:
        parameter = adapted.network.get_parameter(name)
        parameter.add_(0.1 * parameter.std(correction=0) * torch.randn_like(parameter))
    return TwoHeads(base, adapted)


def noise(count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (3, SIDE - i, SIDE), dtype=torch.uint8, generator=generator) for i in range(count)]


def detect(detector: Detector, *, bf16: bool = False) -> list[Detections]:
    """In images of noise, as everything in the package detects."""
    placed = PlacedDetector.place(detector, "cpu", "bf16" if bf16 else "fp32")
    canvases = [detector.make_canvas(image) for image in noise()]
    return placed.resume(batch_of(canvases), 0, canvases)


def only(found: Detections, labels: Sequence[int], shift: int = 0) -> Detections:
    """The detections of some labels, which are then counted from `shift` on."""
    chosen = torch.isin(found.labels, torch.tensor(labels))
    return Detections(found.boxes[chosen], found.scores[chosen], found.labels[chosen] - shift)


def same(first: Detections, second: Detections) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("name", "policy", "budget"),
    [
        *((name, *setup) for name in NAMES for setup in SETUPS),
        (FASTER, "last", 1),
        pytest.param(FASTER, "symmetric", 2, marks=pytest.mark.slow),
    ],
)
def test_each_head_detects_what_it_detects_alone(name: str, policy: str, budget: int | None) -> None:
    """Base classes from the base, new ones from the adapted detector, each to the last bit, whatever is shared."""
    base = base_of(name)
    before = detect(deepcopy(base))
    both = two_heads(base, policy, budget, ["helmet"])
    alone = detect(deepcopy(both.adapted))
    kept = range(len(both.classes) - 1)
    found = detect(both)
    assert sum(len(image.labels) for image in before) and sum(len(image.labels) for image in alone)
    for image, of_base, of_adapted in zip(found, before, alone, strict=True):
        assert same(of_base, only(image, list(kept)))
        assert same(of_adapted, only(image, [len(kept)], shift=len(kept)))
        assert image.scores.tolist() == sorted(image.scores.tolist(), reverse=True)


@pytest.mark.parametrize("name", ["yolox_nano", "retinanet_mini"])
def test_also_in_bf16(name: str) -> None:
    """With convolutions in bf16, base detections are those of the base in bf16."""
    base = base_of(name)
    before = detect(deepcopy(base), bf16=True)
    found = detect(two_heads(base, "symmetric", 3, ["helmet"]), bf16=True)
    kept = list(range(len(base.classes)))
    assert all(same(of_base, only(image, kept)) for image, of_base in zip(found, before, strict=True))


def test_a_new_class_replaces_the_base_class_of_its_name() -> None:
    """`Coffee-Cup` takes the place of `coffee cup`: only the adapted head detects it; the others stay in order."""
    base = base_of("retinanet_mini")
    row = base.classes.index("coffee cup")
    before = detect(deepcopy(base))
    both = two_heads(base, "last", 1, ["Coffee-Cup", "gizmo"])
    assert (*base.classes[:row], *base.classes[row + 1 :], "Coffee-Cup", "gizmo") == both.classes
    assert any((image.labels == row).any() for image in before)
    others = [label for label in range(len(base.classes)) if label != row]
    for image, of_base, of_adapted in zip(detect(both), before, detect(both.adapted), strict=True):
        wanted = only(of_base, others)
        assert same(wanted._replace(labels=wanted.labels - (wanted.labels > row).long()), only(image, range(27)))
        assert same(of_adapted, only(image, [27, 28], shift=27))


@given(st.lists(st.sampled_from(["a b", "A-B", "c", "N/A", "__background__", "d"]), max_size=6), st.booleans())
def test_kept_classes_are_those_that_no_new_class_names(base: list[str], renamed: bool) -> None:
    """In order, without torchvision's entries that are no class."""
    new = ["A_b"] if renamed else ["e"]
    wanted = [name for name in base if name in ("c", "d") or (name in ("a b", "A-B") and not renamed)]
    assert wanted == [base[row] for row in kept_classes(base, new)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("policy", "budget"), SETUPS)
def test_what_no_fine_tune_changes_is_stored_once(name: str, policy: str, budget: int | None) -> None:
    """Together: the adapted detector and, of the base, the layers that changed; `second_head` says so beforehand."""
    base = base_of(name)
    cost = second_head(base, ["helmet"], changed_by(base, policy, budget))
    both = two_heads(base, policy, budget, ["helmet"])
    adapted = sum(parameter.numel() for parameter in both.adapted.parameters())
    assert adapted + cost.parameters == sum(parameter.numel() for parameter in both.network.parameters())
    assert cost.start == both.layers[both.cut].name
    assert cost.classes == both.classes[:-1]
    assert (1.0 == cost.operations) == (policy == "full") and 0 < cost.operations <= 1


@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_chain_like_any_other(name: str) -> None:
    """Each parameter is in one layer and one group; a run in parts is the run; a deep copy runs its own modules."""
    both = two_heads(base_of(name), "symmetric", 2, ["helmet"])
    every = sorted(name for name, _ in both.network.named_parameters())
    assert every == sorted(name for layer in both.layers for name in layer.parameters())
    assert every == sorted(name for group in both.parameter_groups() for name in group.parameters)
    twin = deepcopy(both)
    with torch.no_grad():
        pixels = batch_of([both.make_canvas(image) for image in noise()])
        whole = both.run(pixels, 0)
        for cut in range(len(both.layers) + 1):
            parts = both.run(both.run(pixels, 0, cut), cut)
            assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True)), cut
        for parameter in both.parameters():
            parameter.zero_()
        assert all(torch.equal(a, b) for a, b in zip(whole, twin.run(pixels, 0), strict=True))


def test_the_operations_are_those_of_the_convolutions() -> None:
    """last 1 of retinanet_mini at 64 pixels: the 3×3 predictors of 28 + 4 outputs and 9 anchors, against all others."""
    base = base_of("retinanet_mini")
    said = second_head(base, [], changed_by(base, "last", 1)).operations
    products: list[int] = []
    for name in base.convolutions():
        module = base.network.get_submodule(name)
        module.register_forward_hook(lambda m, _, y: products.append(y.numel() * m.weight[0].numel()))
    with torch.no_grad():
        base.run(batch_of([base.make_canvas(noise(1)[0])]), 0)
    cells = 8**2 + 4**2 + 2**2 + 1 + 1
    assert cells * 9 * (28 + 4) * 64 * 3 * 3 / sum(products) == pytest.approx(said, abs=1e-4)


def test_it_takes_no_other_classes() -> None:
    """It is made to detect: fine-tuning starts from the base."""
    with pytest.raises(ModelError, match="two heads takes no new classes"):
        two_heads(base_of("yolox_nano"), "last", 1, ["helmet"]).replace_classes(["fish"], [()])


# --- runs ---


@pytest.fixture
def kept(shapes: Path, base_weights: Path, tmp_path: Path) -> Run:
    """A run that keeps the base classes."""
    return fine_tune(tmp_path / "kept", config_of(shapes, weights=str(base_weights), keep_base_classes=True))


@pytest.fixture
def sure_weights(tmp_path: Path) -> Path:
    """A weights file of yolox_nano that detects something everywhere."""
    torch.save(base_of("yolox_nano").network.state_dict(), tmp_path / "sure.pth")
    return tmp_path / "sure.pth"


def base_data(folder: Path, *names: str) -> Path:
    """A test split like that of `shapes`, its two classes called otherwise."""
    document = draw_shapes(folder, 6, seed=2)
    document["categories"] = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    (folder / "annotations.json").write_text(json.dumps(document))
    return folder


def answer(*arguments: str | Path) -> dict[str, Any]:
    result = fsod(*arguments, "--json")
    assert 0 == result.exit_code, result.stderr
    return dict(json.loads(result.stdout))


def test_training_is_as_without_the_option(kept: Run, shapes: Path, base_weights: Path, tmp_path: Path) -> None:
    """Same measurements, same tensors in the checkpoint; only its description and the result say more."""
    plain = fine_tune(tmp_path / "plain", config_of(shapes, weights=str(base_weights)))
    assert plain.read_metrics() == kept.read_metrics()
    (tensors, info), (others, other) = read_checkpoint(plain.checkpoint), read_checkpoint(kept.checkpoint)
    assert replace(info, keep_base_classes=True) == other
    assert tensors.keys() == others.keys() and all(torch.equal(tensors[name], others[name]) for name in tensors)
    assert plain.read_result()["keep_base_classes"] is None
    said = kept.read_result()["keep_base_classes"]
    assert ("head.1", 80, True) == (said["start"], len(said["classes"]), 0 < said["operations"] < 1)


@pytest.mark.parametrize("policy", ["symmetric", pytest.param("full", marks=pytest.mark.slow)])
def test_a_checkpoint_comes_back_with_both_heads(policy: str, shapes: Path, base_weights: Path, tmp_path: Path) -> None:
    """The base is the weights file's to the last bit, the adapted head the plain checkpoint's; a flag decides."""
    options = {"policy": policy, "budget": 3 if policy == "symmetric" else None, "weights": str(base_weights)}
    run = fine_tune(tmp_path / "run", config_of(shapes, **options, keep_base_classes=True))
    both, info = restore(run.checkpoint)
    assert isinstance(both, TwoHeads) and info.keep_base_classes
    assert state_fingerprint(both.base.network) == info.base_fingerprint
    tensors, _ = read_checkpoint(run.checkpoint)
    save_checkpoint(run.checkpoint, tensors, replace(info, keep_base_classes=False))
    alone, _ = restore(run.checkpoint)
    assert tensor_fingerprints(alone.network) == tensor_fingerprints(both.adapted.network)
    assert (*both.base.classes, "square", "disc") == both.classes
    assert not any(module.training for module in both.modules())


def test_a_checkpoint_from_before_the_option_is_read(kept: Run) -> None:
    """Its description lacks the field: one head, as it was."""
    tensors, info = read_checkpoint(kept.checkpoint)
    said = {name: value for name, value in asdict(info).items() if name != "keep_base_classes"}
    save_file(tensors, kept.checkpoint, {"fsod": json.dumps(said)})
    assert not isinstance(restore(kept.checkpoint)[0], TwoHeads)


@pytest.mark.slow
def test_eval_measures_base_and_new_classes(
    shapes: Path, sure_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On data of base classes a run finds what the base does, bit for bit; on its own data what it reported."""
    monkeypatch.chdir(tmp_path)
    kept = fine_tune(tmp_path / "kept", config_of(shapes, weights=str(sure_weights), keep_base_classes=True))
    data = base_data(tmp_path / "cats", "cat", "dog")
    of_base = ["--detector", "yolox_nano", "--weights", sure_weights, "--image-size", SIDE]
    before, after = (
        answer("eval", *target, "--data", data, "--predictions", f"{name}.json")
        for name, target in {"before": of_base, "after": [kept.folder]}.items()
    )
    assert before["numbers"] == after["numbers"] and before["per_class"] == after["per_class"]
    found = json.loads(Path("before.json").read_text())
    assert found and found == json.loads(Path("after.json").read_text())
    assert kept.read_result()["metrics"]["numbers"] == answer("eval", kept.folder)["numbers"]


@pytest.mark.slow
def test_the_command_says_what_it_costs(
    shapes: Path, base_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """finetune, its table and its page, and inspect-layers: classes, parameters and computation."""
    monkeypatch.chdir(tmp_path)
    done = fsod(*argv_of(shapes, weights=base_weights, name="run", iterations=1), "--keep-base-classes")
    assert 0 == done.exit_code, done.stderr
    cost = Run(tmp_path / "runs" / "run").result["keep_base_classes"]
    assert "80 base classes are kept: from head.1 on" in done.stderr
    assert f"{cost['parameters']:,} parameters" in done.stderr
    assert "80 kept; from head.1 on" in " ".join(done.stdout.split())
    assert "80 kept; from head.1 on" in Path("runs/run/report.html").read_text("utf-8")
    report = answer("inspect-layers", "runs/run")
    assert cost == report["keep_base_classes"]
    assert ["head.1", "head.2", "head.3", "head.4"] == [row["name"] for row in report["layers"] if row["runs_twice"]]
    shown = fsod("inspect-layers", "yolox_nano", "--policy", "full", "--keep-base-classes").stdout
    assert "Base classes: 80 kept; from backbone.stem on both heads run" in shown and "100%" in shown


def test_random_weights_have_no_classes_to_keep(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--keep-base-classes with weights that detect nothing: exit 4, and nothing is left behind."""
    monkeypatch.chdir(tmp_path)
    result = fsod(*argv_of(shapes, weights="none"), "--keep-base-classes")
    assert 4 == result.exit_code
    assert "there are no base classes to keep" in result.stderr and "hint:" in result.stderr
    assert not (tmp_path / "runs").exists()
