"""The choice: what errs is refused, what fails is explained, what does not repay is left out, and eager remains."""

import sys
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from pellucid.core.engine import Engine
from pellucid.core.errors import MissingExtra, UnknownName
from pellucid.core.probe import Probe
from pellucid.core.target import ClassScore
from pellucid.engines import choosing
from pellucid.engines.choosing import AUTOMATIC, OFFERS, Offer, choose_engine, measure_engines
from pellucid.engines.selfcheck import CALIBRATION, COHORT, FORWARDS, Limit, Masked, deviation

EXACT = Limit(0.9999, 1e-4)


@dataclass(frozen=True, eq=False)
class Copy(Engine):
    """The module's numbers, scaled, with noise of a standard deviation."""

    name: str = "planted"
    precision: str = "planted"
    batch: int = 8
    model: Any = None
    error: float = 0.0
    scale: float = 1.0

    def _run(self, inputs):
        with self.model.held():
            out = self.model({k: v.clone() for k, v in inputs.items()})
        draws = torch.Generator().manual_seed(int(1e6 * float(out.abs().sum())) % 2**31)
        return self.scale * out + self.error * torch.randn(out.shape, generator=draws)


def offer(build, limit=EXACT, share=0.5, seconds=0.0, name="planted"):
    return Offer(name, "cpu", limit, build, share, seconds)


def planted(error=0.0, scale=1.0):
    return offer(lambda sample: Copy(model=sample.model, error=error, scale=scale))


def failing(sample):
    raise RuntimeError("\n  no rule for aten::nothing\nand a long trace")


def test_deviation_has_its_closed_form() -> None:
    reference = torch.tensor([[[1.0], [3.0]]], dtype=torch.float64)  # standard deviation 1
    assert deviation(reference, reference) == (0.0, 1.0)
    error, r = deviation(reference + 0.5, reference)
    assert (error, r) == (pytest.approx(0.5), pytest.approx(1.0))
    error, r = deviation(-reference, reference)
    assert r == pytest.approx(-1.0)
    flat = torch.ones(1, 4, 1, dtype=torch.float64)
    assert deviation(flat + 1, flat) == (float("inf"), 0.0)


def test_the_worst_target_counts() -> None:
    good = torch.randn(16, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    reference, found = torch.stack([good, good]), torch.stack([good, good.flip(0)])
    assert deviation(found, reference)[1] < 0.9


def test_an_exact_engine_passes_and_is_described(subject) -> None:
    engine, report = choose_engine(subject("small-2d"), ["planted"], offers=(planted(),))
    assert isinstance(engine, Copy)
    assert (report.name, report.effect_error, report.refused) == ("planted", 0.0, ())
    assert report.r == pytest.approx(1.0)
    assert report.ms_each is not None
    assert engine.batch == report.batch


@pytest.mark.parametrize("lossy", [planted(error=0.1), planted(scale=1.01), planted(error=float("nan"))])
def test_a_lossy_engine_is_refused_with_its_figures(subject, lossy) -> None:
    probe = subject("small-2d")
    engine, report = choose_engine(probe, ["planted"], offers=(lossy,))
    assert engine is None
    assert report.name == "eager"
    (name, why), *rest = report.refused
    assert not rest
    assert name == "planted"
    assert "it errs: effect error" in why
    assert "limits 0.01%" in why


def test_an_engine_is_judged_for_every_target(subject) -> None:
    probe = subject("small-2d")

    class Spoiled(Copy):
        def _run(self, inputs):
            out = super()._run(inputs)
            out[:, 2] = out[:, 2].flip(0)
            return out

    spoiled = offer(lambda sample: Spoiled(model=sample.model))
    assert choose_engine(probe, ["planted"], offers=(spoiled,))[0] is not None
    choosing._built.clear()
    both = Probe(probe.model, probe.inputs, [ClassScore(1), ClassScore(2)])
    assert choose_engine(both, ["planted"], offers=(spoiled,))[0] is None


def test_a_failed_export_falls_back_with_the_reason(subject) -> None:
    engine, report = choose_engine(subject("small-2d"), ["planted"], offers=(offer(failing),))
    assert engine is None
    assert report.refused == (("planted", "RuntimeError: no rule for aten::nothing"),)


def test_a_network_that_no_exporter_takes_is_still_explained(package) -> None:
    package("openvino")

    class Odd(torch.nn.Module):
        def __deepcopy__(self, memo):
            raise TypeError("this network cannot be copied")

        def forward(self, x):
            return torch.stack([x.flatten(1).sum(1), x.flatten(1).amax(1)], 1)

    from pellucid.core.model import Model

    probe = Probe(Model(Odd()), torch.rand(1, 1, 8, 8), ClassScore(1))
    rows, refused = measure_engines(probe)
    assert [r.name for r in rows] == ["eager"]
    reasons = dict(refused)
    assert "cannot be copied" in reasons["openvino"]
    assert "cannot be copied" in reasons["eager-bf16"] or "bfloat16" in reasons["eager-bf16"]


def test_a_few_forwards_are_made_by_the_module_without_a_measurement(subject) -> None:
    probe = subject("small-2d")
    before = probe.spent.checks
    engine, report = choose_engine(probe, AUTOMATIC, budget=2 * FORWARDS)
    assert engine is None
    assert report.ms_each is None
    assert probe.spent.checks == before
    assert all("would not repay" in why for _, why in report.refused)


def test_what_would_not_repay_its_building_is_not_built(subject) -> None:
    def never(sample):
        raise AssertionError("built")

    engine, report = choose_engine(subject("small-2d"), ["eager", "planted"], 1000, (offer(never, seconds=1e6),))
    assert engine is None
    assert "1000 forwards would not repay building it" in report.refused[0][1]


def test_with_eager_among_them_a_slower_engine_loses(subject) -> None:
    class Slow(Copy):
        def _run(self, inputs):
            for _ in range(200):
                super()._run(inputs)
            return super()._run(inputs)

    slow = offer(lambda sample: Slow(model=sample.model))
    engine, report = choose_engine(subject("small-2d"), ["eager", "planted"], offers=(slow,))
    assert engine is None
    assert report.name == "eager"
    assert "slower" in dict(report.refused)["planted"]


def test_an_engine_is_built_once_for_a_model_and_shape(subject) -> None:
    probe, count = subject("small-2d"), []

    def build(sample):
        count.append(sample)
        return Copy(model=sample.model)

    for _ in range(3):
        choose_engine(probe, ["planted"], offers=(offer(build),))
    assert len(count) == 1
    wider = Probe(probe.model, torch.rand(1, 1, 24, 32), ClassScore(1))
    choose_engine(wider, ["planted"], offers=(offer(build),))
    assert len(count) == 2


@pytest.mark.parametrize(
    ("name", "package_name", "extra"), [("openvino", "openvino", "openvino"), ("onnx", "onnxruntime", "onnx")]
)
def test_a_missing_package_is_named_with_its_mend(subject, monkeypatch, name, package_name, extra) -> None:
    monkeypatch.setitem(sys.modules, package_name, None)
    probe = subject("small-2d")
    with pytest.raises(MissingExtra, match=rf"pip install 'pellucid\[{extra}\]'"):
        choose_engine(probe, [name])
    reasons = dict(choose_engine(probe, ["eager", name])[1].refused)
    assert f"pellucid[{extra}]" in reasons[name]


def test_an_unknown_engine_is_refused(subject) -> None:
    with pytest.raises(UnknownName, match="engines: eager, cuda, openvino-int8"):
        choose_engine(subject("small-2d"), ["warp"])


def test_the_masks_are_those_of_the_seed_and_the_calibration_has_others(subject) -> None:
    masked = Masked(subject("small-2d"))
    again = Masked(subject("small-2d"))
    assert torch.equal(masked.versions(0, 20)["image"], again.versions(0, 20)["image"])
    assert torch.equal(masked.versions(16, 1)["image"], masked.versions(0, 1)["image"])
    compared, calibration = masked.versions(0, 16)["image"], masked.calibration()["image"]
    assert not any(torch.equal(c, v) for c in calibration for v in compared)


def test_calibration_is_made_of_real_cases_where_there_are_some(subject) -> None:
    probe = subject("small-2d")
    alone = Masked(probe).calibration()["image"]
    assert len(alone) == 1 + 2 * CALIBRATION  # the image, and its masked copies with either fill
    assert torch.equal(alone[:1], probe.inputs["image"])
    cohort = torch.rand(30, 1, 24, 30, generator=torch.Generator().manual_seed(5)) + 10
    scene = replace(probe.scene, background={"image": cohort})
    found = Masked(Probe(probe.model, probe.inputs, ClassScore(1), scene=scene)).calibration()["image"]
    assert found.shape == (2 * COHORT, 1, 24, 30)
    whole, masked = found.split(COHORT)
    assert all(any(torch.equal(x, y) for y in cohort) for x in whole)
    assert len({float(x.sum()) for x in whole}) == COHORT
    shown = (masked == whole).flatten(1).float().mean(1)
    assert bool(((shown > 0) & (shown < 0.5)).all())  # soft masks: little is shown as it is


def test_an_engine_is_built_anew_when_a_cohort_is_at_hand(subject) -> None:
    probe, count = subject("small-2d"), []

    def build(sample):
        count.append(len(sample.calibration()["image"]))
        return Copy(model=sample.model)

    scene = replace(probe.scene, background={"image": torch.rand(3, 1, 24, 30)})
    more = Probe(probe.model, probe.inputs, ClassScore(1), scene=scene)
    for given in (probe, more, more):
        choose_engine(given, ["planted"], offers=(offer(build),))
    assert count == [1 + 2 * CALIBRATION, 6]


def test_every_engine_of_this_machine_is_measured_on_a_trained_network(subject, package) -> None:
    package("openvino")
    package("onnxruntime")
    rows, refused = measure_engines(subject("nodule"))
    names = [r.name for r in rows]
    assert {"eager", "openvino", "onnx"} <= set(names)
    assert {*names, *dict(refused)} == {"eager", *(o.name for o in OFFERS)}
    assert all(r.effect_error <= 1e-4 for r in rows if r.name in ("openvino", "onnx"))
    assert "for models on cuda" in dict(refused)["cuda"]
