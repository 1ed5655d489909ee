"""Third step of a fine-tune: the training loop, with measurements and saved states on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fewshot_cli.datasets.types import Split
from fewshot_cli.errors import CheckpointError, DivergedError
from fewshot_cli.evaluation.coco_metrics import Metrics
from fewshot_cli.evaluation.measure import score
from fewshot_cli.progress import Reporter, Task
from fewshot_cli.runs.checkpoint import load_tensors, save_checkpoint
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.runs.folder import STATE_HINT, Run
from fewshot_cli.runs.schedules import parse_schedule
from fewshot_cli.tracking import Trackers
from fewshot_cli.training.balancing import Balanced, balanced
from fewshot_cli.training.clock import Clock
from fewshot_cli.training.features import Features, detect_cached
from fewshot_cli.training.loop import StepOptions, load_state, make_optimizer, train
from fewshot_cli.training.objectives import Estimating, Objective
from fewshot_cli.training.plan import trained_parameters, trained_tensors
from fewshot_cli.training.prepare import Prepared
from fewshot_cli.training.rates import learning_rates
from fewshot_cli.training.schedule import Rates, batch_order

SAVE_EVERY = 50
"""Iterations between two saved states when nothing is measured in between."""

Averaged = Callable[[], AbstractContextManager[None]]
"""Opens a context in which the detector is averaged with its weights before training."""


@dataclass(slots=True)
class Progress:
    """How far a run is.

    Attributes:
        iteration: iterations done.
        records: one a measurement: `iteration`, `ap` on the test set (None without one), metrics, `losses`, `mean_loss`
            of the iterations since the one before (of SAVE_EVERY at most, where only the end is measured), `balance`
            of the same iterations if their losses were balanced, and `train_ap` if the training images are measured
            too.
        metrics, results: of the last measurement on the test set, and its detections in COCO's results format.
        train_metrics: of the last measurement on the training images.
    """

    iteration: int = 0
    records: list[dict[str, Any]] = field(default_factory=list)
    metrics: Metrics | None = None
    results: list[dict[str, Any]] = field(default_factory=list)
    train_metrics: Metrics | None = None

    @property
    def best(self) -> dict[str, Any] | None:
        """The record with the highest test mAP; None where nothing was measured."""
        measured = [record for record in self.records if record["ap"] is not None]
        return max(measured, key=lambda record: record["ap"], default=None)


def fit(
    prepared: Prepared,
    features: Features,
    objective: Objective,
    config: FinetuneConfig,
    *,
    averaged: Averaged,
    train: Split | None,
    test: Split | None,
    run: Run,
    trackers: Trackers,
    clock: Clock,
    reporter: Reporter,
) -> Progress:
    """Train what is left of the iterations; measure and save the state on the way.

    What is measured and kept as the best is the averaged detector; what trains on, and at the end is in `prepared`, is
    not averaged.

    Args:
        averaged: a context in which the parameters are those to measure and keep.
        train: the training images; None: they are not measured.
        test: the test set; None: it is not measured.
        run: where metrics, the best checkpoint and the state are written; its saved state is continued.
        trackers: get the losses and the rate of every step, and what is measured.
        clock: counts the measurements as `evaluation`.

    Raises:
        DivergedError: a loss, a gradient or a parameter is not finite.
        CheckpointError, StorageError: the saved state is damaged, or the disk cannot be written.
    """
    trains = bool(trained_parameters(prepared.detector))
    balance = balanced(objective, prepared.detector, config) if trains else None
    watch = _Watch(prepared, features, objective, config, averaged, (train, test), run, trackers, clock, balance)
    if not trains:
        watch.measure(0, {})
        return watch.progress
    optimizer = _optimizer(prepared, objective, config)
    watch.resume(optimizer, reporter)
    start = watch.progress.iteration
    with reporter.progress("Training", config.iterations, start) as task:
        _train(
            prepared,
            features,
            range(len(features.train)),
            balance or objective,
            config,
            optimizer,
            watch.rates,
            start=start,
            after_step=lambda done, losses: watch.after_step(done, losses, optimizer, task),
        )
    return watch.progress


def measure_train(prepared: Prepared, features: Features, train: Split) -> Metrics:
    """What the detector finds in the training images themselves, without the variants made of them."""
    found = detect_cached(prepared.placed, features.cut, features.train, features.shots)
    return score(found, train, prepared.detector.classes)[0]


def fit_part(
    prepared: Prepared,
    features: Features,
    items: Sequence[int],
    objective: Objective,
    config: FinetuneConfig,
    *,
    after_step: Callable[[int, dict[str, float]], None],
) -> None:
    """Train on some of the variants alone, for all iterations; nothing is measured, nothing is written.

    Schedule `plateau` looks at the training loss as often as `fit` measures.

    Args:
        items: of `features.train`.
        after_step: gets (iterations done, losses by name) after each step.

    Raises:
        DivergedError: a loss, a gradient or a parameter is not finite.
    """
    if trained_parameters(prepared.detector):
        optimizer, rates = _optimizer(prepared, objective, config), rates_of(config)
        objective = balanced(objective, prepared.detector, config) or objective
        _train(prepared, features, items, objective, config, optimizer, rates, start=0, after_step=after_step)
        _check_parameters(prepared, config.iterations)


def rates_of(config: FinetuneConfig, means: Iterable[float] = ()) -> Rates:
    """The learning rates of a fine-tune, also of one that is continued: `means` as in `Rates`."""
    return Rates(
        parse_schedule(config.schedule),
        iterations=config.iterations,
        peak=config.lr,
        warmup=config.warmup,
        every=config.eval_every or SAVE_EVERY,
        means=means,
    )


def _optimizer(prepared: Prepared, objective: Objective, config: FinetuneConfig) -> torch.optim.Optimizer:
    rates = learning_rates(prepared.detector, prepared.backbone_lr, prepared.small_object_lr)
    return make_optimizer(
        config.optimizer,
        [*rates, *((parameter, 1.0) for parameter in objective.parameters().values())],
        lr=config.lr,
        weight_decay=config.weight_decay,
    )


def _train(
    prepared: Prepared,
    features: Features,
    items: Sequence[int],
    objective: Objective,
    config: FinetuneConfig,
    optimizer: torch.optim.Optimizer,
    rates: Rates,
    *,
    start: int,
    after_step: Callable[[int, dict[str, float]], None],
) -> None:
    """The loop, from iteration `start` on, over some items of `features.train`."""
    options = StepOptions(
        clip=config.clip,
        bf16=prepared.placed.bf16,
        seed=config.seed,
    )
    train(
        Estimating(objective, prepared.detector),
        lambda chosen: features.batch([items[i] for i in chosen], prepared.placed.device),
        batch_order(len(items), config.batch_size, config.iterations, config.seed),
        optimizer,
        rates,
        options,
        weigh=objective.minimised if isinstance(objective, Balanced) else None,
        start=start,
        after_step=after_step,
    )


def _check_parameters(prepared: Prepared, done: int) -> None:
    """A step with a finite loss and gradient can still be too large for the numbers themselves."""
    for name, tensor in trained_tensors(prepared.detector).items():
        if not bool(torch.isfinite(tensor).all()):
            raise DivergedError(
                f"{name} is not finite after iteration {done}",
                hint="Lower --lr. What was saved before is intact.",
            )


@torch.no_grad()
def _load_objective(parameters: Mapping[str, nn.Parameter], saved: Mapping[str, Any]) -> None:
    """Set what of an objective trains to what was saved of it; ValueError if that is of another objective."""
    if saved.keys() != parameters.keys():
        raise ValueError("the objective was another")
    for name, parameter in parameters.items():
        value = saved[name]
        if not isinstance(value, Tensor) or value.shape != parameter.shape or value.dtype != parameter.dtype:
            raise ValueError(f"{name} of the objective is not a tensor of the right shape and type")
        parameter.copy_(value)


class _Watch:
    """What happens between steps: measuring, keeping the best checkpoint, saving the state."""

    def __init__(
        self,
        prepared: Prepared,
        features: Features,
        objective: Objective,
        config: FinetuneConfig,
        averaged: Averaged,
        measured: tuple[Split | None, Split | None],
        run: Run,
        trackers: Trackers,
        clock: Clock,
        balance: Balanced | None,
    ) -> None:
        self.averaged, self.trackers, self.clock = averaged, trackers, clock
        self.prepared, self.features, self.config, self.run = prepared, features, config, run
        self.train, self.test = measured
        self.objective = objective.parameters()
        self.progress, self.rates = Progress(), rates_of(config)
        self.balance = balance

    def resume(self, optimizer: torch.optim.Optimizer, reporter: Reporter) -> None:
        """Continue from the run's saved state, if it has one."""
        state = self.run.read_state()
        if state is None:
            return
        trained = trained_tensors(self.prepared.detector)
        try:
            if state["parameters"].keys() != trained.keys():
                raise ValueError("other layers were trained")
            if state["iteration"] >= self.config.iterations:
                raise ValueError(f"it is of iteration {state['iteration']} of {self.config.iterations}")
            _load_objective(self.objective, state.get("objective", {}))
            load_tensors(self.prepared.detector, state["parameters"], self.run.state_file, required=trained)
            load_state(optimizer, state["optimizer"], self.config.optimizer)
            if self.balance:
                self.balance.load(state.get("balance"))
        except (CheckpointError, ValueError) as error:
            raise CheckpointError(
                f"{self.run.state_file} does not fit what this run trains: {error}", hint=STATE_HINT
            ) from error
        self.progress = Progress(state["iteration"], [dict(record) for record in state["records"]])
        self.rates = rates_of(self.config, [each["mean_loss"] for each in state["records"] if "mean_loss" in each])
        reporter.say(f"Continuing after iteration {state['iteration']}.")

    def after_step(self, done: int, losses: dict[str, float], optimizer: torch.optim.Optimizer, task: Task) -> None:
        self.progress.iteration = done
        self._track_step(done, losses)
        last = done == self.config.iterations
        every = self.config.eval_every
        if last or (every and done % every == 0):
            self.measure(done, losses)
        if not last and done % (every or SAVE_EVERY) == 0:
            self._save_state(optimizer)
        measured = f", test mAP {self.progress.records[-1]['ap']:.3f}" if self.progress.best else ""
        task.update(f"loss {losses['loss']:.3f}{measured}")
        task.advance()

    def measure(self, done: int, losses: dict[str, float]) -> None:
        """Record the losses and what is measured on training and test images; keep the best checkpoint."""
        _check_parameters(self.prepared, done)
        record: dict[str, Any] = {"iteration": done, "ap": None}
        record["losses"] = {name: round(value, 6) for name, value in losses.items()}
        if self.rates.means:
            record["mean_loss"] = self.rates.means[-1]
        if self.balance:
            record["balance"] = self.balance.take_means()
        with self.clock.measures("evaluation"), self.averaged():
            if self.train is not None:
                record["train_ap"] = self._measure_train(self.train, done)
            if self.test is not None:
                record |= self._measure_test(self.test, done)
        self.progress.records.append(record)
        self.run.write_metrics(self.progress.records)

    def _track_step(self, done: int, losses: dict[str, float]) -> None:
        balance = self.balance.last if self.balance else {}
        values = {f"train/{name}": value for name, value in {**losses, **balance}.items()}
        self.trackers.log({**values, "train/learning_rate": self.rates.current}, done)

    def _measure_train(self, train: Split, done: int) -> float | None:
        self.progress.train_metrics = measure_train(self.prepared, self.features, train)
        ap = self.progress.train_metrics.ap
        self.trackers.log({"train/AP": ap}, done)
        return ap

    def _measure_test(self, test: Split, done: int) -> dict[str, Any]:
        """Measure, and save the checkpoint if it is the best yet; returns what to record."""
        before, metrics = self.progress.best, self._metrics_on(test)
        self.trackers.log({f"test/{name}": of for name, of in metrics.numbers.items() if of is not None}, done)
        if before is None or metrics.ap > before["ap"]:
            self._save_best(done)
        return {"ap": metrics.ap, **metrics.to_json()}

    def _metrics_on(self, test: Split) -> Metrics:
        assert self.features.test is not None  # cached for every data set with a test set
        placed, items = self.prepared.placed, range(len(self.features.test))
        found = detect_cached(placed, self.features.cut, self.features.test, items)
        self.progress.metrics, self.progress.results = score(found, test, placed.detector.classes)
        return self.progress.metrics

    def _save_best(self, done: int) -> None:
        state = self.prepared.detector.network.state_dict()
        tensors = {name: state[name] for name in self.prepared.kept}
        save_checkpoint(self.run.best_checkpoint, tensors, self.prepared.info_after(done))

    def _save_state(self, optimizer: torch.optim.Optimizer) -> None:
        trained = trained_tensors(self.prepared.detector)
        state = {
            "iteration": self.progress.iteration,
            "records": self.progress.records,
            "parameters": {name: value.detach().cpu() for name, value in trained.items()},
            "objective": {name: value.detach().cpu() for name, value in self.objective.items()},
            "optimizer": optimizer.state_dict(),
        }
        if self.balance:
            state["balance"] = self.balance.state()
            self.balance.take_means()  # a continued run has no others than those that follow
        self.run.write_state(state)
