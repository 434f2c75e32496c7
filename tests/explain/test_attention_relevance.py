"""AttnLRP against the published formulation, and its ledger."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pellucid.core.errors import BadOption, CannotDo
from pellucid.core.model import Model
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe
from pellucid.core.target import ClassScore
from pellucid.explain.attnlrp import AttnLRP
from pellucid.testing import small_model


class Small(nn.Module):
    """One transformer layer over patches, averaged."""

    def __init__(self, bias: bool, explicit: bool) -> None:
        super().__init__()
        self.explicit = explicit
        self.embed = nn.Conv2d(1, 8, 4, 4, bias=bias)
        self.norm1, self.norm2 = nn.LayerNorm(8, bias=bias), nn.LayerNorm(8, bias=bias)
        self.qkv, self.out = nn.Linear(8, 24, bias=bias), nn.Linear(8, 8, bias=bias)
        self.wide, self.narrow = nn.Linear(8, 16, bias=bias), nn.Linear(16, 8, bias=bias)
        self.head = nn.Linear(8, 3, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        t = self.embed(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm1(t)).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        if self.explicit:
            attended = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1) @ v
        else:
            attended = F.scaled_dot_product_attention(q, k, v)
        t = t + self.out(attended.transpose(1, 2).flatten(2))
        t = t + self.narrow(F.gelu(self.wide(self.norm2(t))))
        return self.head(t.mean(1))


def made(bias: bool, explicit: bool = True) -> tuple[nn.Module, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        net = Small(bias, explicit)
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn_like(p) * 0.2)
        return net.eval(), torch.randn(2, 1, 12, 8)


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_map_is_the_published_one(reference, bias, explicit):
    net, x = made(bias, explicit)
    weights = {n: (m.weight.detach(), None if m.bias is None else m.bias.detach()) for n, m in net.named_children()}
    wanted = reference("attn_lrp").relevance(weights, x, 2, 1)
    answer = AttnLRP(epsilon=1e-9)(Probe(Model(net, (InputSpec(),)), x, ClassScore(1)))
    assert torch.allclose(answer.maps["image"], wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("bias", [True, False])
def test_the_ledger_closes(bias):
    net, x = made(bias)
    answer = AttnLRP()(Probe(Model(net, (InputSpec(),)), x, ClassScore(1)))
    arrived = answer.maps["image"].double().flatten(1).sum(1)
    kept = torch.stack(list(answer.ledger.by_cause().values())).sum(0)
    assert torch.allclose(arrived + kept, answer.ledger.start, rtol=1e-3, atol=1e-4)
    causes = {c for c, amount in answer.ledger.by_cause().items() if bool((amount.abs() > 1e-3).any())}
    assert ("bias" in causes) == bias
    assert "softmax" in causes


def test_a_model_without_attention_is_refused():
    model, x, _ = small_model(2, "classification")
    with pytest.raises(CannotDo, match="no attention over tokens"):
        AttnLRP().needs(model, {"image": x})
    with pytest.raises(BadOption, match="above 0"):
        AttnLRP(epsilon=0)
