"""A weighted linear fit of scores on which players were shown, and how far it can be trusted."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from sklearn.linear_model import Lasso
from torch import Tensor

REPLICATES = 100  # resamples behind each bootstrap interval


@dataclass(frozen=True, eq=False)
class Linear:
    """A fitted line.

    Args:
        effect: of each player.
        constant: of nobody.
    """

    effect: Float[Tensor, " player"]
    constant: Float[Tensor, ""]

    def __call__(self, shown: Float[Tensor, "sample player"]) -> Float[Tensor, " sample"]:
        """The scores it expects."""
        return shown @ self.effect + self.constant


@dataclass(frozen=True, eq=False)
class Samples:
    """What a surrogate is fitted to.

    Args:
        shown: which players, 1 or 0.
        score: of the model.
        weight: of each sample, never negative.
    """

    shown: Float[Tensor, "sample player"]
    score: Float[Tensor, " sample"]
    weight: Float[Tensor, " sample"]

    def fit(self, alpha: float, lasso: bool, times: Tensor | None = None) -> Linear:
        """Ridge (weighted squares plus ``alpha |effect|^2``) or Lasso as scikit-learn scales it, with a free constant.

        Args:
            alpha: of the penalty; 0: least squares (of several solutions the shortest).
            lasso: which penalty.
            times: how often each sample counts; None: once.
        """
        weight = self.weight if times is None else self.weight * times
        if lasso and alpha > 0:
            found = Lasso(alpha).fit(self.shown.numpy(), self.score.numpy(), sample_weight=weight.numpy())
            return Linear(torch.from_numpy(found.coef_), torch.tensor(float(found.intercept_), dtype=torch.float64))
        share = weight / weight.sum()
        middle, mean = share @ self.shown, share @ self.score
        x, y = self.shown - middle, self.score - mean
        square = x.T @ (weight[:, None] * x) + alpha * torch.eye(x.shape[1], dtype=x.dtype)
        toward = x.T @ (weight * y)
        effect = torch.linalg.lstsq(square, toward[:, None], driver="gelsd").solution[:, 0]
        return Linear(effect, mean - middle @ effect)

    def unexplained(self, line: Linear, which: Tensor) -> tuple[float, float]:
        """Weighted squares of what the line leaves, and of the scores about their mean, over some of the samples."""
        w, y = self.weight * which, self.score
        mean = self.weight @ y / self.weight.sum()
        return float(w @ (y - line(self.shown)) ** 2), float(w @ (y - mean) ** 2)

    def r2(self, line: Linear) -> float:
        """Share of the scores' weighted variance that the line describes; 1 where there is none."""
        left, whole = self.unexplained(line, torch.ones_like(self.weight))
        return 1 - left / whole if whole > 0 else 1.0

    def resampled(self, alpha: float, lasso: bool, seed: int) -> tuple[Float[Tensor, "replicate player"], float]:
        """Effects fitted to samples drawn with replacement, and R2 on the samples that each draw left out."""
        generator = torch.Generator().manual_seed(seed)
        count = len(self.score)
        effects, left, whole = [], 0.0, 0.0
        for _ in range(REPLICATES):
            drawn = torch.randint(count, (count,), generator=generator)
            times = torch.bincount(drawn, minlength=count).to(self.score)
            line = self.fit(alpha, lasso, times)
            effects.append(line.effect)
            more = self.unexplained(line, (times == 0).to(self.score))
            left, whole = left + more[0], whole + more[1]
        return torch.stack(effects), 1 - left / whole if whole > 0 else 1.0
