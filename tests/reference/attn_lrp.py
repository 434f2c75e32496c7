"""AttnLRP (Achtibat et al. 2024) for one small ViT, as gradient times input of a forward with constants in its place.

Dividing by a sum and multiplying by it again leaves a gradient: epsilon 0 is the plain gradient of a linear layer; a
product of two computed matrices hands half a gradient to each; LayerNorm's deviation is a constant; a function of one
value has the slope output / input; the softmax keeps its own derivative.
"""

import torch
from torch.nn import functional as F


def half(x):
    """The same value with half the slope."""
    return x / 2 + (x / 2).detach()


def proportional(y, x):
    """``y`` with the slope y / x."""
    return x * (y / x).detach()


def norm(x, weight, bias):
    """LayerNorm whose deviation is constant."""
    centered = x - x.mean(-1, keepdim=True)
    deviation = (centered.square().mean(-1, keepdim=True) + 1e-5).sqrt().detach()
    y = centered / deviation * weight
    return y if bias is None else y + bias


def relevance(weights, x, heads, label):
    """Relevance of each pixel.

    Args:
        weights: by name: embed, norm1, qkv, out, norm2, wide, narrow, head, as (weight, bias or None).
        x: "batch 1 row column".
        heads: of the attention.
        label: explained class.
    """
    x = x.clone().requires_grad_()
    t = F.conv2d(x, *weights["embed"], stride=weights["embed"][0].shape[-1]).flatten(2).transpose(1, 2)
    q, k, v = F.linear(norm(t, *weights["norm1"]), *weights["qkv"]).unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    logits = half(q) @ half(k).transpose(2, 3) / q.shape[-1] ** 0.5
    attended = half(logits.softmax(-1)) @ half(v)
    t = t + F.linear(attended.transpose(1, 2).flatten(2), *weights["out"])
    wide = F.linear(norm(t, *weights["norm2"]), *weights["wide"])
    t = t + F.linear(proportional(F.gelu(wide), wide), *weights["narrow"])
    score = F.linear(t.mean(1), *weights["head"])[:, label].sum()
    return torch.autograd.grad(score, x)[0] * x.detach()
