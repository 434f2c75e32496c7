"""How the peers of LRP are judged: by what arrives at the image, and ours by what it leaves unexplained."""

import pytest
import torch

from pellucid.verify.plan import DENSE_3D
from pellucid.verify.relevance import LOSSES, NORMED, RESIDUAL
from pellucid.verify.subjects import prepare


@pytest.mark.parametrize(("arrived", "has"), [(1.0, False), (1.02, False), (2.0, True), (0.0, True)])
def test_what_arrives_in_full_is_no_defect(arrived: float, has: bool) -> None:
    zennit = next(d for d in LOSSES if d.peer == "zennit")
    found = {"sum": torch.tensor([arrived, arrived]), "score": torch.ones(2)}
    assert zennit.theirs(found)[0] is has


@pytest.mark.parametrize("refused", [True, False])
def test_a_map_is_no_refusal(refused: bool) -> None:
    captum = next(d for d in LOSSES if d.peer == "captum")
    assert captum.theirs({"refused": torch.tensor(refused)})[0] is refused


@pytest.mark.parametrize("on", [RESIDUAL, NORMED, DENSE_3D], ids=lambda s: s.network)
def test_ours_keeps_or_tells_all_of_the_score(on) -> None:
    for loss in LOSSES:
        if loss.subject is on:
            right, words = loss.ours(prepare(on))
            assert right, words
