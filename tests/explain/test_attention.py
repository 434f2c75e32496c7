"""RawAttention, AttentionRollout and GradientAttentionRollout on vision transformers, against dense matrices."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.networks.nets import UNETR, ViT
from torch import nn
from torch.nn import functional as F

from pellucid.core.errors import BadOption, CannotDo
from pellucid.core.model import Abilities, Model, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.core.probe import Probe, Scene
from pellucid.core.space import resize
from pellucid.core.target import ClassScore, RegionScore
from pellucid.core.tokens import Side, attention_of
from pellucid.explain.attention import RawAttention, origin
from pellucid.explain.flow import carried, stepped
from pellucid.explain.rollout import AttentionRollout, GradientAttentionRollout
from pellucid.testing import small_model


def vit(rank: int = 2, **more: object) -> tuple[Model, torch.Tensor]:
    """A small ViT of MONAI with a class token, and two images."""
    side = (32, 48, 32)[:rank]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = ViT(1, side, 16, 24, 32, 3, 2, classification=True, spatial_dims=rank, post_activation="none", **more)
        with torch.no_grad():
            for p in net.parameters():  # larger weights, so that attention is not uniform
                p.add_(torch.randn_like(p) * 0.3)
        x = torch.randn(2, 1, *side)
    return Model(net.double().eval(), (InputSpec(rank=rank),), OutputSpec(head=0)), x.double()


def opened(method, model, x, target=None, scene=None):
    return Probe(model, x, target or ClassScore(1), method.needs(model, {"image": x}), scene)


def captured(net, x, label, score=None):
    """Weights and gradients of every block of MONAI's ViT, by its own hooks."""
    kept = []
    hooks = [
        m.register_forward_hook(lambda _m, _a, o: kept.append(o)) for n, m in net.named_modules() if "drop_weights" in n
    ]
    out = net(x)[0][:, label].sum() if score is None else score(net(x))
    for hook in hooks:
        hook.remove()
    return kept, torch.autograd.grad(out, kept)


def shown(cells, grid, x):
    """Cells as they are drawn on the image."""
    return resize(torch.as_tensor(cells).reshape(-1, 1, *grid), x.shape[2:])


@pytest.mark.parametrize("rank", [2, 3])
def test_maps_equal_dense_matrices(reference, rank):
    model, x = vit(rank)
    weights, gradients = captured(model.module, x, 1)
    start = np.eye(weights[0].shape[-1])[0]  # the class token
    for item in range(2):
        each = [(w[item].detach().numpy(), g[item].numpy()) for w, g in zip(weights, gradients, strict=True)]
        wanted = {
            RawAttention(): reference("raw_attention").seen_from(each[-1][0], start),
            RawAttention(block=1): reference("raw_attention").seen_from(each[0][0], start),
            AttentionRollout(): reference("attention_rollout").rollout([w.mean(0) for w, _ in each], start),
            GradientAttentionRollout(): reference("gradient_attention_rollout").relevancy(each, start),
            GradientAttentionRollout(normalized=True): reference("gradient_attention_rollout").relevancy(
                each, start, True
            ),
        }
        for method, values in wanted.items():
            answer = method(opened(method, model, x))
            wanted_map = shown(values[1:], (2, 3, 2)[:rank], x)[0]
            assert torch.allclose(answer.maps["image"][item], wanted_map, rtol=0, atol=1e-6 * values.max()), method
            assert answer.cell == (16.0,) * rank


def test_shares_of_all_tokens_sum_to_one():
    model, x = vit()
    method = AttentionRollout()
    probe = opened(method, model, x)
    method(probe)
    found = method.attentions(model, {"image": x})
    state = torch.rand(2, found[0].rows.size, dtype=torch.float64)
    state /= state.sum(1, keepdim=True)
    for one, weights in zip(found, probe.attention.weights, strict=True):
        assert torch.allclose(weights.sum(-1), torch.ones(2, 1, 7, dtype=torch.float64))
        assert torch.allclose(stepped(state, one, weights).sum(1), torch.ones(2, dtype=torch.float64))


class Given(nn.Module):
    """Attention fixed by hand: every token is its patch's mean, mixed by given logits."""

    def __init__(self, logits: torch.Tensor, times: int = 1) -> None:
        super().__init__()
        self.logits, self.times = nn.Parameter(logits), times
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        v = F.avg_pool2d(x * self.scale, 4).flatten(2).transpose(1, 2)[:, None].expand(-1, len(self.logits), -1, -1)
        for _ in range(self.times):
            q = torch.cat([v, torch.ones_like(v)], -1)[..., :1] * 0  # logits have the places of their queries
            v = v + torch.softmax(q + self.logits, -1) @ v
        return v.mean(1)[:, 0]


def given(logits: torch.Tensor, times: int = 1) -> tuple[Model, torch.Tensor]:
    return Model(Given(logits, times), (InputSpec(),)), torch.rand(
        1, 1, 8, 8, generator=torch.Generator().manual_seed(0)
    )


def test_uniform_attention_gives_uniform_raw_map():
    model, x = given(torch.zeros(2, 4, 4))
    method = RawAttention()
    assert torch.allclose(method(opened(method, model, x, ClassScore(0))).maps["image"], torch.tensor(0.25))


def test_uniform_rollout_in_closed_form():
    model, x = given(torch.zeros(2, 4, 4), times=3)
    method = AttentionRollout()
    found = method(opened(method, model, x, ClassScore(0))).maps["image"]
    # from token 0: what was kept three times, and the rest spread evenly
    rest = (1 - 1 / 8) / 4
    assert torch.allclose(found, shown([1 / 8 + rest, rest, rest, rest], (2, 2), x))


def test_one_layer_of_gradient_rollout_is_identity_plus_evidence():
    draw = torch.Generator().manual_seed(4)
    model, x = given(torch.randn(2, 4, 4, generator=draw))
    method = GradientAttentionRollout()
    found = method(opened(method, model, x, ClassScore(0))).maps["image"]
    weights = model.module.logits.detach().softmax(-1)
    patches = F.avg_pool2d(x, 4).flatten()
    # the score is token 0 of v + A v, averaged over heads: its gradient to A[h, 0] is v / heads
    evidence = (weights[:, 0] * patches / 2).relu().mean(0)
    assert torch.allclose(found, shown(torch.tensor([1.0, 0, 0, 0]) + evidence, (2, 2), x), atol=1e-6)


def test_no_gradient_leaves_the_identity():
    class Cut(Given):
        def forward(self, x):
            v = super().forward(x)
            return v * 0 + F.avg_pool2d(x, 4).flatten(1)[:, :1]

    model = Model(Cut(torch.zeros(2, 4, 4)), (InputSpec(),))
    x = torch.rand(1, 1, 8, 8)
    method = GradientAttentionRollout()
    answer = method(opened(method, model, x, ClassScore(0)))
    assert not answer.maps["image"].any()
    assert "depends on no token" in answer.warnings[0]


@pytest.mark.parametrize("flash", [False, True])
def test_kernels_that_keep_no_weights_give_the_same(flash):
    plain, x = vit()
    model, _ = vit()
    for block in model.module.blocks:
        block.attn.use_flash_attention = flash
    for method in (AttentionRollout(), GradientAttentionRollout()):
        probe = opened(method, model, x)
        assert torch.allclose(method(probe).maps["image"], method(opened(method, plain, x)).maps["image"], atol=1e-10)
        assert torch.allclose(probe.output, model.module(x)[0])


class Encoder(nn.Module):
    """torch's own transformer, whose fast path hides the weights."""

    def __init__(self, batch_first: bool, norm_first: bool) -> None:
        super().__init__()
        self.first = batch_first
        self.embed = nn.Conv2d(1, 8, 4, 4)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first, norm_first=norm_first)
        self.encode = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = self.encode(x if self.first else x.transpose(0, 1))
        return self.head((x if self.first else x.transpose(0, 1)).mean(1))


@pytest.mark.parametrize(("batch_first", "norm_first"), [(True, True), (False, False)])
def test_weights_of_the_multihead_module(batch_first, norm_first):
    torch.manual_seed(0)
    net = Encoder(batch_first, norm_first).eval()
    x = torch.randn(3, 1, 8, 12)
    model, method = Model(net, (InputSpec(),)), GradientAttentionRollout()
    probe = opened(method, model, x)
    answer = method(probe)
    assert torch.allclose(probe.output, net(x), atol=1e-6)
    assert answer.cell == (4.0, 4.0)
    y = net.embed(x).flatten(2).transpose(1, 2)
    first = net.encode.layers[0]
    given = first.norm1(y) if norm_first else y
    given = given if batch_first else given.transpose(0, 1)
    told = first.self_attn(given, given, given)[1]
    assert torch.allclose(probe.attention.weights[0][:, 0], told, atol=1e-6)


def test_multihead_masks_and_extra_tokens_change_nothing():
    torch.manual_seed(0)
    mha = nn.MultiheadAttention(8, 2, add_bias_kv=True, add_zero_attn=True, kdim=6, vdim=5, batch_first=True).eval()
    q, k, v = torch.randn(2, 4, 8), torch.randn(2, 5, 6), torch.randn(2, 5, 5)
    causal = torch.ones(4, 5, dtype=torch.bool).triu(2)
    padding = torch.tensor([[False] * 5, [False] * 4 + [True]])
    from pellucid.core.attention import Capture, Lead

    whole = mha(q, k, v, attn_mask=causal, key_padding_mask=padding)
    with torch.no_grad(), Capture([Lead(1, (1,))], differentiate=False):
        out = mha(q, k, v, attn_mask=causal, key_padding_mask=padding)
        alone = mha(q[0], k[0], v[0], need_weights=False)
    assert torch.allclose(out[0], whole[0], atol=1e-6)
    assert torch.allclose(out[1], whole[1], atol=1e-6)
    assert torch.allclose(alone[0], mha(q[0], k[0], v[0])[0], atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"scale": 0.3},
        {"attn_mask": torch.ones(5, 5).tril()},
        {"attn_mask": torch.ones(5, 5, dtype=torch.bool).tril()},
    ],
)
def test_explicit_product_equals_torchs(options):
    from pellucid.core.attention import scaled_dot_product

    q, k, v = torch.randn(3, 2, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(
        scaled_dot_product(q, k, v, **options), F.scaled_dot_product_attention(q, k, v, **options), atol=1e-6
    )
    grouped = scaled_dot_product(q, k[:, :2], v[:, :2], enable_gqa=True)
    assert torch.allclose(grouped, F.scaled_dot_product_attention(q, k[:, :2], v[:, :2], enable_gqa=True), atol=1e-6)


def test_segmentation_starts_where_the_target_needs_it():
    torch.manual_seed(0)
    net = UNETR(1, 2, (32, 32, 48), 4, 24, 32, 2).eval()
    model = Model(net, (InputSpec(rank=3),), OutputSpec("segmentation"))
    x, box = torch.randn(1, 1, 32, 32, 48), torch.zeros(32, 32, 48, dtype=torch.bool)
    box[:16, :16, :16] = True
    for method in (RawAttention(), AttentionRollout(), GradientAttentionRollout()):
        answer = method(opened(method, model, x, RegionScore(1, "box"), Scene(regions={"box": box})))
        assert answer.maps["image"].shape == x.shape
        assert answer.cell == (16.0, 16.0, 16.0)
    probe = opened(RawAttention(), model, x, RegionScore(1, "box"), Scene(regions={"box": box}))
    start = origin(probe, attention_of(model, {"image": x})[-1])
    assert torch.allclose(start.sum(), torch.tensor(1.0))
    assert start.max() > 1.5 * start.min()


def test_model_without_attention_is_refused():
    model, x, _ = small_model(2, "classification")
    with pytest.raises(CannotDo, match=r"no attention over tokens .* GradCAM"):
        AttentionRollout().needs(model, {"image": x})


def test_patches_that_a_module_hides_need_a_grid():
    class Hidden(Encoder):
        def forward(self, x):
            y = torch.fft.fft2(self.embed(x)).real.flatten(2).transpose(1, 2)  # every value lies everywhere
            return self.head(self.encode(y).mean(1))

    torch.manual_seed(0)
    model, x = Model(Hidden(True, True).eval(), (InputSpec(),)), torch.randn(1, 1, 8, 12)
    with pytest.raises(CannotDo, match=r"6 tokens .* cannot be told.*grid=ROWSxCOLUMNS"):
        AttentionRollout().needs(model, {"image": x})
    told = AttentionRollout(grid="2x3")
    assert told(opened(told, model, x)).cell == (4.0, 4.0)
    for wrong in ("3x3", "6", "2x1x3"):
        with pytest.raises(BadOption, match="does not fit 6 tokens"):
            AttentionRollout(grid=wrong).needs(model, {"image": x})
    with pytest.raises(BadOption, match="such as 14x14"):
        AttentionRollout(grid="a lot")
    with pytest.raises(BadOption, match="3 attention layers"):
        RawAttention(block=4).needs(*(vit()[0], {"image": vit()[1]}))


def test_pooling_by_attention_moves_everything_to_the_image():
    class Pooled(Encoder):
        def __init__(self):
            super().__init__(True, True)
            self.query = nn.Parameter(torch.randn(1, 1, 8))
            self.pool = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            y = self.encode(self.embed(x).flatten(2).transpose(1, 2))
            return self.head(self.pool(self.query.expand(len(x), -1, -1), y, y)[0][:, 0])

    torch.manual_seed(0)
    model, x = Model(Pooled().eval(), (InputSpec(),)), torch.randn(2, 1, 8, 12)
    *_, last = attention_of(model, {"image": x})
    assert (last.itself, last.rows.size, last.columns.grid) == (False, 1, (2, 3))
    method = AttentionRollout()
    mean = method(opened(method, model, x)).maps["image"].flatten(1).mean(1)
    assert torch.allclose(mean, torch.full((2,), 1 / 6), rtol=0.01)  # up to the upsampling at the borders


def test_state_is_carried_between_grids():
    fine = Side((torch.arange(7) + 0.5,), 1, torch.arange(8)[None])
    coarse = Side((torch.tensor([1.0, 3.0, 5.0, 6.5]),), 1, torch.arange(5)[None])
    state = torch.tensor([[1.0, 0, 0, 2.0, 0.5]])
    assert torch.allclose(carried(state, coarse, fine), torch.tensor([[0.5, 0.5, 0, 0, 0, 0, 2.0, 0.5]]))
    back = carried(torch.tensor([[1.0, 0, 0, 0, 0, 0, 1.0, 3.0]]), fine, coarse)
    assert torch.allclose(back.sum(), torch.tensor(5.0))
    assert torch.allclose(back[0, [0, 3, 4]], torch.tensor([1.0, 1.0, 3.0]))


def test_half_precision_is_close():
    model, x = vit()
    method = GradientAttentionRollout()
    single = Model(model.module.float(), model.inputs, model.output)
    needs = method.needs(single, {"image": x.float()})
    full = method(Probe(single, x.float(), ClassScore(1), needs)).maps["image"]
    half = method(Probe(single, x.float(), ClassScore(1), needs, precision="bfloat16")).maps["image"]
    assert half.dtype == torch.float32
    assert float((half - full).abs().max() / full.max()) < 0.1


def test_a_format_without_operations_does_not_show_its_attention():
    model, x = vit()
    sealed = replace(model, can=Abilities(rules=False, why={"rules": "TorchScript holds no operations of torch"}))
    with pytest.raises(CannotDo, match="does not show its attention: TorchScript"):
        AttentionRollout().needs(sealed, {"image": x})
    with pytest.raises(CannotDo, match="does not show its attention"):
        AttentionRollout().needs(replace(model, can=Abilities(batch=1)), {"image": x})


def test_a_module_that_stumbles_over_coordinates_is_refused():
    class Strict(Encoder):
        def forward(self, x):
            if len(x) > 2:
                raise ValueError("two items at most")
            return super().forward(x)

    with pytest.raises(CannotDo, match=r"stumbled over coordinates \(two items at most"):
        AttentionRollout().needs(Model(Strict(True, True), (InputSpec(rank=3),)), {"image": torch.zeros(1, 1, 8, 8, 8)})


def test_attention_over_channels_is_left_out():
    class Crossed(Encoder):
        def forward(self, x):
            y = self.embed(x).flatten(2)
            y = y + (y @ y.transpose(1, 2)).softmax(-1) @ y  # channels attend to channels
            return self.head(self.encode(y.transpose(1, 2)).mean(1))

    torch.manual_seed(0)
    model, x = Model(Crossed(True, True).eval(), (InputSpec(),)), torch.randn(2, 1, 8, 12)
    assert [bool(one) and one.placed for one in attention_of(model, {"image": x})] == [False, True, True]
    method = GradientAttentionRollout()
    probe = opened(method, model, x)
    assert method(probe).cell == (4.0, 4.0)
    assert [w.shape[-1] for w in probe.attention.weights] == [6, 6]
