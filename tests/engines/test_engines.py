"""Every engine gives the module's numbers, for images, volumes, several inputs, fixed batches; nothing is changed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pellucid.core.errors import CannotDo
from pellucid.core.masking import Stream
from pellucid.engines.choosing import OFFERS
from pellucid.engines.cuda import cuda_graph
from pellucid.engines.eager import eager
from pellucid.engines.sample import Sample
from pellucid.engines.selfcheck import Masked
from pellucid.explain.occlusion import Occlusion

EXACT = ("openvino", "onnx")
PACKAGE = {"openvino": "openvino", "openvino-bf16": "openvino", "openvino-int8": "nncf", "onnx": "onnxruntime"}
SUBJECTS = ("small-2d", "small-3d", "two-images", "fixed-batch", "dense", "nodule", "hippocampus")


def built(name, probe):
    offer = next(o for o in OFFERS if o.name == name)
    return offer.build(Sample(probe.model, probe.inputs, Masked(probe).calibration))


def state_of(module):
    return {k: (id(v), v._version, v.clone()) for k, v in module.state_dict(keep_vars=True).items()}


@pytest.mark.parametrize("kind", SUBJECTS)
@pytest.mark.parametrize("name", EXACT)
def test_float32_is_the_modules_to_five_digits_and_the_module_is_untouched(subject, package, name, kind) -> None:
    package(PACKAGE[name])
    probe = subject(kind)
    module = probe.model.module
    before, training = state_of(module), [m.training for m in module.modules()]
    hooks = [len(m._forward_hooks) for m in module.modules()]
    versions = Masked(probe).versions(0, 5)
    given = {k: v.clone() for k, v in versions.items()}
    found = built(name, probe)(versions)
    with probe.model.held(), torch.no_grad():
        wanted = probe.model({k: v.clone() for k, v in versions.items()}).float()
    assert found.shape == wanted.shape
    assert found.dtype == torch.float32
    worst = 5e-5 if kind == "hippocampus" else 1e-5  # the worst of a hundred thousand voxels
    assert float((found - wanted).abs().max()) <= worst * float(wanted.abs().max().clamp_min(1))
    assert all(torch.equal(versions[k], given[k]) for k in given)
    after = state_of(module)
    assert all(after[k][:2] == v[:2] and torch.equal(after[k][2], v[2]) for k, v in before.items())
    assert training == [m.training for m in module.modules()]
    assert hooks == [len(m._forward_hooks) for m in module.modules()]


def test_the_eager_engine_is_the_module(subject) -> None:
    probe = subject("fixed-batch")
    engine = eager(probe.model)
    assert (engine.batch, engine.fixed) == (3, True)
    versions = Masked(probe).versions(0, 4)
    assert torch.equal(engine(versions), probe.run(versions).output)


@pytest.mark.parametrize("name", ["eager-bf16", "openvino-bf16"])
@pytest.mark.parametrize("kind", ["small-2d", "small-3d", "fixed-batch"])
def test_bfloat16_has_two_digits_and_the_module_keeps_its_own(subject, package, name, kind) -> None:
    if name in PACKAGE:
        package(PACKAGE[name])
    probe = subject(kind)
    before = {k: v.clone() for k, v in probe.model.module.state_dict().items()}
    try:
        engine = built(name, probe)
    except CannotDo as error:
        pytest.skip(error.problem)
    versions = Masked(probe).versions(0, 5)
    wanted = eager(probe.model)(versions)
    off = float((engine(versions) - wanted).abs().max() / wanted.abs().max())
    assert 0 < off < 0.03
    assert all(v.dtype == torch.float32 for v in probe.model.module.parameters())
    assert all(torch.equal(v, before[k]) for k, v in probe.model.module.state_dict().items())


def test_int8_keeps_the_effects_of_a_trained_network(subject, package) -> None:
    package("nncf")
    probe = subject("nodule")
    engine, masked = built("openvino-int8", probe), Masked(probe)
    effects, wanted = masked.effects(engine).flatten(), masked.effects(eager(probe.model)).flatten()
    r = float(torch.corrcoef(torch.stack([effects, wanted]))[0, 1])
    assert 0.99 < r < 0.999999  # it is int8, and it is good


@pytest.mark.parametrize("name", EXACT)
def test_occlusion_through_an_engine_is_occlusion(subject, package, name) -> None:
    package(PACKAGE[name])
    for kind in ("nodule", "small-3d", "two-images"):
        probe = subject(kind)
        method = Occlusion(window=32, stride=16) if kind == "nodule" else Occlusion()
        before = probe.spent.own
        plain = method(probe).maps
        fast = method(probe.through(built(name, probe))).maps
        cost = method.cost(probe).forwards * probe.batch
        assert probe.spent.own.forwards - before.forwards == 2 * cost
        for key, wanted in plain.items():
            assert float((fast[key] - wanted).abs().max()) <= 1e-4 * float(wanted.abs().max()) + 2e-7


def test_a_stream_through_an_engine_keeps_the_order_of_its_masks(subject, package) -> None:
    package("openvino")
    probe = subject("small-3d")
    keeps = [torch.ones(1, *probe.grid.shape) * step for step in torch.linspace(0, 1, 21)]
    plain = torch.stack(list(Stream(probe).scores(keeps)))
    fast = torch.stack(list(Stream(probe.through(built("openvino", probe))).scores(keeps)))
    assert plain.shape == (21, 2)
    assert torch.allclose(fast, plain, atol=1e-5)
    assert len(plain.unique()) > 40  # the masks and items tell


def test_a_graph_for_a_graphics_card_is_refused_elsewhere(subject) -> None:
    probe = subject("small-2d")
    with pytest.raises(CannotDo, match="graphics card"):
        cuda_graph(Sample(probe.model, probe.inputs, dict))


ALONE = """
import socket, sys
sys.addaudithook(lambda event, args: sys.exit(f"network: {args}") if event.startswith("socket.connect") else None)
import torch
from pellucid.core.model import Model
from pellucid.core.probe import Probe
from pellucid.core.target import ClassScore
from pellucid.engines.choosing import OFFERS
from pellucid.engines.sample import Sample
from pellucid.engines.selfcheck import Masked
net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 3))
probe = Probe(Model(net), torch.rand(1, 1, 8, 8), ClassScore(1))
offer = next(o for o in OFFERS if o.name == "openvino-int8")
offer.build(Sample(probe.model, probe.inputs, Masked(probe).calibration))
print("built", "openvino_telemetry" in sys.modules)
"""


def test_building_reports_nothing_to_anyone(tmp_path: Path, package) -> None:
    package("nncf")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")} | {"HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ALONE], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "built False\n"
    assert not [p for p in tmp_path.rglob("*") if "intel" in p.as_posix().lower()]
