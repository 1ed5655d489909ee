"""Statistics of batch norms that train: those of the batches in trained layers alone, and in training steps alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_runs import SIDE, Listening, config_of, fine_tune, fsod
from safetensors.torch import load_file
from torch import Tensor, nn

from fewshot_cli.datasets.store import open_dataset
from fewshot_cli.detectors.chain import Activations, Detector, Target
from fewshot_cli.detectors.registry import build_detector
from fewshot_cli.detectors.weights import tensor_fingerprints
from fewshot_cli.errors import CheckpointError, ConfigError
from fewshot_cli.policies import Selection
from fewshot_cli.runs.checkpoint import read_checkpoint, restore, save_checkpoint
from fewshot_cli.runs.folder import Run
from fewshot_cli.training.averaging import Averaging
from fewshot_cli.training.objectives import DetectorLosses, Estimating
from fewshot_cli.training.plan import FrozenCheck, estimating, freeze, trained_norms, trained_tensors
from fewshot_cli.training.prepare import FEW_IMAGES, announce, prepare

LAYERS = ("backbone.dark5", "head.1", "head.4")
"""One of the backbone, one of the head with the frozen `head.2` behind it, and the predictor, without norms."""
CHOSEN = Selection(layers=frozenset(LAYERS), policy="custom", budget=None)
TRAIN: dict[str, Any] = {"norm_statistics": "train", "policy": "custom", "budget": None, "layers": LAYERS}
TARGET = Target(torch.tensor([[5.0, 5.0, 40.0, 50.0]]), torch.tensor([0]))


@pytest.fixture
def detector() -> Detector:
    made = build_detector("yolox_nano", weights="none", image_size=SIDE)
    freeze(made, CHOSEN, "train")
    return made


def pixels(count: int = 2) -> Activations:
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8), torch.full((count, 2), SIDE)


def statistics(detector: Detector) -> dict[str, Tensor]:
    buffers = dict(detector.network.named_buffers())
    return {name: value.clone() for name, value in buffers.items() if name.endswith(("running_mean", "running_var"))}


def trains(name: str, detector: Detector) -> bool:
    """Whether a tensor is in one of LAYERS."""
    modules = [module for layer in detector.layers if layer.name in LAYERS for module, _ in layer.modules]
    return any(name.startswith(f"{module}.") for module in modules)


def test_statistics_of_trained_layers_follow_the_batch_and_no_others(detector: Detector) -> None:
    """Those of frozen layers, before and behind the ones that train, keep every bit; the proof leaves them in."""
    proof, before = FrozenCheck(detector), statistics(detector)
    Estimating(DetectorLosses(detector, 0), detector).losses(pixels(), [TARGET, TARGET])
    after = statistics(detector)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if trains(name, detector)} != set()
    assert [] == proof.changed(detector)
    everything = len(dict(detector.network.named_parameters())) + len(dict(detector.network.named_buffers()))
    assert everything - len(trained_tensors(detector)) == len(proof)


def test_they_are_the_mean_and_the_variance_of_the_batch(detector: Detector) -> None:
    """For the first norm of `backbone.dark5`, by hand: s ← (1 − momentum)·s + momentum·batch, variance unbiased."""
    first = next(name for name in trained_norms(detector) if "dark5" in name)
    norm = detector.network.get_submodule(first)
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
    mean, variance, seen = norm.running_mean.clone(), norm.running_var.clone(), []
    handle = norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    with estimating(detector):
        output = detector.run(pixels(4), 0)[0]
    handle.remove()
    values = seen[0].transpose(0, 1).flatten(1)
    share = norm.momentum or 0.0
    torch.testing.assert_close(norm.running_mean, (1 - share) * mean + share * values.mean(dim=1))
    torch.testing.assert_close(norm.running_var, (1 - share) * variance + share * values.var(dim=1))
    assert output.requires_grad


@torch.no_grad()
def test_what_detects_is_never_the_batchs(detector: Detector) -> None:
    """In a step the features of an image depend on its neighbours; outside, and after an error, they do not."""
    batch = pixels(2)
    neck = [layer.name for layer in detector.layers].index("neck")

    def difference() -> float:
        """Of an image's features with and without the other one, as a share of their size."""
        together, alone = (detector.run(tuple(part[:count] for part in batch), 0, neck)[-1][0] for count in (2, 1))
        return float((together - alone).norm() / alone.norm())

    with pytest.raises(RuntimeError, match="in the middle"), estimating(detector):
        assert difference() > 0.1
        raise RuntimeError("in the middle")
    assert not any(module.training for module in detector.modules())
    assert difference() < 1e-4


def test_held_statistics_are_in_no_batch() -> None:
    """By default, a step with every layer trained is one in eval."""
    detector = build_detector("yolox_nano", weights="none", image_size=SIDE)
    freeze(detector, Selection(layers=frozenset(layer.name for layer in detector.layers), policy="custom", budget=None))
    before = tensor_fingerprints(detector.network)
    Estimating(DetectorLosses(detector, 0), detector).losses(pixels(), [TARGET, TARGET])
    assert before == tensor_fingerprints(detector.network) and {} == trained_norms(detector)


# --- Runs ---


@pytest.fixture(scope="module")
def run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fine_tune(tmp_path_factory.mktemp("runs") / "estimated", config_of(shapes, **TRAIN))


def test_a_run_gives_its_statistics_back(run: Run) -> None:
    """The checkpoint holds those of trained layers, moved, and what is restored detects as the run did."""
    detector, info = restore(run.checkpoint)
    base = build_detector("yolox_nano", weights="none", image_size=SIDE).network.state_dict()
    tensors, state = load_file(run.checkpoint), detector.network.state_dict()
    kept = {name for name in tensors if name.endswith(("running_mean", "running_var"))}
    assert kept == {name for name in statistics(detector) if trains(name, detector)}
    assert all(torch.equal(tensors[name], state[name]) and not torch.equal(base[name], state[name]) for name in kept)
    assert "train" == info.norm_statistics == run.result["norm_statistics"] and 0 == run.result["frozen"]["changed"]
    measured = fsod("eval", run.folder, "--json")
    assert 0 == measured.exit_code and f'"AP": {run.result["ap"]}' in measured.stdout


def test_a_checkpoint_without_them_is_refused(run: Run, tmp_path: Path) -> None:
    """Statistics of the base would go with other weights."""
    tensors, info = read_checkpoint(run.checkpoint)
    lost = next(name for name in tensors if name.endswith("running_var"))
    save_checkpoint(tmp_path / "checkpoint.safetensors", {n: t for n, t in tensors.items() if n != lost}, info)
    with pytest.raises(CheckpointError, match=f"1 tensors are missing, first {lost}"):
        restore(tmp_path / "checkpoint.safetensors")


def test_cached_and_uncached_features_train_the_same(run: Run, shapes: Path, tmp_path: Path) -> None:
    """The frozen prefix does not know the batch, so computing it again in every step gives the same bits."""
    config = config_of(shapes, **TRAIN, cache_memory=0, cache_disk=0)
    again = fine_tune(tmp_path / "uncached", config)
    first, second = load_file(run.checkpoint), load_file(again.checkpoint)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_they_are_averaged_with_those_before(shapes: Path) -> None:
    """At α = 0.25 a quarter of the way, at 0 those before training; counts of batches stay numbers of batches."""
    prepared = prepare(config_of(shapes, **TRAIN), open_dataset(shapes), Listening())
    averaging, before = Averaging(prepared.detector), statistics(prepared.detector)
    with torch.no_grad():
        for tensor in trained_tensors(prepared.detector).values():
            tensor += 1
    with averaging.applied(0.25):
        for name, value in statistics(prepared.detector).items():
            torch.testing.assert_close(value, before[name] + 0.25 * trains(name, prepared.detector))
    with averaging.applied(0.0):
        found = statistics(prepared.detector)
        assert all(torch.equal(before[name], value) for name, value in found.items())
    counts = [value for name, value in trained_tensors(prepared.detector).items() if name.endswith("tracked")]
    assert counts and all(1 == count for count in counts)


@pytest.mark.parametrize(
    ("options", "warning"),
    [
        (TRAIN, f"with 4 training images: fewer than {FEW_IMAGES} give poor statistics"),
        ({**TRAIN, "layers": ("head.4",)}, "changes nothing: no layer that trains has a batch norm"),
        ({"norm_statistics": "train", "policy": "none", "budget": None}, None),
        ({}, None),
    ],
)
def test_a_warning_says_where_they_serve_nothing(options: dict[str, Any], warning: str | None, shapes: Path) -> None:
    """Few images, or no batch norm in what trains; a baseline that trains nothing is no mistake."""
    config, data, heard = config_of(shapes, **options), open_dataset(shapes), Listening()
    prepared = prepare(config, data, heard)
    announce(prepared, config, data, heard)
    said = [text for text in heard.warned if "--norm-statistics" in text]
    assert (warning is not None) == bool(said) and all(str(warning) in text for text in said)
    assert ("train" if options == TRAIN else "hold") == prepared.info.norm_statistics


def test_one_image_is_no_sample(shapes: Path) -> None:
    """A batch of one is refused where the statistics would be its own."""
    with pytest.raises(ConfigError, match="--norm-statistics train with --batch-size 1"):
        config_of(shapes, **TRAIN, batch_size=1)
    assert 1 == config_of(shapes, batch_size=1).batch_size
