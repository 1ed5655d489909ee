"""What results say of the machine, and computing the same bits twice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_runs import REPOSITORY, TINY, Listening

from fewshot_cli.determinism import computing_deterministically
from fewshot_cli.environment import describe_environment, device_name, versions
from fewshot_cli.runs.folder import Run
from fewshot_cli.verbs.finetune import finetune


def test_versions_are_those_of_the_modules() -> None:
    """What is recorded is what computes."""
    import numpy

    import fewshot_cli

    found = versions()
    assert (fewshot_cli.__version__, numpy.__version__) == (found["fsod"], found["numpy"])
    assert torch.__version__.partition("+")[0] == found["torch"].partition("+")[0]


def test_packages_that_are_not_installed_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """An optional package has no version where it is missing."""
    monkeypatch.setattr("fewshot_cli.environment.PACKAGES", ("numpy", "no-such-package-of-fsod"))
    assert {"fsod", "python", "numpy"} == versions().keys()


def test_a_description_needs_no_torch() -> None:
    """An exported file is described where torch is not imported."""
    code = (
        "import sys; from fewshot_cli.environment import describe_environment as describe; "
        "describe(device='cpu', precision='fp32', threads=1); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})


def test_the_processor_has_a_name() -> None:
    """Never empty, whatever the system tells."""
    assert device_name("cpu")
    assert device_name("cpu") == describe_environment(device="cpu", precision="fp32", threads=2)["device_name"]


@pytest.mark.parametrize("before", [False, True])
def test_torch_is_set_back(before: bool) -> None:
    """After the context, also after an error in it, torch computes as before."""
    torch.use_deterministic_algorithms(before)
    try:
        with pytest.raises(KeyError), computing_deterministically():
            assert torch.are_deterministic_algorithms_enabled()
            raise KeyError
        assert before == torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_nothing_is_set_where_it_is_not_wanted() -> None:
    """The default changes no figure."""
    with computing_deterministically(False):
        assert not torch.are_deterministic_algorithms_enabled()


def test_deterministic_runs_have_the_same_bytes(shapes: Path, tmp_path: Path) -> None:
    """Twice the same command: the same checkpoint, detections and learning curve, in one thread, which is said."""
    first, second = (_run(shapes, tmp_path / name, deterministic=True) for name in ("first", "second"))
    for file in ("checkpoint.safetensors", "predictions.json", "metrics.jsonl"):
        assert (first.folder / file).read_bytes() == (second.folder / file).read_bytes()
    environment = first.result["environment"]
    assert (1, True) == (environment["threads"], environment["deterministic"])


def test_deterministic_leaves_given_threads() -> None:
    """--threads has precedence over the single thread."""
    from fewshot_cli.runs.config import FinetuneConfig
    from fewshot_cli.verbs.finetune import _threads

    listening = Listening()
    assert 2 == _threads(FinetuneConfig(data="", deterministic=True, threads=2), listening)
    assert [] == listening.said
    assert 1 == _threads(FinetuneConfig(data="", deterministic=True), listening)
    assert "--threads" in listening.said[0]


def test_the_bits_are_those_of_one_thread_without_the_option(shapes: Path, tmp_path: Path) -> None:
    """On a CPU the option chooses the thread and changes nothing else."""
    with_option = _run(shapes, tmp_path / "with", deterministic=True)
    without = _run(shapes, tmp_path / "without", threads=1)
    assert with_option.checkpoint.read_bytes() == without.checkpoint.read_bytes()
    assert not without.result["environment"]["deterministic"]


def _run(data: Path, runs: Path, **options: Any) -> Run:
    return finetune(data, runs=runs, name="run", **{**TINY, "iterations": 2, **options})
