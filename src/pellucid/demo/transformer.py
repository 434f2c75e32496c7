"""The demo's vision transformer, small and plain, so that methods that read attention have a trained network."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from pellucid.demo.networks import Standardize


class Block(nn.Module):
    """Attention between all tokens, then two linear layers on each; both added to what came in.

    Args:
        width: channels of a token.
        heads: of the attention.
        dropout: share of each branch dropped in training.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens "batch token channel"."""
        q, k, v = self.mixed(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.dropout(self.out(attended.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.narrow(functional.gelu(self.wide(self.norm2(x)))))


class PatchTransformer(nn.Module):
    """One logit from a class token that attends to patches of 4 x 4 pixels of an image of 28 x 28.

    Bad at: anything it was not trained on; with few thousand films a transformer learns less than a convolution.

    Args:
        width: channels of a token.
        depth: blocks.
        heads: of each attention.
        dropout: in training.
    """

    def __init__(self, width: int = 64, depth: int = 4, heads: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        self.standardize = Standardize()
        self.patches = nn.Conv2d(1, width, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, 50, width))
        self.blocks = nn.Sequential(*(Block(width, heads, dropout) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """One logit per image."""
        tokens = self.patches(self.standardize(x)).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1) + self.position
        return self.head(self.norm(self.blocks(tokens)[:, 0]))


def pneumonia_transformer() -> nn.Module:
    """Pneumonia on a child's chest film of 28 x 28 pixels: (B, 1, 28, 28) in [0, 1] to (B, 1) logits."""
    return PatchTransformer().eval()
