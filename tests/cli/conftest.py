"""A user's model folder, and the command run in this process."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from pellucid.cli import face
from pellucid.cli.main import app

FACTORY = '''
from torch import nn


def classifier() -> nn.Module:
    """Two classes of a gray picture."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 8, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
    )


def volume() -> nn.Module:
    """A segmentation of dark voxels: one fixed mean filter, no training needed to be right."""
    net = nn.Sequential(nn.Conv3d(1, 1, 3, padding=1), nn.Conv3d(1, 2, 1))
    return net
'''

CARD = """
[model]
name = "{name}"
version = "1"
task = "{task}"
modality = ["{modality}"]
weights = "weights.safetensors"
sha256 = "{sha}"
license = "Apache-2.0"
factory = "user_networks:{factory}"

[[inputs]]
{inputs}

[output]
labels = {labels}
activation = "softmax"

{extra}
"""


@dataclass(frozen=True)
class Run:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def pellucid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Run the command with an audit log of its own."""
    monkeypatch.setenv("PELLUCID_AUDIT", str(tmp_path / "audit" / "audit.jsonl"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(face.out, "width", 200)  # which was taken from the environment when it was imported

    def run(*words: object) -> Run:
        done = CliRunner().invoke(app, [str(w) for w in words])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Run(done.exit_code, done.stdout, done.stderr)

    return run


def write_model(
    folder: Path, factory: str, task: str, modality: str, inputs: str, labels: list[str], extra: str = ""
) -> Path:
    """A card, a factory and seeded weights, as a user would bring them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "user_networks.py").write_text(FACTORY)
    scope: dict[str, Any] = {}
    exec(FACTORY, scope)
    torch.manual_seed(0)
    net = scope[factory]()
    if factory == "volume":
        with torch.no_grad():
            net[0].weight.fill_(1 / 27)
            net[0].bias.zero_()
            net[1].weight.copy_(torch.tensor([4.0, -4.0]).view(2, 1, 1, 1, 1))
            net[1].bias.copy_(torch.tensor([-1.0, 1.0]))
    save_file(net.state_dict(), folder / "weights.safetensors")
    sha = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    path = folder / "model.toml"
    name = f"test {factory}"
    path.write_text(
        CARD.format(
            name=name,
            task=task,
            modality=modality,
            sha=sha,
            factory=factory,
            inputs=inputs,
            labels=json.dumps(labels),
            extra=extra,
        )
    )
    return path


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    """A 2-D classifier of gray pictures at 64 px."""
    inputs = 'name = "image"\nrank = 2\nchannels = 1\nsize = [64, 64]\nscale = "unit"'
    return write_model(tmp_path / "model", "classifier", "classification", "x-ray", inputs, ["normal", "finding"])


@pytest.fixture
def dark_voxels(tmp_path: Path) -> Path:
    """A 3-D segmentation of dark voxels (air in a CT), by fixed weights."""
    inputs = 'name = "image"\nrank = 3\nchannels = 1\nsize = [12, 64, 64]\nwindow = [-1000, 400]\nscale = "unit"'
    return write_model(tmp_path / "volume", "volume", "segmentation", "ct", inputs, ["tissue", "air"])
