"""Gradient balancing: weights computed by hand, what they do to gradients, and runs that have them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers_runs import TINY, config_of, fine_tune, fsod, metrics_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fewshot_cli.detectors.registry import build_detector
from fewshot_cli.errors import CheckpointError, ConfigError, ModelError
from fewshot_cli.policies import select
from fewshot_cli.report.plots import balance_plot
from fewshot_cli.report.run import write_run_report
from fewshot_cli.runs.balances import METHODS, fixed_weights
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.runs.folder import Run
from fewshot_cli.tracking import Trackers
from fewshot_cli.training import balancing
from fewshot_cli.training import fit as fit_module
from fewshot_cli.training.balancers import (
    BALANCERS,
    EQUAL,
    LEAST,
    MOST,
    Balancer,
    Batch,
    FixedBalance,
    GradNorm,
    Precision,
    PrecisionBalance,
    UncertaintyBalance,
    Weights,
)
from fewshot_cli.training.balancing import Balanced, precision_of
from fewshot_cli.training.finetune import finetune
from fewshot_cli.training.plan import freeze

SHORT: dict[str, Any] = {**TINY, "iterations": 6, "eval_every": 2, "copies": 1, "average": 1.0}


def config(**options: Any) -> FinetuneConfig:
    return FinetuneConfig(data="nowhere", **options)


def layer(*parameters: nn.Parameter) -> Any:
    return SimpleNamespace(parameters=lambda: {str(i): each for i, each in enumerate(parameters)})


NO_LAYERS: Any = SimpleNamespace(layers=())


def batch(
    classification: float = 1.0, localisation: float = 1.0, precision: tuple[float, float] | None = None
) -> Batch:
    losses = torch.tensor(classification), torch.tensor(localisation)
    return Batch(losses, Precision(*precision) if precision else None)


def precision_weights(*precisions: tuple[float, float] | None) -> list[Weights]:
    balance = PrecisionBalance(config(), NO_LAYERS)
    return [balance.weights(batch(precision=each)) for each in precisions]


def test_the_worse_task_gets_the_larger_weight() -> None:
    """p_c 0.2 and p_l 0.6: 2 · 0.6/0.8 and 2 · 0.2/0.8; then of the exponential means, without a batch that has none."""
    found = precision_weights((0.2, 0.6), (0.4, 0.6), None, (0.9, 0.3))
    assert (1.5, 0.5) == pytest.approx(found[0])
    c, b = 0.9 * 0.02 + 0.1 * 0.4, 0.9 * 0.06 + 0.1 * 0.6
    assert (2 * b / (c + b), 2 * c / (c + b)) == pytest.approx(found[1])
    assert found[1] == found[2]
    c, b = 0.9 * c + 0.1 * 0.9, 0.9 * b + 0.1 * 0.3
    assert (2 * b / (c + b), 2 * c / (c + b)) == pytest.approx(found[3])


def test_no_task_is_switched_off() -> None:
    """A new class of score 0.01 beside good boxes: the bounds; nothing known yet, or nothing right: equal weights."""
    assert [Weights(MOST, LEAST), Weights(LEAST, MOST)] == [precision_weights(p)[0] for p in ((0.01, 0.8), (0.8, 0.0))]
    assert [EQUAL, EQUAL] == precision_weights(None, (0.0, 0.0))


def test_the_precision_is_the_mean_over_all_positives() -> None:
    """Of all calls in a step, each positive counting once; none without positives."""
    parts = [
        balancing.Positives(torch.tensor(a), torch.tensor(b)) for a, b in (([0.1, 0.3], [0.5, 0.7]), ([0.8], [0.0]))
    ]
    assert (0.4, 0.4) == pytest.approx(precision_of(parts))
    empty = balancing.Positives(torch.zeros(0), torch.zeros(0))
    assert precision_of([]) is None is precision_of([empty])


@pytest.mark.parametrize(("text", "wanted"), [("1:2", (2 / 3, 4 / 3)), (" 3 : 1 ", (1.5, 0.5)), ("0:5", (0.0, 2.0))])
def test_fixed_weights_have_the_sum_two(text: str, wanted: tuple[float, float]) -> None:
    """In the proportion that is given, also beyond the bounds of the others."""
    balance = FixedBalance(config(balance=text), NO_LAYERS)
    assert wanted == pytest.approx(balance.weights(batch(precision=(0.1, 0.9))))
    assert text.strip() == config(balance=text).balance


def test_the_largest_numbers_have_a_proportion() -> None:
    """Without an overflow."""
    assert (1.0, 1.0) == fixed_weights("1e308:1e308")


@pytest.mark.parametrize("text", ["", "precise", "0:0", "-1:2", "nan:1", "1:inf", "1:2:3", "1:", ":", "one:two", "1"])
def test_no_balance(text: str) -> None:
    """Unknown names, and no two numbers of 0 or more: an error that says what would be right."""
    with pytest.raises(ConfigError, match=r"balance.*(none|1:2|precision)"):
        config(balance=text)


def test_every_method_is_registered() -> None:
    """What the option names is what can be built."""
    assert METHODS == tuple(BALANCERS)


def adam(gradients: Sequence[float], rate: float, value: float) -> list[float]:
    """The values of one number after each step of Adam (arXiv 1412.6980, Algorithm 1)."""
    first = second = 0.0
    values = []
    for step, gradient in enumerate(gradients, start=1):
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        value -= rate * first / (1 - 0.9**step) / (math.sqrt(second / (1 - 0.999**step)) + 1e-8)
        values.append(value)
    return values


def test_gradnorm_by_hand() -> None:
    """Shared parameters u, v, L_c = u² + v² and L_l = 3u + 4v: norms 2·√(u² + v²) and 5, equation (2), a step of Adam.

    The task that has fallen less and has the smaller gradient gains; the weights of a batch are those before its step.
    """
    u, v, own = (nn.Parameter(torch.tensor(each)) for each in (1.0, 2.0, 5.0))
    balance = GradNorm(config(), SimpleNamespace(layers=[layer(u, v), layer(own)]))  # type: ignore[arg-type]

    def step() -> Weights:
        return balance.weights(Batch((u**2 + v**2, 3 * u + 4 * v + 0 * own), None))

    assert step() == EQUAL
    # Norms 2·√5 and 5, equal rates: localisation is above the mean of both, classification below.
    gradients = [[-2 * math.sqrt(5)], [5.0]]
    after = [adam(of, 0.025, 1.0)[0] for of in gradients]
    weights = [2 * each / sum(after) for each in after]
    with torch.no_grad():
        u.copy_(torch.tensor(0.9))
        v.copy_(torch.tensor(0.4))
    assert weights == pytest.approx(list(step()), rel=1e-5)
    left = (0.9**2 + 0.4**2) / 5, (3 * 0.9 + 4 * 0.4) / 11
    norms = 2 * math.sqrt(0.9**2 + 0.4**2), 5.0
    mean = (weights[0] * norms[0] + weights[1] * norms[1]) / 2
    goals = [mean * (each / (sum(left) / 2)) ** 1.5 for each in left]
    for of, norm, weight, goal in zip(gradients, norms, weights, goals, strict=True):
        of.append(math.copysign(norm, weight * norm - goal))
    # The second step of Adam, from where the weights were put after the first.
    moved = [w + adam(of, 0.025, 0.0)[1] - adam(of, 0.025, 0.0)[0] for w, of in zip(weights, gradients, strict=True)]
    assert [2 * each / sum(moved) for each in moved] == pytest.approx(list(step()), rel=1e-5)


def test_gradnorm_waits_for_a_loss_that_can_fall() -> None:
    """A first batch without positives, whose localisation loss is 0, changes nothing and is not what losses fall from."""
    u = nn.Parameter(torch.tensor(1.0))
    balance = GradNorm(config(), SimpleNamespace(layers=[layer(u)]))  # type: ignore[arg-type]
    assert EQUAL == balance.weights(Batch((u**2, 0 * u), None)) == Weights(*balance.values)
    assert [] == balance.state()["first"]
    balance.weights(Batch((u**2, 3 * u), None))
    assert [1.0, 3.0] == balance.state()["first"]


@pytest.mark.parametrize(
    ("name", "policy", "budget", "at"),
    [
        ("yolox_nano", "full", None, "head.3"),  # the box tower, which objectness shares
        ("yolox_nano", "last", 1, None),
        ("retinanet_mini", "full", None, "neck"),
        ("retinanet_mini", "all", None, None),
        ("ssd_mobilenet_v2_fpnlite", "all", None, "head.4"),
    ],
)
def test_gradients_are_compared_at_the_last_shared_layer(
    name: str, policy: str, budget: int | None, at: str | None
) -> None:
    """It trains and both tasks reach it; without one, all that trains counts."""
    detector = build_detector(name, weights="none", image_size=64)
    freeze(detector, select(policy, budget, detector.head_depth, stages=detector.backbone_stages))
    pixels = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8), torch.full((1, 2), 64)
    target = balancing.Target(torch.tensor([[8.0, 8.0, 40.0, 40.0]]), torch.tensor([0]))
    balance = GradNorm(config(), detector)
    weighed = Balanced(SimpleNamespace(losses=lambda a, t: detector.losses(a, 0, t)), detector, balance)  # type: ignore[arg-type]
    weighed.minimised(weighed.losses(pixels, [target])).backward()
    trained = {id(p) for each in detector.layers for p in each.parameters().values() if p.requires_grad}
    wanted = {id(p) for each in detector.layers if each.name == at for p in each.parameters().values()} or trained
    compared = {id(p) for p in balance._at}
    assert compared and compared <= wanted and (at or compared == trained)


def test_uncertainty_follows_its_gradient_to_the_inverse_losses() -> None:
    """Steps of plain gradient descent by hand; with constant losses of 2 and 1, weights end at 1/2 : 1."""
    balance = UncertaintyBalance(config(optimizer="sgd"), NO_LAYERS)
    s, momentum, found = [0.0, 0.0], [0.0, 0.0], []
    for _ in range(3):
        factors = [math.exp(-s[0]), 0.5 * math.exp(-s[1])]
        found.append([2 * each / sum(factors) for each in factors])
        gradient = [0.5 - factors[0] * 2.0, 0.5 - factors[1] * 1.0]
        momentum = [0.9 * m + g for m, g in zip(momentum, gradient, strict=True)]
        s = [each - 0.025 * m for each, m in zip(s, momentum, strict=True)]
    assert [pytest.approx(each, rel=1e-5) for each in found] == [
        list(balance.weights(batch(2.0, 1.0))) for _ in range(3)
    ]
    for _ in range(400):
        last = balance.weights(batch(2.0, 1.0))
    assert (2 / 3, 4 / 3) == pytest.approx(last, rel=1e-2)


numbers = st.floats(0, 2.0**100, width=32)
steps = st.lists(st.tuples(numbers, numbers, st.none() | st.tuples(st.floats(0, 1), st.floats(0, 1))), max_size=8)


def follow(balance: Balancer, losses: Sequence[tuple[Any, ...]]) -> list[Weights]:
    """The weights of batches; the losses depend on one parameter, as strongly as they are large."""
    found = []
    for classification, localisation, precision in losses:
        pair = PARAMETER * classification, PARAMETER * localisation
        found.append(balance.weights(Batch(pair, Precision(*precision) if precision else None)))
    return found


PARAMETER = nn.Parameter(torch.tensor(1.0))
ONE_LAYER: Any = SimpleNamespace(layers=[layer(PARAMETER)])


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=25)
@given(steps, steps)
def test_weights_are_bounded_and_continue(name: str, before: list[Any], after: list[Any]) -> None:
    """Whatever the losses: weights from LEAST to MOST whose sum is 2, and those after a saved state as without it."""
    whole = BALANCERS[name](config(), ONE_LAYER)
    for classification, localisation in follow(whole, before):
        assert LEAST <= classification <= MOST and LEAST <= localisation <= MOST
        assert 2 == pytest.approx(classification + localisation)
    continued = BALANCERS[name](config(), ONE_LAYER)
    continued.load(whole.state())
    assert follow(whole, after) == follow(continued, after)


FIRST: Any = ([], [5.0, 1e9])
"""Losses that GradNorm could have begun with."""


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("value", [None, [], "x", math.nan, [math.nan] * 2, [5.0, 1e9], torch.tensor(1.0), {}])
def test_a_foreign_state_is_refused(name: str, value: Any) -> None:
    """Each of its parts replaced by something else, and all of them missing: ValueError."""
    balance = BALANCERS[name](config(), ONE_LAYER)
    follow(balance, [(1.0, 2.0, (0.5, 0.5))])
    good = balance.state()
    replaced = [{**good, key: value} for key in good if key != "first" or value not in FIRST]
    for state in ({}, *replaced):
        with pytest.raises(ValueError, match="state of the balance|optimizer"):
            BALANCERS[name](config(), ONE_LAYER).load(state)


class Losses:
    """An objective of given losses of one parameter."""

    def __init__(self, make: Callable[[Tensor], dict[str, Tensor]]) -> None:
        self.x, self._make = torch.tensor(2.0, requires_grad=True), make

    def losses(self, activations: Any, targets: Any) -> dict[str, Tensor]:
        return self._make(self.x)


def weighed(
    make: Callable[[Tensor], dict[str, Tensor]], text: str = "1:3"
) -> tuple[Balanced, dict[str, Tensor], Tensor]:
    detector = build_detector("yolox_nano", weights="none", image_size=64)
    objective = Losses(make)
    balance = Balanced(objective, detector, FixedBalance(config(balance=text), detector))
    return balance, balance.losses((), ()), objective.x


def test_the_gradients_are_weighted_and_the_losses_are_not() -> None:
    """Weights 0.5 and 1.5: class and objectness, and box; a loss of neither task, such as distillation, has weight 1."""
    balance, losses, x = weighed(lambda x: {"box": 7 * x, "objectness": 3 * x, "class": 5 * x, "distil": 11 * x})
    assert {"box": 14.0, "objectness": 6.0, "class": 10.0, "distil": 22.0} == {n: v.item() for n, v in losses.items()}
    balance.minimised(losses).backward()
    assert x.grad is not None
    assert 1.5 * 7 + 0.5 * (3 + 5) + 11 == pytest.approx(x.grad.item())
    assert {"w_c": 0.5, "w_l": 1.5} == balance.last


def test_one_task_alone_cannot_be_balanced() -> None:
    """A detector whose losses are of other names: an error that lists them and says how to train."""
    balance, losses, _ = weighed(lambda x: {"matched": x, "class": x})
    with pytest.raises(ModelError, match="no losses of two tasks to balance: it has matched, class") as caught:
        balance.minimised(losses)
    assert "--balance none" in str(caught.value.hint)


def test_means_are_those_since_the_last_call() -> None:
    """Weights of every step, precision of the steps that have positives."""
    balance, losses, _ = weighed(lambda x: {"box": x, "class": x})
    balance.minimised(losses)
    assert {"p_c": None, "p_l": None, "w_c": 0.5, "w_l": 1.5} == balance.take_means()
    for precision in (Precision(0.2, 0.4), None, Precision(0.4, 0.8)):
        balance._precision = precision
        balance.minimised(losses)
    assert {"p_c": 0.3, "p_l": 0.6, "w_c": 0.5, "w_l": 1.5} == pytest.approx(balance.take_means())


def same(first: Run, second: Run, *files: str) -> bool:
    return all(getattr(first, file).read_bytes() == getattr(second, file).read_bytes() for file in files)


@pytest.fixture(scope="module")
def off(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fine_tune(tmp_path_factory.mktemp("off") / "run", config_of(shapes, SHORT))


def test_equal_weights_are_no_balance(off: Run, shapes: Path, tmp_path: Path) -> None:
    """1:1 trains to the same bits as none, whose records have no balance; 1:9 to others, from the same first losses."""
    equal = fine_tune(tmp_path / "equal", config_of(shapes, SHORT, balance="1:1"))
    assert same(off, equal, "checkpoint", "predictions_file")
    assert all("balance" not in line for line in metrics_of(off)) and off.result["balance"] is None
    assert {"method": "1:1", "w_c": 1.0, "w_l": 1.0} == equal.result["balance"]
    runs = [
        fine_tune(tmp_path / text[-1], config_of(shapes, SHORT, balance=text, iterations=1)) for text in ("none", "1:9")
    ]
    assert metrics_of(runs[0])[-1]["losses"] == metrics_of(runs[1])[-1]["losses"]
    assert not same(*runs, "checkpoint")


@pytest.mark.parametrize("method", ["precision", *(pytest.param(name, marks=pytest.mark.slow) for name in METHODS[1:])])
def test_a_balanced_run_resumes_to_the_same_result(method: str, shapes: Path, tmp_path: Path) -> None:
    """Stopped after a saved state: the same metrics, balance included, and checkpoint."""
    chosen = config_of(shapes, SHORT, balance=method)
    unbroken = fine_tune(tmp_path / "unbroken", chosen)
    stopped = stop(tmp_path / "stopped", chosen)
    finetune(chosen, stopped)
    assert same(unbroken, stopped, "metrics_file", "checkpoint", "best_checkpoint")
    last = metrics_of(stopped)[-1]["balance"]
    assert {"method": method, "w_c": last["w_c"], "w_l": last["w_l"]} == stopped.result["balance"]
    assert EQUAL != (last["w_c"], last["w_l"])


class Stop(Exception):
    """The power went out."""


def stop(folder: Path, chosen: FinetuneConfig) -> Run:
    """A run whose process ended after saving iteration 4."""
    write = Run.write_state

    def write_and_stop(run: Run, state: dict[str, Any]) -> None:
        write(run, state)
        if state["iteration"] == 4:
            raise Stop

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(Run, "write_state", write_and_stop)
        fine_tune(folder, chosen)
    return Run(folder)


def test_a_saved_state_without_its_balance_is_refused(shapes: Path, tmp_path: Path) -> None:
    """Or with another method's: a checkpoint error, and the way out."""
    chosen = config_of(shapes, SHORT, balance="precision")
    run = stop(tmp_path / "run", chosen)
    state: dict[str, Any] = dict(run.read_state() or {})
    for other in (None, {"values": [1.0, 1.0]}):
        run.write_state({**{k: v for k, v in state.items() if k != "balance"}, **({"balance": other} if other else {})})
        with pytest.raises(CheckpointError, match="does not fit what this run trains: the state of the balance"):
            finetune(chosen, run)


def test_cached_equals_uncached(shapes: Path, tmp_path: Path) -> None:
    """Computed anew in every step, features give the same weights and the same detector."""
    runs = [
        fine_tune(
            tmp_path / f"{memory}", config_of(shapes, SHORT, balance="gradnorm", cache_memory=memory, cache_disk=0)
        )
        for memory in (1.0, 0.0)
    ]
    assert same(*runs, "metrics_file", "checkpoint")


def test_a_precise_balance_costs_no_backward_pass(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One a step; GradNorm alone asks for other gradients."""
    passes: list[str] = []
    backward, grad = Tensor.backward, torch.autograd.grad
    monkeypatch.setattr(Tensor, "backward", lambda *a, **k: passes.append("backward") or backward(*a, **k))
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: passes.append("grad") or grad(*a, **k))
    counts = {}
    for method in METHODS:
        passes.clear()
        fine_tune(tmp_path / method, config_of(shapes, SHORT, balance=method))
        counts[method] = passes.count("backward"), passes.count("grad")
    assert (6, 0) == counts["precision"] == counts["uncertainty"]
    assert 6 == counts["gradnorm"][0] and 12 <= counts["gradnorm"][1]


@pytest.mark.slow
def test_folds_and_candidates_are_balanced_each_anew(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Policy auto, its folds, those of the cross-validation, and the fine-tune: each training has its own balance."""
    made: list[Balanced] = []
    monkeypatch.chdir(tmp_path)

    def keep(*arguments: Any) -> Balanced | None:
        made.append(balancing.balanced(*arguments))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(fit_module, "balanced", keep)
    result = fsod(
        *(
            "finetune",
            "--data",
            shapes,
            "--weights",
            "none",
            "--image-size",
            64,
            "--policy",
            "auto",
            "--candidates",
            "last",
        ),
        *(
            "--iterations",
            4,
            "--copies",
            1,
            "--cross-validate",
            2,
            "--balance",
            "precision",
            "--no-report",
            "--threads",
            1,
        ),
    )
    assert 0 == result.exit_code, result.stderr
    assert 4 <= len(made) == len({id(each) for each in made})
    assert all(each.last for each in made)


def test_what_trains_nothing_has_no_balance(shapes: Path, tmp_path: Path) -> None:
    """Policy none measures, and records that nothing was weighted."""
    chosen = config_of(shapes, SHORT, policy="none", budget=None, balance="precision")
    assert fine_tune(tmp_path / "run", chosen).result["balance"] is None


def test_trackers_get_the_balance_of_every_step(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Precision and weights, beside the losses."""
    logged: list[Mapping[str, float]] = []
    monkeypatch.setattr(Trackers, "log", lambda self, values, iteration: logged.append(values))
    run = fine_tune(tmp_path / "run", config_of(shapes, SHORT, balance="precision"))
    of_steps = [values for values in logged if "train/loss" in values]
    assert 6 == len(of_steps)
    for name, mean in metrics_of(run)[-1]["balance"].items():
        assert mean == pytest.approx(sum(values[f"train/{name}"] for values in of_steps[-2:]) / 2, abs=1e-6)


def test_the_page_shows_a_balance(off: Run, shapes: Path, tmp_path: Path) -> None:
    """A figure with the last values in words, where there is one; batches without positives leave gaps."""
    run = fine_tune(tmp_path / "run", config_of(shapes, SHORT, balance="precision"))
    title, last = "Balance of the tasks", metrics_of(run)[-1]["balance"]
    page = write_run_report(run).read_text("utf-8")
    assert title in page and f"localisation {last['w_l']:.3f}" in page
    assert title not in write_run_report(off, tmp_path / "off.html").read_text("utf-8")
    nothing = {"p_c": None, "p_l": None, "w_c": 1.0, "w_l": 1.0}
    plot = balance_plot([{"iteration": 1, "balance": nothing}])
    assert plot is not None and "at the end: classification 1.000, localisation 1.000." in plot.text


@pytest.mark.parametrize(
    ("text", "said"), [("0:0", "not both 0"), ("nan:1", "two numbers"), ("presicion", "precision")]
)
def test_a_wrong_balance_is_told(text: str, said: str, shapes: Path) -> None:
    """What is wrong and what would be right, before anything is loaded."""
    result = fsod("finetune", "--data", shapes, "--balance", text)
    assert 4 == result.exit_code
    assert "balance is" in result.stderr and said in result.stderr and "Traceback" not in result.stderr
