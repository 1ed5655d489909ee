"""New classes in a predictor: which rows are whose, held by a row-by-row computation."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fewshot_cli.detectors.predictors import (
    PRIOR,
    WEIGHT_STD,
    ClassInit,
    ClassPredictor,
    class_names,
    numbered,
    start_rare,
    with_classes,
)
from fewshot_cli.errors import FsodError

BASES = 4


def old_predictor(kind: str, outputs: int) -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(5, outputs) if kind == "linear" else nn.Conv2d(5, outputs, 3, stride=2, padding=1)


inits = st.lists(st.lists(st.integers(0, BASES - 1), max_size=3, unique=True).map(tuple), min_size=1, max_size=4)


@given(
    kind=st.sampled_from(["linear", "convolution"]),
    anchors=st.integers(1, 3),
    background=st.booleans(),
    width=st.sampled_from([1, 4]),
    given=inits,
)
def test_rows_are_anchor_major(kind: str, anchors: int, background: bool, width: int, given: list[ClassInit]) -> None:
    """Row by row: the background's as it was, a class's the mean of its base classes' of the same anchor, or fresh.

    A fresh one scores PRIOR, by a sigmoid or against the background.
    """
    first = int(background)
    old = old_predictor(kind, anchors * (first + BASES) * width)
    new = with_classes(old, ClassPredictor("p", anchors, background, width), given)
    for name in ("weight", "bias"):
        was, now = old.get_parameter(name), new.get_parameter(name)
        assert (anchors * (first + len(given)) * width, *was.shape[1:]) == tuple(now.shape)
        for anchor, place in itertools.product(range(anchors), range(width)):
            ours, theirs = (anchor * (first + count) * width + place for count in (len(given), BASES))
            if background:
                assert torch.equal(was[theirs], now[ours])
            for label, bases in enumerate(given):
                row = now[ours + (first + label) * width]
                if bases:
                    mean = sum(was[theirs + (first + base) * width] for base in bases) / len(bases)
                    torch.testing.assert_close(row, mean)
                elif name == "bias":
                    against = now[ours] if background else 0
                    assert PRIOR == pytest.approx((row - against).sigmoid().item(), rel=1e-4)
    assert old.state_dict().keys() == new.state_dict().keys()


def test_a_random_class_is_rare_wherever_the_background_is_not() -> None:
    """Under softmax its score is about 0.01 whatever the background's row makes of an input."""
    torch.manual_seed(3)
    old = nn.Linear(8, 1 + BASES)
    new = with_classes(old, ClassPredictor("p", background=True), [(), ()])
    inputs = 10 * torch.randn(200, 8)
    scores = new(inputs).softmax(dim=1)
    assert old(inputs)[:, 0].std() > 3
    assert 0.002 < scores[:, 1:].min() and scores[:, 1:].max() < 0.05


def test_the_new_module_works_as_the_old_one() -> None:
    """Kernel, stride, padding, type and mode are kept; a single base class scores exactly as before."""
    old = nn.Conv2d(3, 6, 3, stride=2, padding=1).double().eval()
    new = with_classes(old, ClassPredictor("p", anchors=2), [(2,), (0,)])
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(old(x)[:, [2, 0, 5, 3]], new(x))
    assert not new.training


def test_fresh_weights_are_a_function_of_the_default_generator() -> None:
    """They are the second draw of the module's making, and spread as the RetinaNet paper says."""
    old = nn.Linear(2000, 3)
    torch.manual_seed(4)
    new = with_classes(old, ClassPredictor("p"), [()])
    torch.manual_seed(4)
    expected = nn.Linear(2000, 1)
    nn.init.normal_(expected.weight, std=0.01)
    assert torch.equal(expected.weight, new.get_parameter("weight"))
    assert WEIGHT_STD == pytest.approx(new.get_parameter("weight").std().item(), rel=0.1)


@pytest.mark.parametrize("given", [[()], [(0, 1), ()]])
def test_it_works_without_memory_for_weights(given: list[ClassInit]) -> None:
    """On the meta device, where only shapes are known, the new predictor is there too."""
    for predictor in (ClassPredictor("p", 3), ClassPredictor("p", 3, background=True)):
        old = nn.Conv2d(2, 12, 1, device="meta")
        new = with_classes(old, predictor, given)
        assert torch.device("meta") == new.get_parameter("weight").device
        assert 3 * (len(given) + predictor.background) == len(new.get_parameter("bias"))


@pytest.mark.parametrize(
    ("module", "what"), [(nn.BatchNorm2d(3), "a BatchNorm2d"), (nn.Linear(2, 2, bias=False), "a Linear without bias")]
)
def test_other_modules_are_an_error(module: nn.Module, what: str) -> None:
    """The error names the module, its type, and what would be right."""
    with pytest.raises(FsodError, match=f"class predictor head.classes is {what}") as caught:
        with_classes(module, ClassPredictor("head.classes"), [()])
    assert "nn.Conv2d or nn.Linear" in str(caught.value.hint)


def test_a_rare_start_is_the_prior() -> None:
    """With no weights the score is 0.01 everywhere."""
    predictor = nn.Linear(3, 2)
    start_rare(predictor)
    assert [pytest.approx(math.log(0.01 / 0.99))] * 2 == predictor.bias.tolist()


def test_classes_without_names_get_numbers() -> None:
    """Known names serve only if there are as many as classes."""
    assert ["class 0", "class 1"] == numbered(2) == class_names(["cat", "dog", "owl"], 2)
    assert ["cat", "dog"] == class_names(("cat", "dog"), 2)
