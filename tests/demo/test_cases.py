"""The demo's cases: from installed packages alone, of several modalities, with what each picture must carry."""

import tomllib
from pathlib import Path

import pytest
import torch

from pellucid.audit.log import AuditLog
from pellucid.cli.demo import _request
from pellucid.core.errors import UnreadableImage
from pellucid.core.image import Modality
from pellucid.demo.cases import MODELS, packaged
from pellucid.demo.expert import expert_cases
from pellucid.io.models import load_model
from pellucid.workbench.delivery import checked, deliver
from pellucid.workbench.recording import Recorder
from pellucid.workbench.registry import make_explainer, make_metric


@pytest.fixture(scope="module")
def cases() -> dict:
    return {one.case.name: one for one in packaged()}


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(AuditLog(tmp_path / "audit.jsonl", actor="test", role="test"))


def test_three_modalities_and_exact_truth(cases: dict) -> None:
    images = {name: next(iter(one.case.images.values())) for name, one in cases.items()}
    assert {i.modality for i in images.values()} == {Modality.FUNDUS, Modality.MRI, Modality.XRAY}
    planted = [one for one in cases.values() if "nodule" in one.case.regions]
    assert len(planted) == 2
    for one in planted:
        assert any("PLANTED" in note for note in one.case.notes)
        assert one.case.regions["nodule"].source == "planted"
    pair = images["planted-nodule-upper-image-left"].data - images["nothing-planted"].data
    mask = cases["planted-nodule-upper-image-left"].case.regions["nodule"].mask
    assert bool((pair[0] >= -1e-6).all())
    assert bool((pair[0][mask] > 0.5 * 0.15 - 1e-6).all()), "the mask is where more than half of the contrast was added"


def test_every_method_and_metric_named_exists(cases: dict) -> None:
    for one in cases.values():
        assert {make_explainer(m).name for m in one.methods} == {
            "Occlusion", "IntegratedGradients", "HiResCAM", "GradCAM", "InputXGradient", "Saliency",
        }  # fmt: skip
        assert all(make_metric(m) for m in one.metrics)


@pytest.mark.parametrize("name", ["vessels", "hippocampus", "pneumonia", "nodule"])
def test_models_keep_their_promises_and_state_what_was_measured(name: str) -> None:
    loaded = load_model(MODELS / name / "model.toml")
    assert all(r.passed for r in checked(loaded).golden)
    assert loaded.trust == "not needed"
    assert loaded.card is not None
    assert loaded.card.performance
    for row in loaded.card.performance:
        assert row.low <= row.value <= row.high
        assert row.n > 0
    assert loaded.references, "the demo's maps have a fixed scale"


@pytest.mark.parametrize("name", ["hippocampus", "pneumonia", "nodule"])
def test_cards_say_what_training_measured(name: str) -> None:
    import json

    card = tomllib.loads((MODELS / name / "model.toml").read_text())
    results = (Path(__file__).resolve().parents[2] / "training" / "results" / f"{name}.json").read_text()
    test = json.loads(results)["shipped"]["test"]
    first = card["performance"][0]
    measured = test["anterior"] if name == "hippocampus" else test["auc"]
    assert (first["value"], first["low"], first["high"]) == (measured["value"], measured["low"], measured["high"])
    assert card["model"]["sha256"] == json.loads(results)["weights"]["sha256"]


def test_nothing_planted_is_below_the_operating_point_and_shows_no_map(
    cases: dict, recorder: Recorder, tmp_path: Path
) -> None:
    one = cases["nothing-planted"]
    model = checked(load_model(MODELS / one.model / "model.toml"))
    request = _request(one, 0)
    quick = type(request)(targets=request.targets, methods=(make_explainer("HiResCAM"),))
    done = deliver(one.case, model, quick, tmp_path, recorder)
    said = done.panel.explanations[0].prediction
    assert said is not None
    assert said.below_threshold
    page = done.files["report"].read_text()
    assert "score below threshold" in page


def test_planted_nodule_is_found_and_scored_against_its_exact_mask(
    cases: dict, recorder: Recorder, tmp_path: Path
) -> None:
    one = cases["planted-nodule-upper-image-left"]
    model = checked(load_model(MODELS / one.model / "model.toml"))
    request = _request(one, 0)
    quick = type(request)(
        targets=request.targets,
        methods=(make_explainer("HiResCAM"),),
        metrics=(make_metric("HitRate"), make_metric("Dice")),
    )
    done = deliver(one.case, model, quick, tmp_path, recorder)
    values = {s.metric.name: s.value for s in done.scores}
    assert values["HitRate"] == 1
    assert values["Dice"] > 0.5
    assert "PLANTED" in done.files["report"].read_text()


def test_expert_cases_come_with_masks_of_patients_held_out(shared_data: Path) -> None:
    found = {one.case.name: one for one in expert_cases(shared_data)}
    assert set(found) == {"expert-vessels", "expert-hippocampus"}
    for one in found.values():
        region = next(iter(one.case.regions.values()))
        assert region.source == "expert"
        assert 0 < float(region.mask.float().mean()) < 0.5
        assert torch.is_tensor(region.mask)


def test_a_folder_without_the_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="give the folder"):
        list(expert_cases(tmp_path))
