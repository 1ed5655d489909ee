"""Criteria per layer: the numbers of one pass, held against gradients taken by hand, and their score for a policy."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers_data import write_document
from helpers_runs import TINY, config_of, draw_shapes
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from fewshot_cli.datasets.store import open_dataset
from fewshot_cli.detectors.canvas import batch_of
from fewshot_cli.detectors.chain import Activations, Target
from fewshot_cli.errors import ConfigError, DivergedError
from fewshot_cli.progress import SilentReporter
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.selection.criteria import CRITERIA, LayerCriteria, LayerGradients, rank
from fewshot_cli.selection.gradients import measure_layers
from fewshot_cli.training.features import Features, FeatureStore, cache_features
from fewshot_cli.training.objectives import DetectorLosses
from fewshot_cli.training.prepare import Prepared, prepare
from fewshot_cli.training.variants import Examples

WHOLE = {**TINY, "policy": "full", "budget": None}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of two shots: one shows a square, the other a disc too."""
    folder = tmp_path_factory.mktemp("data") / "two"
    draw_shapes(folder / "train", 2, seed=1)
    return folder


def ready(config: FinetuneConfig) -> tuple[Prepared, Features]:
    data, quiet = open_dataset(config.data_folder), SilentReporter()
    prepared = prepare(config, data, quiet)
    cached = cache_features(prepared, config, data, folder=Path("nowhere"), store=FeatureStore(), reporter=quiet)
    return prepared, cached


@pytest.fixture(scope="module")
def prepared(two: Path) -> tuple[Prepared, Features]:
    return ready(config_of(two, WHOLE))


@pytest.fixture(scope="module")
def found(prepared: tuple[Prepared, Features]) -> LayerCriteria:
    return measure_layers(*prepared)


def by_hand(config: FinetuneConfig, layer: str, batches: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """The gradient of one layer for each batch, (n, parameters), by a backward pass from the canvases."""
    data = open_dataset(config.data_folder)
    prepared = prepare(config, data, SilentReporter())
    detector = prepared.detector
    examples = Examples(detector, data.train.images, copies=config.copies, seed=config.seed)
    rows = []
    for items in batches:
        loaded = [examples.load(item) for item in items]
        canvases = batch_of([example.canvas._replace(pixels=pixels) for pixels, example in loaded])
        losses = detector.losses(canvases, 0, [example.target for _, example in loaded])
        detector.zero_grad()
        sum(losses.values()).backward()  # type: ignore[union-attr]
        parameters = next(each for each in detector.layers if each.name == layer).parameters().values()
        rows.append(torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None]))
    return torch.stack(rows).double().numpy()


def weights_of(prepared: Prepared, layer: str) -> NDArray[np.float64]:
    parameters = next(each for each in prepared.detector.layers if each.name == layer).parameters().values()
    return torch.cat([parameter.detach().flatten() for parameter in parameters]).double().numpy()


class Scaled:
    """The losses of another objective times a factor."""

    def __init__(self, prepared: Prepared, factor: float) -> None:
        self._inner, self._factor = DetectorLosses(prepared.detector, prepared.plan.cut), factor

    def losses(self, activations: Activations, targets: Sequence[Target]) -> dict[str, Tensor]:
        return {name: self._factor * value for name, value in self._inner.losses(activations, targets).items()}


# --- what is measured ---


@pytest.mark.parametrize("layer", ["backbone.dark3", "neck", "head.1", "head.4"])
def test_the_criteria_are_those_of_gradients_taken_by_hand(
    layer: str, prepared: tuple[Prepared, Features], found: LayerCriteria, two: Path
) -> None:
    """One backward pass per variant from the canvas on, and numpy in float64, give the same four numbers."""
    gradients = by_hand(config_of(two, WHOLE), layer, [[item] for item in range(4)])
    weights, mean = weights_of(prepared[0], layer), gradients.mean(axis=0)
    noise = np.square(gradients - mean).sum(axis=1).mean()
    assert found.values[layer] == pytest.approx(
        {
            "rgn": np.linalg.norm(mean) / np.linalg.norm(weights),
            "snr": (mean @ mean) / noise,
            "fisher": np.square(gradients).sum(axis=1).mean(),
            "fisher_mean": np.square(gradients).mean(),
        },
        rel=1e-3,
    )
    assert (4, weights.size) == (found.count, found.layers[layer].parameters)


def test_batches_hold_variants_of_different_shots(prepared: tuple[Prepared, Features], two: Path) -> None:
    """With a batch size of 2, copy 0 of both shots makes one gradient and copy 1 of both another."""
    found = measure_layers(*prepared, batch_size=2)
    gradients = by_hand(config_of(two, WHOLE), "head.2", [[0, 2], [1, 3]])
    assert np.square(gradients).sum(axis=1).mean() == pytest.approx(found.values["head.2"]["fisher"], rel=1e-3)
    assert 2 == found.count


def test_every_layer_that_trains_is_measured(prepared: tuple[Prepared, Features], two: Path) -> None:
    """Policy full: the whole chain in its order; all: the head alone, from features cached before it, same numbers."""
    whole, head = measure_layers(*prepared), measure_layers(*ready(config_of(two, {**WHOLE, "policy": "all"})))
    assert [layer.name for layer in prepared[0].detector.layers] == list(whole.values)
    assert ["head.1", "head.2", "head.3", "head.4"] == list(head.values)
    for name, values in head.values.items():
        assert whole.values[name] == pytest.approx(values, rel=1e-3)


def test_nothing_trains_and_nothing_is_left(two: Path) -> None:
    """Afterwards every tensor of the detector has its bits, and no parameter a gradient."""
    prepared, features = ready(config_of(two, WHOLE))
    before = {name: tensor.clone() for name, tensor in prepared.detector.state_dict().items()}
    measure_layers(prepared, features)
    assert all(torch.equal(before[name], tensor) for name, tensor in prepared.detector.state_dict().items())
    assert all(parameter.grad is None for parameter in prepared.detector.parameters())


def test_the_same_seed_gives_the_same_bits(found: LayerCriteria, two: Path) -> None:
    """Built and measured again: equal to the last bit; with another seed: other numbers."""
    assert found == measure_layers(*ready(config_of(two, WHOLE)))
    assert found != measure_layers(*ready(config_of(two, WHOLE, seed=1)))


def test_losses_that_draw_draw_the_same_again(prepared: tuple[Prepared, Features]) -> None:
    """Losses times a random number: the same bits twice, each batch its own number, and the caller's generator stays."""
    drawn: list[float] = []

    class Drawing(Scaled):
        def losses(self, activations: Activations, targets: Sequence[Target]) -> dict[str, Tensor]:
            drawn.append(self._factor * float(torch.rand(())))
            return {name: drawn[-1] * value for name, value in super().losses(activations, targets).items()}

    before = torch.get_rng_state()
    first, second = (measure_layers(*prepared, objective=Drawing(prepared[0], 1.0)) for _ in range(2))
    assert first == second and 4 == len(set(drawn)) and torch.equal(before, torch.get_rng_state())


def test_the_order_of_images_does_not_matter(two: Path, found: LayerCriteria, tmp_path: Path) -> None:
    """The same images listed the other way round: the same criteria, up to the rounding of sums."""
    document = json.loads((two / "train" / "annotations.json").read_text("utf-8"))
    folder = tmp_path / "reversed" / "train"
    folder.mkdir(parents=True)
    (folder / "images").symlink_to(two / "train" / "images")
    write_document(folder, {**document, "images": document["images"][::-1]})
    other = measure_layers(*ready(config_of(folder.parent, WHOLE)))
    for layer, values in found.values.items():
        assert values == pytest.approx(other.values[layer], rel=1e-4)


def test_retinanet_too(two: Path) -> None:
    """Another family, from features before its head: Fisher information by hand."""
    config = config_of(two, {**WHOLE, "policy": "all"}, detector="retinanet_mini", precision="fp32")
    found = measure_layers(*ready(config))
    gradients = by_hand(replace(config, policy="full"), "head.5", [[item] for item in range(4)])
    assert np.square(gradients).sum(axis=1).mean() == pytest.approx(found.values["head.5"]["fisher"], rel=1e-3)


@pytest.mark.parametrize("factor", [0.25, 3.0])
def test_losses_times_a_factor(factor: float, prepared: tuple[Prepared, Features], found: LayerCriteria) -> None:
    """The relative gradient norm grows with the factor, Fisher information with its square; SNR stays."""
    scaled = measure_layers(*prepared, objective=Scaled(prepared[0], factor))
    grows = {"rgn": factor, "snr": 1.0, "fisher": factor**2, "fisher_mean": factor**2}
    for layer, values in found.values.items():
        assert {name: grows[name] * value for name, value in values.items()} == pytest.approx(
            scaled.values[layer], rel=1e-3
        )


def test_a_gradient_that_is_not_finite_is_told(prepared: tuple[Prepared, Features]) -> None:
    """The error names the first layer of the chain that has one."""
    with pytest.raises(DivergedError, match=r"the gradient of backbone\.stem is not finite"):
        measure_layers(*prepared, objective=Scaled(prepared[0], math.inf))


def test_a_detector_that_trains_nothing_has_no_criteria(two: Path) -> None:
    """Policy none: no layer and no gradient."""
    assert LayerCriteria({}, 0) == measure_layers(*ready(config_of(two, {**WHOLE, "policy": "none"})))


# --- criteria as functions ---

POSITIVE = st.floats(1e-3, 1e3)
LAYER = st.builds(
    LayerGradients, signal=POSITIVE, noise=POSITIVE, weights=POSITIVE, parameters=st.integers(1, 1_000_000)
)


@given(LAYER, POSITIVE)
def test_a_factor_on_the_gradients(layer: LayerGradients, factor: float) -> None:
    """Gradients times c: rgn times c, snr as it is, Fisher information times c²."""
    scaled = replace(layer, signal=layer.signal * factor**2, noise=layer.noise * factor**2)
    for name, power in {"rgn": 1, "snr": 0, "fisher": 2, "fisher_mean": 2}.items():
        assert CRITERIA[name].of(layer) * factor**power == pytest.approx(CRITERIA[name].of(scaled))


def layer_of(**values: Any) -> LayerGradients:
    return LayerGradients(**{"signal": 4.0, "noise": 1.0, "weights": 16.0, "parameters": 10, **values})


def test_without_noise_or_signal() -> None:
    """A single gradient has no noise: its ratio is infinite, null in JSON. No gradient at all: zero."""
    found = LayerCriteria({"single": layer_of(noise=0.0), "dead": layer_of(signal=0.0, noise=0.0)}, 1)
    assert {"rgn": 0.5, "snr": math.inf, "fisher": 4.0, "fisher_mean": 0.4} == found.values["single"]
    assert dict.fromkeys(CRITERIA, 0.0) == found.values["dead"]
    assert {"gradients": 1, "layers": {**found.values, "single": {**found.values["single"], "snr": None}}} == (
        found.to_json()
    )
    json.dumps(found.to_json(), allow_nan=False)


# --- the score of layers that would train together ---


def test_the_score_is_the_mean_over_layers() -> None:
    """A layer of a million parameters counts as much as one of ten."""
    found = LayerCriteria({"a": layer_of(), "b": layer_of(signal=64.0, parameters=1_000_000), "c": layer_of()}, 4)
    assert (0.5, 1.25) == (rank(found, "rgn", {"a"}), rank(found, "rgn", {"a", "b"}))
    assert (2 * 4 + 64) / 3 == rank(found, "snr", ("a", "b", "c"))


@given(st.lists(LAYER, min_size=3, max_size=6), st.sampled_from(sorted(CRITERIA)))
def test_what_every_candidate_has_does_not_change_their_order(layers: list[LayerGradients], name: str) -> None:
    """Two candidates of one size with the same predictor are in the order of their other layers."""
    found = LayerCriteria({str(number): layer for number, layer in enumerate(layers)}, 4)
    first, second = rank(found, name, {"0", "2"}), rank(found, name, {"1", "2"})
    if first != second:
        assert (first > second) == (rank(found, name, {"0"}) > rank(found, name, {"1"}))


def test_unknown_names_are_told() -> None:
    """A criterion or layer that is not there: the closest, and all of them."""
    found = LayerCriteria({"head.1": layer_of()}, 4)
    with pytest.raises(ConfigError, match="unknown criterion 'rng'") as criterion:
        rank(found, "rng", {"head.1"})
    with pytest.raises(ConfigError, match=r"layer 'head\.9' was not measured") as layer:
        rank(found, "rgn", {"head.9"})
    assert ("Did you mean rgn? Valid: rgn, snr, fisher, fisher_mean.", "Did you mean head.1? Valid: head.1.") == (
        criterion.value.hint, layer.value.hint
    )  # fmt: skip
