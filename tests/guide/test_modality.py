"""What is known of each modality: complete, readable and usable."""

import pytest
import torch

from pellucid.core.image import Modality
from pellucid.core.infill import Constant
from pellucid.guide.modality import modality_guide


@pytest.mark.parametrize("modality", list(Modality))
def test_every_modality_has_two_different_fills_and_says_which_lie(modality) -> None:
    guide = modality_guide(modality)
    first, second = guide.infills
    assert first != second
    assert len(guide.lies) > 10
    assert guide.noise
    assert guide.source_status in ("verified", "interpreted", "unverified")
    assert guide.watch or modality is Modality.UNKNOWN


@pytest.mark.parametrize("modality", list(Modality))
@pytest.mark.parametrize("rank", [2, 3])
def test_its_fills_fill(modality, rank) -> None:
    x = torch.randn(1, 1, *(14, 12, 10)[:rank], generator=torch.Generator().manual_seed(0))
    for fill in modality_guide(modality).infills:
        made = fill(x, (1.5,) * rank, None)
        assert made.shape == x.shape
        assert not torch.equal(made, x)
        # black looks like disease in every modality: no default is a constant
        assert not isinstance(fill, Constant)
