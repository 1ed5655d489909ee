"""What all detectors inherit: the input of the chain, losses, parameter groups, order of convolutions."""

from __future__ import annotations

import pytest
import stub_queries
import stub_two_stage
import torch
from torch import Tensor, nn

from fewshot_cli.detectors.canvas import batch_of
from fewshot_cli.detectors.chain import Target
from fewshot_cli.detectors.registry import DETECTORS, build_detector

SIZE = 64
TARGETS = [
    Target(torch.tensor([[4.0, 6.0, 30.0, 40.0]]), torch.tensor([2])),
    Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
]


def pixels(count: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return (
        torch.randint(0, 256, (count, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator),
        torch.full((count, 2), SIZE),
    )


def test_the_input_of_the_chain_is_pixels_and_their_valid_size() -> None:
    """Canvases of images of any size stack; beside them stands which part of each is image."""
    detector = build_detector("yolox_nano", weights="none", image_size=SIZE)
    images = [torch.full((3, *size), 200, dtype=torch.uint8) for size in ((32, 128), (100, 50), (7, 7))]
    stacked, valid = batch_of([detector.make_canvas(image) for image in images])
    assert ((3, 3, SIZE, SIZE), torch.uint8) == (tuple(stacked.shape), stacked.dtype)
    assert ([[16, 64], [64, 32], [64, 64]], torch.int64) == (valid.tolist(), valid.dtype)
    for canvas, (height, width) in zip(stacked, valid, strict=True):
        assert height * width == int((canvas[0] == 200).sum())


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", ["yolox_nano", "retinanet_mini"])
def test_one_stage_losses_are_run_then_loss_in_float32(name: str, bf16: bool) -> None:
    """Under autocast the layers compute in bf16 and the loss does not: losses and gradients are those of two steps."""
    detector = build_detector(name, weights="none", image_size=SIZE)
    start = len(detector.layers) - 3
    with torch.no_grad():
        stored = detector.run(pixels(), 0, start)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        outputs = detector.run(stored, start)
    assert {torch.bfloat16 if bf16 else torch.float32} == {output.dtype for output in outputs}
    expected = detector.loss(tuple(output.float() for output in outputs), TARGETS)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        found = detector.losses(stored, start, TARGETS)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[kind], found[kind]) for kind in expected)
    parameters = list(detector.layers[-1].parameters().values())
    wanted, gradients = (torch.autograd.grad(sum(losses.values()), parameters) for losses in (expected, found))  # type: ignore[type-var]
    assert all(torch.equal(a, b) for a, b in zip(wanted, gradients, strict=True))


@pytest.mark.parametrize("name", DETECTORS)
def test_parameter_groups_hold_every_parameter_once(name: str) -> None:
    """Groups leave no parameter out, and only YOLOX, whose levels share no weights, has one for small objects."""
    with torch.device("meta"):
        detector = build_detector(name, weights="none")
    groups = detector.parameter_groups()
    every = sorted(name for name, _ in detector.network.named_parameters())
    assert every == sorted(name for group in groups for name in group.parameters)
    small = [group for group in groups if group.role == "small-objects"]
    assert small == [group for group in groups if group.small_objects]
    assert name.startswith("yolox") == bool(small)
    for group in small:
        assert group.small_objects == (64, 2.0)
        assert all(parameter.split(".")[2] == "0" for parameter in group.parameters)


def ancestors(detector: nn.Module, names: tuple[str, ...]) -> dict[str, set[str]]:
    """For each convolution, those that its input was computed with: found by differentiating that input."""
    modules = dict(detector.network.named_modules())  # type: ignore[union-attr,operator]
    inputs: dict[str, Tensor] = {}
    for name in names:
        # A predictor that all levels share is called several times; its first input will do.
        modules[name].register_forward_pre_hook(
            lambda _, x, name=name: inputs.setdefault(name, x[0].float().sum()) and None
        )
    weights = [modules[name].weight for name in names]
    detector.train()  # YOLOX's blocks call their convolutions only while norms compute statistics
    detector.run(pixels(), 0)  # type: ignore[operator]
    found = {}
    for name in names:
        known = inputs[name].requires_grad
        gradients = torch.autograd.grad(inputs[name], weights, retain_graph=True, allow_unused=True) if known else ()
        found[name] = {other for other, gradient in zip(names, gradients, strict=False) if gradient is not None}
    return found


@pytest.mark.parametrize("name", ["retinanet_mini", "yolox_nano", "ssdlite320_mobilenet_v3_large"])
def test_convolutions_come_in_the_order_in_which_the_input_meets_them(name: str) -> None:
    """Every convolution once, after all that it depends on."""
    detector = build_detector(name, weights="none", image_size=SIZE)
    names = detector.convolutions()
    every = [name for name, module in detector.network.named_modules() if isinstance(module, nn.Conv2d)]
    assert sorted(every) == sorted(names)
    before = ancestors(detector, names)
    assert all(before[name] <= set(names[:i]) for i, name in enumerate(names))
    assert len(before[names[-1]]) > 20


def test_a_shortcut_comes_with_the_start_of_its_block() -> None:
    """The convolution on a ResNet block's shortcut meets the block's input, as the block's first one does."""
    with torch.device("meta"):
        deep = build_detector("retinanet_resnet50_fpn", weights="none").convolutions()
        slim = build_detector("retinanet_mini", weights="none").convolutions()
    block = "backbone.body.layer2.0"
    for names, order in (
        (deep, ["conv1", "downsample.0", "conv2", "conv3"]),
        (slim, ["conv1", "downsample.0", "conv2"]),
    ):
        assert [f"{block}.{name}" for name in order] == [name for name in names if name.startswith(block)]
    assert "backbone.body.conv1" == deep[0] == slim[0]


def test_registration_order_is_the_default() -> None:
    """Layers in chain order, modules as they were registered; what is no convolution is not listed."""
    two = stub_two_stage.build("two", image_size=SIZE, weights="none", reporter=None)  # type: ignore[arg-type]
    queries = stub_queries.build("queries", image_size=SIZE, weights="none", reporter=None)  # type: ignore[arg-type]
    assert ("backbone.0", "backbone.1", "rpn") == two.convolutions()
    assert ("backbone.0", "backbone.1", "neck") == queries.convolutions()


@pytest.mark.parametrize("name", DETECTORS)
def test_an_order_names_all_children_that_hold_parameters(name: str) -> None:
    """A name that is missing in an adapter's order would drop convolutions and norms."""
    with torch.device("meta"):
        detector = build_detector(name, weights="none")
    for module in detector.network.modules():
        if order := detector.input_order.get(type(module)):
            holding = {child for child, each in module.named_children() if [*each.parameters()]}
            assert holding <= set(order), type(module)
    every = {name for name, _ in detector.network.named_parameters()}
    assert every == detector.parameters_before(len(detector.convolutions()))


@pytest.mark.parametrize("name", ["retinanet_mini", "yolox_nano", "ssdlite320_mobilenet_v3_large"])
def test_a_norm_belongs_to_the_convolution_whose_output_it_takes(name: str) -> None:
    """The input meets both before the next convolution: what a norm takes is looked up in a forward pass."""
    detector = build_detector(name, weights="none", image_size=SIZE)
    modules = dict(detector.network.named_modules())
    made_by: dict[int, str] = {}
    norm_of: dict[str, str] = {}
    kept = []  # so that no two outputs have the same id

    def remember(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str) -> None:
        kept.append(output)
        if isinstance(module, nn.Conv2d):
            made_by[id(output)] = name
        else:
            norm_of[made_by[id(inputs[0])]] = name

    for each, module in modules.items():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.register_forward_hook(lambda *call, each=each: remember(*call, name=each))
    detector.train()  # YOLOX's blocks call their modules only while norms compute statistics
    with torch.no_grad():
        detector.run(pixels(), 0)
    assert len(norm_of) > 10
    for number, convolution in enumerate(detector.convolutions()):
        if norm := norm_of.get(convolution):
            own = {f"{convolution}.weight", f"{norm}.weight", f"{norm}.bias"}
            assert own.isdisjoint(detector.parameters_before(number)), convolution
            assert own <= detector.parameters_before(number + 1), convolution
