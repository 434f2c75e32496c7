"""Peers in processes of their own: one that is there, one that is not, one that dies."""

import sys
from pathlib import Path

import pytest
import torch

from pellucid.verify.apart import PEERS_PYTHON, Job, ask, peers_python
from pellucid.verify.peers import networks
from pellucid.verify.subjects import Prepared, Subject


@pytest.fixture
def prepared() -> Prepared:
    x = torch.randn(1, 1, 8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    net = networks.build("dense-2d", 1, 12)
    with torch.no_grad():
        net.head.bias += 1  # handed over, not built again
    return Prepared(Subject("dense-2d", "film", (8, 6)), net, x, (1,))


def test_a_peer_that_is_there_and_one_that_is_not(prepared: Prepared, tmp_path: Path) -> None:
    done: list[int] = []
    jobs = [
        Job(0, "captum", "InputXGradient", prepared),
        Job(1, "captum", "Occlusion", prepared, {"window": [99, 99], "stride": [1, 1]}),
        Job(2, "grad-cam", "GradCAM", prepared),
    ]
    # this interpreter has captum, and not grad-cam
    answers, versions = ask(jobs, tmp_path, Path(sys.executable), lambda job: done.append(job.number))
    assert sorted(done) == [0, 1, 2]
    leaf = prepared.x.clone().requires_grad_()
    g = torch.autograd.grad(prepared.net(leaf)[0, 1], leaf)[0]
    assert torch.allclose(answers[0].found["map"], g * prepared.x, rtol=1e-12)
    assert answers[1].reason.startswith("captum raised")
    assert "No module named 'pytorch_grad_cam'" in answers[2].reason
    assert "captum" in versions["peers beside pellucid"]
    assert "grad-cam" not in versions["peers apart"]


def test_no_environment(prepared: Prepared, tmp_path: Path) -> None:
    answers, _ = ask([Job(0, "zennit", "Gradient", prepared)], tmp_path, None, lambda _: None)
    assert "make .venv-peers/.installed" in answers[0].reason


@pytest.mark.parametrize(
    ("script", "told"), [("#!/bin/sh\necho gone >&2\nexit 3\n", "code 3: gone"), (None, "could not be started")]
)
def test_a_process_that_dies(prepared: Prepared, tmp_path: Path, script: str | None, told: str) -> None:
    python = tmp_path / "python"
    if script is not None:
        python.write_text(script)
        python.chmod(0o755)
    answers, versions = ask([Job(0, "zennit", "Gradient", prepared)], tmp_path, python, lambda _: None)
    assert told in answers[0].reason
    assert not versions["peers apart"]


def test_which_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PEERS_PYTHON, raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    assert peers_python(None) is None
    beside = tmp_path / ".venv-peers" / "bin" / "python"
    beside.parent.mkdir(parents=True)
    beside.touch()
    assert peers_python(None) == beside
    monkeypatch.setenv(PEERS_PYTHON, "named")
    assert peers_python(None) == Path("named")
    assert peers_python(Path("chosen")) == Path("chosen")
