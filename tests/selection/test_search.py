"""Policy auto: candidates compared on left-out shots, the simplest of the best ones chosen, and continued where stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers_data import write_document
from helpers_runs import TINY, argv_of, config_of, draw_shapes, fsod
from hypothesis import given
from hypothesis import strategies as st

from fewshot_cli.datasets.store import open_dataset
from fewshot_cli.errors import ConfigError, DivergedError, PolicyError
from fewshot_cli.progress import SilentReporter
from fewshot_cli.runs.folder import Run
from fewshot_cli.selection import left_out as folds_module
from fewshot_cli.selection.candidates import Candidate, default_of, list_candidates
from fewshot_cli.selection.folds import make_folds
from fewshot_cli.selection.search_run import _read
from fewshot_cli.selection.trials import Trial, choose, deficit, drop_clearly_worse
from fewshot_cli.training.outline import outline
from fewshot_cli.verbs.finetune import resume, run_at

AUTO = {**TINY, "policy": "auto", "budget": None, "eval_every": 0}
SMALL = {**AUTO, "budget": 2}
"""Four candidates, two of which have the same budget."""


def trial(parameters: int, *scores: float) -> Trial:
    return Trial(Candidate("last", 1, 0.02, ("head.4",), 3, parameters), scores=[list(scores)])


@pytest.fixture(scope="module")
def searched(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of policy auto."""
    return run_at(tmp_path_factory.mktemp("searched") / "run", config_of(shapes, SMALL))


# --- what is compared ---


def test_candidates_are_every_setup_that_differs(shapes: Path) -> None:
    """Nothing, every policy at every budget of a head of four layers, the head, the detector at two rates."""
    found = list_candidates(config_of(shapes, AUTO), outline("yolox_nano", 1))
    expected = {"none", "last 1", "last 2", "last 3", "symmetric 2", "symmetric 3", "all"}
    assert expected | {"full, backbone rate 0.02", "full, backbone rate 0.1"} == {str(one) for one in found}
    assert sorted(one.parameters for one in found) == [one.parameters for one in found]


TWO_LAYERS = {"none", "last 1", "last 2", "symmetric 2"}


@pytest.mark.parametrize(
    ("budget", "expected"),
    [(1, {"none", "last 1"}), (2, TWO_LAYERS), ("31k", TWO_LAYERS)],
)
def test_a_budget_is_an_upper_bound(budget: int | str, expected: set[str], shapes: Path) -> None:
    """In head layers, which the whole detector is not, or in parameters."""
    found = list_candidates(config_of(shapes, AUTO, budget=budget), outline("yolox_nano", 1))
    assert expected == {str(one) for one in found}


def test_candidates_can_be_named(shapes: Path) -> None:
    """By their policies."""
    found = list_candidates(config_of(shapes, AUTO, candidates="symmetric,none"), outline("yolox_nano", 1))
    assert ["none", "symmetric 2", "symmetric 3"] == [str(one) for one in found]


def test_one_candidate_is_no_choice(shapes: Path) -> None:
    """An error, rather than a search that can end in one way only."""
    with pytest.raises(PolicyError, match="1 candidate: nothing to choose from"):
        list_candidates(config_of(shapes, AUTO, candidates="all"), outline("yolox_nano", 1))


def test_a_budget_of_nothing_is_a_bound_too(shapes: Path) -> None:
    """Zero layers leave `none` alone; they do not mean that there is no bound."""
    with pytest.raises(PolicyError, match="1 candidate: nothing to choose from"):
        list_candidates(config_of(shapes, AUTO, budget=0), outline("yolox_nano", 1))


def test_an_unknown_candidate_is_an_error(shapes: Path) -> None:
    """With the closest policy."""
    with pytest.raises(ConfigError, match="symmetric"):
        config_of(shapes, AUTO, candidates="symetric")


# --- how it is chosen ---


def test_fewer_parameters_win_within_one_standard_error() -> None:
    """The best is better by 0.01 on average, with a standard error of 0.01 shot by shot; the default was dropped."""
    small, best = trial(10, 0.5, 0.3, 0.4, 0.2), trial(99, 0.54, 0.3, 0.4, 0.2)
    assert 1.0 == pytest.approx(deficit(small, best))
    small.scores[0][1] += 1e-6  # a little closer
    assert small is choose([best, small], gone())


def test_a_clear_gain_wins_with_more_parameters() -> None:
    """Every shot is better by about the same: however hard the shots are, that is no chance."""
    small, best = trial(10, 0.1, 0.9, 0.5), trial(99, 0.2, 0.99, 0.61)
    assert deficit(small, best) > 10 and best is choose([small, best], gone())


def test_of_equally_large_ones_the_better_one_wins() -> None:
    """Such as the whole detector at two rates."""
    worse, better = trial(99, 0.5, 0.3), trial(99, 0.5, 0.31)
    assert better is choose([worse, better], gone())


@given(st.lists(st.floats(0, 1, width=16), min_size=1, max_size=12))
def test_equal_scores_choose_the_fewest_parameters(scores: list[float]) -> None:
    """Also where nothing is found at all."""
    trials = [trial(parameters, *scores) for parameters in (3, 1, 2)]
    assert trials[1] is choose(trials, gone())


def test_the_default_is_chosen_unless_it_was_dropped() -> None:
    """A better score alone is no reason: of many candidates one looks better by chance."""
    default, best = trial(99, 0.4, 0.6, 0.2), trial(10, 0.5, 0.7, 0.4)
    assert default is choose([best, default], default)
    default.dropped = "clearly worse"
    assert best is choose([best], default)


def test_the_default_is_dropped_only_where_that_is_sure() -> None:
    """2.1 standard errors with ten shots are beyond the 95 % quantile of Student's t and not beyond that of 99 %."""
    best = trial(1, *[0.5] * 10)
    others = [trial(2, *[0.5 - gap for gap in (0.0, 0.1) * 5][:-1], 0.3) for _ in range(2)]
    assert 1.83 < deficit(others[0], best) < 2.82
    assert [best, others[0]] == drop_clearly_worse([best, *others], default=others[0])


def test_the_default_is_what_a_run_without_a_comparison_trains(shapes: Path) -> None:
    """The whole detector at the rate that the classes suggest; within a bound in layers symmetric, else the most."""
    detector = outline("yolox_nano", 1)
    for options, share, expected in [
        ({}, 0.1, "full, backbone rate 0.1"),
        ({}, 0.02, "full, backbone rate 0.02"),
        ({"budget": 3}, 0.1, "symmetric 3"),
        ({"candidates": "none,last"}, 0.1, "last 3"),
    ]:
        found = list_candidates(config_of(shapes, {**AUTO, **options}), detector)
        assert expected == str(default_of(found, share))


def gone() -> Trial:
    """A default that was dropped."""
    return replace(trial(1), dropped="clearly worse")


# --- in a run ---


def test_a_run_records_what_was_tried_and_chosen(searched: Run, shapes: Path) -> None:
    """Each candidate with its estimate or why it has none; the run trains what was chosen."""
    result = searched.result
    search = result["search"]
    chosen = next(one for one in search["candidates"] if one["name"] == search["chosen"])
    assert (chosen["policy"], chosen["budget"]) == (result["policy"], result["budget"])
    assert chosen["layers"] == result["trained_layers"] and chosen["parameters"] == result["parameters"]["trained"]
    assert "auto" == searched.read_config().policy
    scored = [one for one in search["candidates"] if one["dropped"] != "ranked lower"]
    assert all(one["score"] is not None and one["shots"] for one in scored)
    assert all(one["criterion"] is not None for one in search["candidates"] if one["policy"] in ("last", "symmetric"))
    assert {"search", "total"} <= set(result["seconds"]) and (3, 2) == (search["folds"], search["iterations"])


@pytest.mark.slow
def test_the_same_search_ends_the_same(searched: Run, shapes: Path, tmp_path: Path) -> None:
    """Scores, choice and checkpoint, to the last bit."""
    again = run_at(tmp_path / "again", config_of(shapes, SMALL))
    assert searched.search_file.read_bytes() == again.search_file.read_bytes()
    assert searched.checkpoint.read_bytes() == again.checkpoint.read_bytes()


def test_the_test_set_is_not_looked_at(searched: Run, shapes: Path, tmp_path: Path) -> None:
    """Without one the search has the same scores."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(shapes / "train")
    without = run_at(tmp_path / "run", config_of(tmp_path / "data", SMALL, cross_validate=0))
    assert searched.search_file.read_bytes() == without.search_file.read_bytes()


def test_a_search_killed_in_the_middle_goes_on_there(
    searched: Run, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No fold of a candidate that was kept is trained again, and the run ends as the unbroken one."""
    write = Run.write_search

    def write_and_stop(run: Run, scores: dict[str, Any]) -> None:
        write(run, scores)
        if sum(map(len, scores.values())) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "write_search", write_and_stop)
        run_at(tmp_path / "stopped", config_of(shapes, SMALL))
    trained: list[int] = []
    train = folds_module.fit_part
    monkeypatch.setattr(folds_module, "fit_part", lambda *a, **k: trained.append(1) or train(*a, **k))
    stopped = resume(tmp_path / "stopped")
    assert searched.search_file.read_bytes() == stopped.search_file.read_bytes()
    assert sum(map(len, searched.read_search().values())) - 4 == len(trained)
    assert searched.checkpoint.read_bytes() == stopped.checkpoint.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("candidates", ["none,last", "none,full"])
def test_a_run_stopped_after_its_search_goes_on(
    candidates: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All scores are known then, no features were computed for them, and the run ends as the unbroken one."""
    config = config_of(shapes, AUTO, budget=1 if "last" in candidates else None, candidates=candidates, iterations=1)
    unbroken = run_at(tmp_path / "unbroken", config)

    def stop(*arguments: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("fewshot_cli.training.finetune.fit", stop)
        run_at(tmp_path / "stopped", config)
    stopped = resume(tmp_path / "stopped")
    assert unbroken.checkpoint.read_bytes() == stopped.checkpoint.read_bytes()


@pytest.mark.parametrize("content", ["", "[]", '{"all": 1}', '{"all": [["x"]]}', '{"none": [[NaN]]}'])
def test_a_damaged_search_is_not_read(content: str, tmp_path: Path) -> None:
    """A search.json that holds no scores is as good as none."""
    run = Run(tmp_path)
    run.search_file.write_text(content)
    assert {} == _read(run)


def test_scores_of_other_shots_are_measured_again(shapes: Path, tmp_path: Path) -> None:
    """Too few or too many of them in a fold of search.json: the run is finished, with as many as it left out."""
    run = Run(tmp_path)
    run.search_file.write_text('{"none": [[]], "last 1": [[0.5, 2, 0.5]]}')
    run_at(tmp_path, config_of(shapes, AUTO, budget=1, iterations=1))
    assert {4} == {len([score for fold in folds for score in fold]) for folds in run.read_search().values()}


@pytest.mark.parametrize("shots", [1, 2, 3])
def test_with_few_shots_the_default_is_trained(shots: int, tmp_path: Path) -> None:
    """It is said; folds of a shot or two would decide by chance."""
    draw_shapes(tmp_path / "data" / "train", shots, seed=1)
    said: list[str] = []
    reporter = SilentReporter()
    reporter.say = said.append  # type: ignore[method-assign]
    config = config_of(tmp_path / "data", AUTO, iterations=1, cross_validate=0)
    run = run_at(tmp_path / "run", config, reporter=reporter)
    default = type(config_of(tmp_path)).policy
    assert (None, default) == (run.result["search"], run.result["policy"])
    assert any("too few shots" in text and "at least 4" in text for text in said)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"budget": 2}, ("symmetric", 2)),
        ({"budget": 1}, ("last", 1)),
        ({"budget": "31k"}, ("symmetric", 2)),
        ({"candidates": "none,all"}, ("all", None)),
    ],
)
def test_with_few_shots_a_bound_holds_too(options: dict[str, Any], expected: Any, tmp_path: Path) -> None:
    """Where budget or candidates rule the default out, the largest candidate is trained."""
    draw_shapes(tmp_path / "data" / "train", 3, seed=1)
    config = config_of(tmp_path / "data", {**AUTO, **options}, iterations=1, cross_validate=0)
    result = run_at(tmp_path / "run", config).result
    assert expected == (result["policy"], result["budget"])


def test_a_fold_without_objects_has_no_say(tmp_path: Path) -> None:
    """Two shots of four show something; the fold that leaves out the others is not trained."""
    document = draw_shapes(tmp_path / "data" / "train", 4, seed=1)
    document["annotations"] = [box for box in document["annotations"] if box["image_id"] < 3]
    write_document(tmp_path / "data" / "train", document)
    shots = open_dataset(tmp_path / "data").shots
    seed = next(seed for seed in range(99) if min(make_folds(shots, 3, seed)[0]) > 1)
    config = config_of(tmp_path / "data", AUTO, seed=seed, budget=1, iterations=1, cross_validate=0)
    search = run_at(tmp_path / "run", config).result["search"]
    assert (2, {2}) == (search["folds"], {one["shots"] for one in search["candidates"] if not one["dropped"]})


def test_a_candidate_that_diverges_is_dropped(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are compared all the same."""
    train = folds_module.fit_part

    def diverge(prepared: Any, *arguments: Any, **more: Any) -> None:
        if prepared.info.policy == "last":
            raise DivergedError("the loss is nan")
        train(prepared, *arguments, **more)

    monkeypatch.setattr(folds_module, "fit_part", diverge)
    run = run_at(tmp_path / "run", config_of(shapes, AUTO, iterations=1, budget=1))
    dropped = {one["name"]: one["dropped"] for one in run.result["search"]["candidates"]}
    assert ("diverged", None) == (dropped["last 1"], dropped["none"])


@pytest.mark.slow
def test_one_document_with_json(shapes: Path, tmp_path: Path) -> None:
    """`--json` holds what was tried, the whole detector too."""
    options = {**AUTO, "iterations": 1, "candidates": "none,full", "backbone_lr": 0.1, "runs": tmp_path}
    del options["budget"]
    done = fsod(*argv_of(shapes, options), "--no-report", "--json")
    assert 0 == done.exit_code, done.stderr
    assert ["none", "full, backbone rate 0.1"] == [
        one["name"] for one in json.loads(done.stdout)["search"]["candidates"]
    ]


def test_a_candidate_clearly_worse_is_not_trained_further() -> None:
    """Beyond the 95 % quantile of Student's t for three shots, 2.92 standard errors, and not below it."""
    best, worse, close = trial(3, 0.5, 0.6, 0.7), trial(2, 0.1, 0.2, 0.25), trial(1, 0.4, 0.59, 0.5)
    assert (25.0, 1.88) == (
        pytest.approx(deficit(worse, best), rel=0.01),
        pytest.approx(deficit(close, best), rel=0.01),
    )
    assert [best, close] == drop_clearly_worse([best, worse, close], gone())
    assert ("clearly worse", None) == (worse.dropped, close.dropped)


def test_two_shots_alone_rule_nothing_out() -> None:
    """The quantile for two shots is 6.3 standard errors."""
    best, worse = trial(2, 0.5, 0.6), trial(1, 0.2, 0.1)
    assert 4 == pytest.approx(deficit(worse, best)) and [best, worse] == drop_clearly_worse([best, worse], gone())
