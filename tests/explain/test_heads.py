"""Attention heads switched off: by hand, by each of three doors, alone and together."""

import numpy as np
import pytest
import torch
from monai.networks.nets import ViT
from torch import nn
from torch.nn import functional as F

from pellucid.core.cohort import Cohort, blocks_of
from pellucid.core.errors import BadOption
from pellucid.core.heads import HeadRules, find_attentions
from pellucid.core.model import Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.target import ClassScore
from pellucid.explain.ablation import AblationStudy

HEADS, WIDTH = 4, 16
IMAGES = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Product(nn.Module):
    """Attention by ``F.scaled_dot_product_attention``, or written out."""

    def __init__(self, written):
        super().__init__()
        self.qkv, self.proj, self.written = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), written

    def heads(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        if not self.written:
            return F.scaled_dot_product_attention(q, k, v)
        return ((q @ k.transpose(-2, -1)) / q.shape[-1] ** 0.5).softmax(-1) @ v

    def forward(self, x):
        return self.proj(self.heads(x).transpose(1, 2).flatten(2))


class Multihead(nn.Module):
    """``nn.MultiheadAttention`` as a transformer calls it."""

    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def heads(self, x):
        q, k, v = F.linear(x, self.inner.in_proj_weight, self.inner.in_proj_bias).unflatten(
            -1, (3, HEADS, -1)
        ).permute(2, 0, 3, 1, 4)  # fmt: skip
        return F.scaled_dot_product_attention(q, k, v)

    @property
    def proj(self):
        return self.inner.out_proj

    def forward(self, x):
        return self.inner(x, x, x, need_weights=False)[0]


class Network(nn.Module):
    """Patches, one attention, a mean of a nonlinear function of the tokens."""

    def __init__(self, attention):
        super().__init__()
        self.patch, self.attention, self.last = nn.Conv2d(1, WIDTH, 2, 2), attention, nn.Linear(WIDTH, 2)

    def tail(self, heads):
        """From the heads' outputs to the score."""
        return self.last(torch.tanh(self.attention.proj(heads.transpose(1, 2).flatten(2))).mean(1))[:, 1]

    def tokens(self, x):
        return self.patch(x).flatten(2).transpose(1, 2)

    def forward(self, x):
        return self.last(torch.tanh(self.attention(self.tokens(x))).mean(1))


def posed(net):
    model = Model(net, (InputSpec(rank=2, channels=1),), OutputSpec(labels=("a", "b")))
    return model, Cohort({"image": IMAGES}, ClassScore("b"), blocks_of((8, 8), 2))


@pytest.fixture(params=["product", "written", "multihead"])
def net(request):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Network(Multihead() if request.param == "multihead" else Product(request.param == "written")).eval()


@pytest.mark.parametrize("how", ["zero", "mean", "resample"])
def test_equals_the_second_implementation(net, how, reference):
    model, cohort = posed(net)
    answer = AblationStudy(over="heads", how=how)(model, cohort)
    order = np.random.default_rng(0).permutation(6)
    with torch.no_grad():
        heads = net.attention.heads(net.tokens(IMAGES))
        for head in range(HEADS):
            falls = reference("ablation_study").ablation_study(net.tail, heads, head, how, order)
            name = next(n for n in answer.tables["by case"] if n.endswith(f"head {head}"))
            assert answer.tables["by case"][name] == pytest.approx(list(falls), abs=1e-6)
    assert max(row.more["mean magnitude"] for row in answer.rows) > 1e-3


def test_together_ends_where_all_heads_are_off(net):
    model, cohort = posed(net)
    answer = AblationStudy(over="heads", cumulative=True)(model, cohort)
    curve = answer.tables["curve of the score"]
    with torch.no_grad():
        whole, none = net(IMAGES)[:, 1], net.tail(torch.zeros(6, HEADS, 16, WIDTH // HEADS))
    assert curve["mean"][0] == pytest.approx(float(whole.mean()), abs=1e-6)
    assert curve["mean"][-1] == pytest.approx(float(none.mean()), abs=1e-6)
    assert curve["mean"][1] == pytest.approx(curve["mean"][0] - answer.rows[0].estimate, abs=1e-6)
    assert curve["last"] == ("none", *(row.name for row in answer.rows))
    assert all(low <= mean <= high for low, mean, high in zip(curve["low"], curve["mean"], curve["high"], strict=True))


def test_heads_of_a_vision_transformer_of_monai():
    with torch.random.fork_rng():
        torch.manual_seed(2)
        vit = ViT(1, (16, 16), (8, 8), hidden_size=24, mlp_dim=32, num_layers=2, num_heads=3, classification=True,
                  num_classes=2, spatial_dims=2, post_activation="none").eval()  # fmt: skip
    model = Model(vit, (InputSpec(rank=2, channels=1),), OutputSpec(labels=("a", "b"), head=0))
    images = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(3))
    cohort = Cohort({"image": images}, ClassScore("b"), blocks_of((16, 16), 2))
    answer = AblationStudy(over="heads")(model, cohort)
    assert {row.name for row in answer.rows} == {f"blocks.{b}.attn head {h}" for b in range(2) for h in range(3)}
    by_hand = vit.blocks[1].attn.out_proj.register_forward_pre_hook(
        lambda _, given: (torch.cat([given[0][..., :8], 0 * given[0][..., 8:16], given[0][..., 16:]], -1),)
    )
    with torch.no_grad():
        off = vit(images)[0][:, 1]
        by_hand.remove()
        whole = vit(images)[0][:, 1]
    assert answer.tables["by case"]["blocks.1.attn head 1"] == pytest.approx((whole - off).tolist(), abs=1e-6)
    only = AblationStudy(over="heads", layer="blocks.1")(model, cohort)
    assert len(only.rows) == 3


def test_reading_heads_changes_nothing(net):
    model, _ = posed(net)
    (attention,) = find_attentions(model, {"image": IMAGES[:1]})
    assert attention.heads == HEADS
    assert HeadRules({attention: lambda heads: heads}).finish(IMAGES) is IMAGES


def test_a_network_without_attention_and_a_name_that_is_not_there(net):
    plain = Model(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), (InputSpec(rank=2, channels=1),))
    with pytest.raises(BadOption, match="no attention"):
        AblationStudy(over="heads")(plain, Cohort({"image": IMAGES}, ClassScore(0), blocks_of((8, 8))))
    with pytest.raises(BadOption, match="no attention is named 'heart'"):
        AblationStudy(over="heads", layer="heart")(*posed(net))
