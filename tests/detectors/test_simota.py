"""SimOTA against a slow reading of the paper (arXiv 2107.08430, section 2.1; OTA, arXiv 2103.14259, section 3.2)."""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fewshot_cli.detectors.simota import Assignment, assign

SIDE = 96
CLASSES = 3
few = settings(max_examples=20)


def grid() -> tuple[Tensor, Tensor]:
    """Cell centres (A, 2) and strides (A,) of a 96-pixel canvas, three levels."""
    cells = [
        ((column + 0.5) * stride, (row + 0.5) * stride, stride)
        for stride in (8, 16, 32)
        for row in range(SIDE // stride)
        for column in range(SIDE // stride)
    ]
    return torch.tensor(cells)[:, :2], torch.tensor(cells)[:, 2]


class Scene:
    """Random predictions around every cell, and random objects, some of them beyond the canvas."""

    def __init__(self, seed: int, objects: int, *, low: float = 0.0, high: float = SIDE) -> None:
        random = torch.Generator().manual_seed(seed)
        self.centers, self.strides = grid()
        count = len(self.centers)
        middles = self.centers + torch.randn(count, 2, generator=random) * 6
        sizes = torch.rand(count, 2, generator=random) * 40 + 6
        self.boxes = torch.cat([middles - sizes / 2, middles + sizes / 2], dim=1)
        self.classes = torch.randn(count, CLASSES, generator=random) * 2
        self.objectness = torch.randn(count, 1, generator=random) * 2
        middles = torch.rand(objects, 2, generator=random) * (high - low) + low
        sizes = torch.rand(objects, 2, generator=random) * 50 + 4
        self.target_boxes = torch.cat([middles - sizes / 2, middles + sizes / 2], dim=1)
        self.target_labels = torch.randint(CLASSES, (objects,), generator=random)

    def assign(self) -> Assignment:
        return assign(
            self.boxes,
            self.classes,
            self.objectness,
            self.centers,
            self.strides,
            self.target_boxes,
            self.target_labels,
        )


def iou(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


class Slow:
    """The assignment of one scene, one object and one cell at a time, in double precision."""

    def __init__(self, scene: Scene) -> None:
        self.predicted = scene.boxes.tolist()
        self.objects = scene.target_boxes.tolist()
        self.labels = scene.target_labels.tolist()
        self.classes = scene.classes.tolist()
        self.objectness = scene.objectness.flatten().tolist()
        self.cells = [(*xy, s) for xy, s in zip(scene.centers.tolist(), scene.strides.tolist(), strict=True)]
        cells, objects = range(len(self.cells)), range(len(self.objects))
        self.reach = {n: [a for a in cells if self.is_near(n, a)] for n in objects}
        self.near = sorted({a for near in self.reach.values() for a in near})

    def is_near(self, n: int, a: int) -> bool:
        """The centre prior: a window of 5 × 5 cells around the object's centre."""
        x1, y1, x2, y2 = self.objects[n]
        x, y, stride = self.cells[a]
        return abs(x - (x1 + x2) / 2) < 2.5 * stride and abs(y - (y1 + y2) / 2) < 2.5 * stride

    def cost(self, n: int, a: int) -> float:
        """Equation (1) with λ = 3: binary cross-entropy over all classes, and −log IoU."""
        total = -3.0 * math.log(iou(self.objects[n], self.predicted[a]) + 1e-8)
        for k, logit in enumerate(self.classes[a]):
            score = math.sqrt(sigmoid(logit) * sigmoid(self.objectness[a]))
            total -= math.log(score if k == self.labels[n] else 1 - score)
        return total

    def wanted(self, n: int) -> int:
        """Dynamic k: the sum of the ten best IoUs, rounded down, at least 1."""
        ious = sorted((iou(self.objects[n], self.predicted[a]) for a in self.near), reverse=True)
        return max(1, int(sum(ious[:10])))

    def pairs(self) -> dict[int, int]:
        """Prediction → object."""
        claims: dict[int, list[int]] = defaultdict(list)
        for n, near in self.reach.items():
            for a in sorted(near, key=lambda a: self.cost(n, a))[: self.wanted(n)]:
                claims[a].append(n)
        return {a: objects[0] if len(objects) == 1 else self.cheapest(a) for a, objects in claims.items()}

    def cheapest(self, a: int) -> int:
        """A contested prediction goes to the object, of all in whose reach it is, that it costs least."""
        return min((n for n, near in self.reach.items() if a in near), key=lambda n: self.cost(n, a))


seeds = st.integers(0, 2**31)


def pairs_of(found: Assignment) -> dict[int, int]:
    return dict(zip(found.predictions.tolist(), found.objects.tolist(), strict=True))


@given(seeds, st.integers(1, 12))
@few
def test_the_pairs_are_those_of_the_paper(seed: int, objects: int) -> None:
    """The vectorised assignment gives the same pairs as the slow reading, and the IoU of each."""
    scene = Scene(seed, objects)
    slow, found = Slow(scene), scene.assign()
    assert slow.pairs() == pairs_of(found)
    ious = [iou(slow.objects[n], slow.predicted[a]) for a, n in pairs_of(found).items()]
    torch.testing.assert_close(found.ious, torch.tensor(ious), atol=1e-5, rtol=1e-5)


@given(seeds)
@few
def test_objects_beyond_the_canvas_take_nothing_that_is_not_theirs(seed: int) -> None:
    """Pairs are those of the paper also where objects reach few cells or none."""
    scene = Scene(seed, 10, low=-SIDE, high=2 * SIDE)
    slow = Slow(scene)
    assume(any(not near for near in slow.reach.values()))
    assert slow.pairs() == pairs_of(scene.assign())


@given(seeds)
@few
def test_what_holds_for_every_assignment(seed: int) -> None:
    """Each prediction at most once, in reach of its object; an object is without any only if others cost less."""
    scene = Scene(seed, 15)
    found, slow = scene.assign(), Slow(scene)
    assert len(set(found.predictions.tolist())) == len(found.predictions)
    assert all(slow.is_near(n, a) for a, n in pairs_of(found).items())
    for n in set(range(15)) - set(found.objects.tolist()):
        favourite = min(slow.reach[n], key=lambda a: slow.cost(n, a))
        assert slow.cheapest(favourite) != n


def test_a_perfect_detector_gets_ten_predictions() -> None:
    """Where ten predictions fit an object exactly their IoUs sum to 10, so it is matched by ten."""
    scene = Scene(0, 1, low=SIDE / 2, high=SIDE / 2)
    scene.boxes = scene.target_boxes.expand(len(scene.boxes), 4).clone()
    found = scene.assign()
    # Sums of ones may fall a rounding error short.
    assert 10 == len(found.predictions)
    torch.testing.assert_close(found.ious, torch.ones(10))


def test_no_overlap_still_gives_one_prediction() -> None:
    """A detector that is wrong everywhere learns from one prediction an object: k is at least 1."""
    scene = Scene(0, 1, low=SIDE / 2, high=SIDE / 2)
    scene.boxes = torch.tensor([[500.0, 500.0, 510.0, 510.0]]).repeat(len(scene.boxes), 1)
    found = scene.assign()
    assert 1 == len(found.predictions)
    assert [0] == found.objects.tolist()


def test_no_objects_give_an_empty_assignment() -> None:
    """An image without objects matches nothing, with the types that indexing needs."""
    found = Scene(0, 0).assign()
    assert [0, 0, 0] == [len(part) for part in found]
    assert (torch.int64, torch.int64) == (found.predictions.dtype, found.objects.dtype)


def test_objects_out_of_every_cells_reach_are_left_out() -> None:
    """Objects far outside the canvas match nothing, alone and beside one that is inside."""
    far = torch.tensor([[5000.0, 5000.0, 5040.0, 5040.0], [-900.0, 0.0, -800.0, 50.0]])
    scene = Scene(3, 2)
    scene.target_boxes = far
    assert 0 == len(scene.assign().predictions)
    alone = Scene(4, 1, low=SIDE / 2, high=SIDE / 2)
    expected = alone.assign()
    alone.target_boxes = torch.cat([far, alone.target_boxes])
    alone.target_labels = torch.cat([torch.tensor([0, 1]), alone.target_labels])
    found = alone.assign()
    assert torch.equal(expected.predictions, found.predictions)
    assert {2} == set(found.objects.tolist())


def test_matching_keeps_no_graph() -> None:
    """The assignment is a constant of the loss: predictions that require gradients give none to it."""
    scene = Scene(0, 3)
    scene.boxes.requires_grad_()
    scene.classes.requires_grad_()
    assert not scene.assign().ious.requires_grad


def test_saturated_scores_stay_finite() -> None:
    """Logits of ±50, whose float32 scores are exactly 0 and 1, still give one match or more an object."""
    scene = Scene(1, 4)
    scene.classes = scene.classes.sign() * 50
    scene.objectness = scene.objectness.sign() * 50
    found = scene.assign()
    assert len(found.predictions) >= 1
    assert torch.isfinite(found.ious).all()
