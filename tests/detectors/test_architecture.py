"""Detectors whose neck and head are built in another size: the chain, the weights they take, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from helpers_runs import SIDE, Listening, argv_of, config_of, fine_tune, fsod
from helpers_torchvision import norms_of_noise
from torch import Tensor, nn

from fewshot_cli.bounds import HEAD_CHANNELS, HEAD_DEPTH
from fewshot_cli.detectors.architecture import OWN, Architecture
from fewshot_cli.detectors.canvas import batch_of
from fewshot_cli.detectors.chain import Activations, Detector, Target
from fewshot_cli.detectors.exported import describe, read_info, to_bytes
from fewshot_cli.detectors.registry import DETECTORS, build_detector, depth_in, select_in
from fewshot_cli.detectors.weights import state_fingerprint, tensor_fingerprints
from fewshot_cli.errors import CheckpointError, ConfigError, FsodError, ModelError, PolicyError
from fewshot_cli.policies import select
from fewshot_cli.runs.checkpoint import restore
from fewshot_cli.runs.trainable import with_architecture
from fewshot_cli.training.outline import outline, spend
from fewshot_cli.training.plan import freeze
from fewshot_cli.verbs.export import export
from fewshot_cli.verbs.finetune import configure, run_at

MOBILE, RESNET, V2, SSD = (
    "retinanet_mobilenet_v2_fpn",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "ssd_mobilenet_v2_fpnlite",
)
SMALL, STRONG = Architecture(3, 64, "fpn"), Architecture(7, 96, "bifpn")
SLIM = Architecture(head_depth=2, head_channels=32, neck="bifpn")
CASES = [
    (MOBILE, SMALL),
    (MOBILE, STRONG),
    (MOBILE, Architecture(neck="bifpn")),
    (SSD, Architecture(3, 64)),
    (SSD, Architecture(7)),
]
ABLE = [name for name, spec in DETECTORS.items() if spec.sizes]


@lru_cache
def built(name: str, architecture: Architecture) -> Detector:
    """One of each, which tests read and do not change."""
    return norms_of_noise(build_detector(name, weights="none", image_size=SIDE, architecture=architecture))


def noise(detector: Detector, *sizes: tuple[int, int]) -> Activations:
    generator = torch.Generator().manual_seed(1)
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]
    return batch_of([detector.make_canvas(image) for image in images])


def equal(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# --- The chain ---


@pytest.mark.parametrize(("name", "architecture"), CASES)
def test_the_head_has_the_layers_and_channels_that_were_chosen(name: str, architecture: Architecture) -> None:
    """M layers, each with convolutions of both towers; every parameter in one layer; the neck's maps as wide."""
    detector, own = built(name, architecture), built(name, OWN)
    depth = architecture.head_depth or own.head_depth
    assert (depth, architecture) == (detector.head_depth, detector.architecture)
    heads = [layer.name for layer in detector.layers if layer.part == "head"]
    assert [f"head.{number}" for number in range(1, depth + 1)] == heads
    names = [parameter for layer in detector.layers for parameter in layer.parameters()]
    assert sorted(names) == sorted(parameter for parameter, _ in detector.network.named_parameters())
    if architecture.head_channels:
        inputs = {
            module.in_channels
            for layer in detector.layers
            if layer.part == "head"
            for _, part in layer.modules
            for module in part.modules()
            if isinstance(module, nn.Conv2d)
        }
        assert {architecture.head_channels} == inputs


@torch.no_grad()
@pytest.mark.parametrize(("name", "architecture"), CASES)
def test_outputs_have_the_shapes_of_the_detectors_own(name: str, architecture: Architecture) -> None:
    """As many levels of the same sizes: anchors, losses and detections need to know nothing of it."""
    detector, own = built(name, architecture), built(name, OWN)
    pixels = noise(own, (SIDE, SIDE), (40, 64))
    found, wanted = detector.run(pixels, 0), own.run(pixels, 0)
    assert [output.shape for output in wanted] == [output.shape for output in found]
    assert all(bool(torch.isfinite(output).all()) for output in found)


@torch.no_grad()
@pytest.mark.parametrize(("name", "architecture"), CASES)
def test_a_cut_before_any_layer_changes_nothing(name: str, architecture: Architecture) -> None:
    """Stored activations, gone on from, give the outputs of an uncut run bit for bit, and are not written to."""
    detector = built(name, architecture)
    stored = noise(detector, (SIDE, SIDE), (30, 17))
    whole = detector.run(stored, 0)
    for cut in range(1, len(detector.layers) + 1):
        stored = detector.run(stored, cut - 1, cut)
        kept = [part.clone() for part in stored]
        assert equal(whole, detector.run(stored, cut)), detector.layers[cut - 1].name
        assert equal(kept, stored), detector.layers[cut - 1].name


@pytest.mark.parametrize("architecture", [SMALL, STRONG])
def test_all_of_the_neck_and_the_head_learns(architecture: Architecture) -> None:
    """With `all` and the neck, every parameter of both gets a gradient, and none of the backbone's does."""
    detector = build_detector(MOBILE, weights="none", image_size=SIDE, architecture=architecture)
    freeze(detector, select_in(MOBILE, "all", None, neck=True, architecture=architecture))
    target = Target(torch.tensor([[5.0, 5.0, 50.0, 60.0]]), torch.tensor([2]))
    losses = detector.losses(noise(detector, (SIDE, SIDE)), 0, [target])
    torch.stack(list(losses.values())).sum().backward()
    reached = {name for name, each in detector.network.named_parameters() if each.grad is not None}
    wanted = {name for layer in detector.layers if layer.part != "backbone" for name in layer.parameters()}
    assert wanted == reached


def test_convolutions_are_in_the_order_in_which_the_input_meets_them() -> None:
    """By hooks on a forward pass: the backbone, the neck's laterals, its ways down and up, then the head."""
    detector = built(MOBILE, SLIM)
    modules = dict(detector.network.named_modules())
    met: list[str] = []
    neck = [name for name in detector.convolutions() if name.startswith("backbone.fpn.repeats")]
    handles = [modules[name].register_forward_hook(lambda *_, name=name: met.append(name)) for name in neck]
    with torch.no_grad():
        detector.run(noise(detector, (SIDE, SIDE)), 0)
    for handle in handles:
        handle.remove()
    assert neck == met and 3 * 8 * 2 == len(neck)


def test_more_capacity_is_more_parameters() -> None:
    """The levels that a study compares are ordered."""
    levels = [Architecture(3, 64, "fpn"), Architecture(5, 128, "fpn"), Architecture(5, 256, "bifpn")]
    counts = [sum(p.numel() for p in outline(MOBILE, 20, level).network.parameters()) for level in levels]
    assert sorted(counts) == counts and counts[0] < counts[-1] / 2


def test_the_resnets_take_the_same_sizes() -> None:
    """Without memory for weights; v2 keeps its group norms and loss, v1 has none."""
    for name in (RESNET, V2):
        for architecture in (SMALL, STRONG):
            detector = outline(name, 3, architecture)
            head = detector.network.head
            norms = sum(isinstance(module, nn.GroupNorm) for module in head.modules())
            assert (2 * (detector.head_depth - 1) if name == V2 else 0) == norms
            assert ("giou" if name == V2 else "l1") == head.regression_head._loss_type
            assert architecture.head_depth == detector.head_depth


def test_the_own_size_chosen_has_the_own_tensors() -> None:
    """Names and shapes of the detector's own depth and channels, chosen, are those of the detector."""
    for name, channels in ((MOBILE, 256), (RESNET, 256), (V2, 256), (SSD, 128)):
        own, chosen = outline(name, 2), outline(name, 2, Architecture(5, channels))
        shapes = [{key: value.shape for key, value in each.network.state_dict().items()} for each in (own, chosen)]
        assert shapes[0] == shapes[1], name


def test_a_seed_gives_the_same_weights_again() -> None:
    """A frozen random neck is rebuilt from the seed of the checkpoint."""
    first, again, other = (
        state_fingerprint(build_detector(MOBILE, weights="none", seed=seed, architecture=SLIM).network)
        for seed in (1, 1, 2)
    )
    assert first == again != other


# --- Weights ---


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MobileNetV2 classifier's file, without its last layer."""
    from torchvision.models import mobilenet_v2

    path = tmp_path_factory.mktemp("weights") / "classifier.pth"
    torch.save({k: v for k, v in mobilenet_v2().state_dict().items() if k.startswith("features.")}, path)
    return path


@pytest.mark.parametrize(("name", "architecture"), [(MOBILE, SLIM), (SSD, Architecture(3, 32))])
def test_a_classifiers_file_fills_the_backbone(name: str, architecture: Architecture, classifier: Path) -> None:
    """Whatever is built on it; with the neck and head that were chosen."""
    detector = build_detector(name, weights=classifier, image_size=SIDE, architecture=architecture)
    state = torch.load(classifier)["features.17.conv.0.0.weight"]
    assert any(torch.equal(state, tensor) for tensor in detector.network.state_dict().values())
    assert architecture.head_depth == detector.head_depth and not detector.pretrained


def test_weights_of_the_whole_detector_have_a_size_of_their_own(tmp_path: Path) -> None:
    """By default where COCO's are published, and in a file; the error says which weights leave the choice."""
    for name in (MOBILE, SSD):
        torch.save(built(name, OWN).network.state_dict(), tmp_path / f"{name}.pth")
        with pytest.raises(ConfigError, match=f"--head-depth with .*{name}.pth: weights of the whole") as caught:
            build_detector(name, weights=tmp_path / f"{name}.pth", architecture=Architecture(head_depth=3))
        assert "imagenet, none, or a classifier's file" in str(caught.value.hint)
    for name in (RESNET, SSD):
        with pytest.raises(ConfigError, match="--head-channels with --weights default: weights of the whole"):
            build_detector(name, architecture=Architecture(head_channels=64))


@pytest.mark.parametrize("name", [name for name in DETECTORS if not DETECTORS[name].sizes])
def test_other_detectors_name_those_that_can(name: str) -> None:
    """A ModelError, without building anything."""
    with pytest.raises(ModelError, match=f"--head-depth, --neck cannot be chosen for {name}") as caught:
        build_detector(name, weights="none", architecture=Architecture(head_depth=3, neck="bifpn"))
    hint = str(caught.value.hint)
    assert MOBILE in hint and RESNET in hint and SSD not in hint


def test_the_ssd_has_one_neck() -> None:
    """Its depth and channels can be chosen, its neck cannot."""
    with pytest.raises(ModelError, match=f"--neck cannot be chosen for {SSD}"):
        build_detector(SSD, weights="none", architecture=Architecture(head_depth=3, neck="bifpn"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"head_depth": HEAD_DEPTH.least - 1},
        {"head_depth": HEAD_DEPTH.most + 1},
        {"head_channels": HEAD_CHANNELS.most + 32},
        {"head_channels": 48},
    ],
)
def test_an_impossible_size_is_an_error(wrong: dict[str, int], shapes: Path) -> None:
    """For the library, and on the command line with its exit code."""
    (name, value), *_ = wrong.items()
    with pytest.raises(ConfigError, match=f"{name} is {value}"):
        build_detector(MOBILE, weights="none", architecture=Architecture(**wrong))  # type: ignore[arg-type]
    result = fsod(*argv_of(shapes, detector=MOBILE, **wrong))
    assert 4 == result.exit_code and name in result.stderr, result.stderr


# --- Exported files ---


def test_an_exported_file_brings_its_size(tmp_path: Path) -> None:
    """It is built again bit for bit; the same size may be named, another one is refused."""
    detector, path = built(MOBILE, SLIM), tmp_path / "exported.safetensors"
    path.write_bytes(to_bytes(detector, describe(detector, {})))
    info = read_info(path)
    assert info is not None and SLIM == info.architecture
    for given in (OWN, SLIM):
        again = build_detector(MOBILE, weights=path, architecture=given)
        assert tensor_fingerprints(detector.network) == tensor_fingerprints(again.network)
        assert (SLIM, True) == (again.architecture, again.pretrained)
    for other in (replace(SLIM, head_depth=3), Architecture(head_depth=2)):
        with pytest.raises(ConfigError, match="weights of the whole detector bring its neck and head"):
            build_detector(MOBILE, weights=path, architecture=other)


def test_a_file_from_before_there_was_a_choice_has_the_own_size(tmp_path: Path) -> None:
    """Its description says nothing of the architecture."""
    from fewshot_cli.detectors import tensor_file
    from fewshot_cli.detectors.tensor_file import EXPORTED

    detector, path = built(MOBILE, OWN), tmp_path / "old.safetensors"
    said = asdict(describe(detector, {}))
    del said["architecture"]
    path.write_bytes(tensor_file.to_bytes(detector.network.state_dict(), EXPORTED, said))
    assert OWN == build_detector(MOBILE, weights=path).architecture


@pytest.mark.parametrize("damaged", [{"head_depth": 99}, {"head_channels": 33}, {"neck": "pan"}])
def test_a_file_with_an_impossible_size_is_damaged(damaged: dict[str, object], tmp_path: Path) -> None:
    """A CheckpointError that names the field."""
    from fewshot_cli.detectors import tensor_file
    from fewshot_cli.detectors.tensor_file import EXPORTED

    detector, path = built(MOBILE, SLIM), tmp_path / "damaged.safetensors"
    said = asdict(describe(detector, {}))
    said["architecture"] |= damaged
    path.write_bytes(tensor_file.to_bytes(detector.network.state_dict(), EXPORTED, said))
    with pytest.raises(CheckpointError, match=f"architecture.{next(iter(damaged))}"):
        read_info(path)


# --- Runs ---

CHOSEN = {"detector": MOBILE, **asdict(SLIM), "budget": 2, "iterations": 2, "eval_every": 0, "precision": "fp32"}


@pytest.fixture(scope="module")
def run(shapes: Path, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """A finished run of a slim detector, neck trained too."""
    return fine_tune(tmp_path_factory.mktemp("runs") / "slim", config_of(shapes, **CHOSEN, train_neck=True))


def test_a_run_gives_its_detector_back(run) -> None:  # type: ignore[no-untyped-def]
    """Restored, shown, and recorded with the size it was built in."""
    detector, info = restore(run.checkpoint)
    assert SLIM == detector.architecture == info.architecture
    assert asdict(SLIM) == run.result["architecture"]
    shown = json.loads(fsod("inspect-layers", run.folder, "--json").stdout)
    assert (asdict(SLIM), 2) == (shown["architecture"], shown["head_depth"])
    assert run.result["parameters"]["total"] == shown["parameters"]
    assert "Built: head depth 2, head channels 32, neck bifpn." in fsod("inspect-layers", run.folder).stdout
    fixed = fsod("inspect-layers", run.folder, "--head-depth", 3)
    assert 2 == fixed.exit_code and "its size is fixed" in fixed.stderr


def test_its_weights_file_is_where_the_next_run_starts(run, shapes: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """The size follows from the file, and so do the budgets that are possible."""
    path = export(run, tmp_path / "slim.safetensors", format="weights", threads=1).path
    assert SLIM == build_detector(MOBILE, weights=path).architecture
    again = configure(shapes, None, {"weights": str(path), "policy": "last", "budget": 1}, Listening())
    assert SLIM == again.architecture == with_architecture(config_of(shapes, weights=str(path))).architecture
    with pytest.raises(PolicyError, match="this head has M = 2 layers"):
        configure(shapes, None, {"weights": str(path), "policy": "last", "budget": 3}, Listening())


def test_the_chain_can_be_looked_at_before() -> None:
    """`inspect-layers` promises what a run has."""
    options = ("--head-depth", 3, "--head-channels", 64, "--neck", "bifpn", "--policy", "all", "--train-neck")
    shown = json.loads(fsod("inspect-layers", MOBILE, *options, "--json").stdout)
    assert {"head_depth": 3, "head_channels": 64, "neck": "bifpn"} == shown["architecture"]
    assert (3, "neck") == (shown["head_depth"], shown["cut"])
    assert None is json.loads(fsod("inspect-layers", MOBILE, "--json").stdout)["architecture"]


def test_a_run_says_what_is_built(shapes: Path, tmp_path: Path) -> None:
    """Before it takes time; from the command line to the result."""
    done = fsod(*argv_of(shapes, **CHOSEN), "--runs", tmp_path, "--no-report", "--json")
    assert 0 == done.exit_code, done.stderr
    assert "Built: head depth 2, head channels 32, neck bifpn." in done.stderr
    assert asdict(SLIM) == json.loads(done.stdout)["architecture"]


@pytest.mark.parametrize("depth", range(HEAD_DEPTH.least, HEAD_DEPTH.most + 1))
def test_budgets_are_those_of_the_head_that_is_built(depth: int, shapes: Path) -> None:
    """`last` goes to M and no further; the default budget is at most M; parameters are counted on what is built."""
    architecture = Architecture(head_depth=depth, head_channels=32)
    assert depth == depth_in(MOBILE, architecture) == outline(MOBILE, 1, architecture).head_depth
    assert (
        select("all", None, depth, stages=5).head_layers
        == select_in(MOBILE, "last", depth, architecture=architecture).head_layers
    )
    with pytest.raises(PolicyError, match=f"M = {depth} layers"):
        select_in(MOBILE, "last", depth + 1, architecture=architecture)
    options = {"policy": "symmetric", "weights": "none", "head_depth": depth, "head_channels": 32}
    config = configure(shapes, MOBILE, options, Listening())
    assert min(3, depth) == config.budget
    assert depth == spend(MOBILE, "last", "100%", 1, architecture).layers


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"detector": "yolox_nano", "head_depth": 3}, ModelError, "--head-depth cannot be chosen for yolox_nano"),
        ({"detector": RESNET, "neck": "bifpn"}, ConfigError, "--neck with --weights default"),
        ({"detector": MOBILE, "neck": "bifpn", "head_depth": 3, "budget": 4, "policy": "last"}, PolicyError, "M = 3"),
        ({"detector": MOBILE, "head_depth": 3, "layers": "head.4"}, PolicyError, "no layer 'head.4'"),
    ],
)
def test_what_cannot_be_built_is_said_before_anything_is_loaded(
    options: dict[str, object], error: type[FsodError], text: str, shapes: Path
) -> None:
    with pytest.raises(error, match=text):
        configure(shapes, str(options.pop("detector")), dict(options), Listening())


@pytest.mark.slow
def test_the_file_of_a_sweep_cell_goes_on_with_its_size(shapes: Path, run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """`run_at`, which sweeps call, finds the size in the weights too."""
    path = export(run, tmp_path / "slim.safetensors", format="weights", threads=1).path
    config = config_of(shapes, detector=MOBILE, weights=str(path), budget=2, iterations=1, precision="fp32")
    assert asdict(SLIM) == run_at(tmp_path / "cell", config).result["architecture"]


@pytest.mark.slow
@pytest.mark.parametrize("neck", ["fpn", "bifpn"])
def test_it_is_exported_as_onnx(neck: str) -> None:
    """Candidates of the file differ from PyTorch's by rounding alone."""
    from fewshot_cli.inference.onnx_check import check
    from fewshot_cli.inference.onnx_graph import build_graph

    detector = build_detector(
        MOBILE,
        weights="none",
        image_size=SIDE,
        architecture=Architecture(3, 32, neck),  # type: ignore[arg-type]
    )
    detector.replace_classes(["a", "b"], [()] * 2)
    canvases = [detector.make_canvas(torch.randint(0, 256, (3, 50, SIDE), dtype=torch.uint8)) for _ in range(3)]
    agreement = check(detector, build_graph(detector, {}, nms=True, opset=17), canvases, nms=True)
    assert agreement.boxes > 0 and agreement.box < 0.01 and agreement.score < 1e-4
