"""Where the tokens of every attention lie in the image, found by sending coordinates through the module.

The image is replaced by the coordinate of each voxel along one axis. Operations that move values move coordinates;
those that mix channels pass the mean on; a residual sum keeps it. So patches, windows, shifts, padding, merging and
class tokens of any module are read off, and nothing is assumed about how the module is written.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from pellucid.core.attention import Lead, plain
from pellucid.core.errors import CannotDo
from pellucid.core.follow import Follow, Place, Seen
from pellucid.core.model import Inputs, Model

_CLOSE = 1e-2  # voxels: coordinates that differ by less are one


@dataclass(frozen=True, eq=False)
class Side:
    """The rows (queries) or columns (keys) of one attention.

    Args:
        levels: coordinate of each cell along each axis, in voxels; empty: not known.
        special: tokens that lie nowhere in the image, such as a class token; they follow the cells.
        cells: "window token" -> number of its cell or special token; -1 only fills up a window.
    """

    levels: tuple[Tensor, ...]
    special: int
    cells: Tensor

    @property
    def grid(self) -> tuple[int, ...]:
        """Cells per axis."""
        return tuple(len(along) for along in self.levels)

    @property
    def size(self) -> int:
        """Cells and special tokens."""
        return (prod(self.grid) if self.levels else 0) + self.special

    def told(self, grid: tuple[int, ...]) -> "Side":
        """With a grid that the reader tells: the last tokens are its cells, row by row; those before are special."""
        special = self.cells.shape[1] - prod(grid)
        cells = (torch.arange(self.cells.shape[1]) - special) % self.cells.shape[1]
        levels = tuple((torch.arange(n) + 0.5) / n for n in grid)
        return Side(levels, special, cells.expand_as(self.cells))


@dataclass(frozen=True, eq=False)
class Attention:
    """One attention of the module.

    Args:
        rows: queries.
        columns: keys.
        lead: of its weights.
        itself: whether queries and keys are the same tokens.
    """

    rows: Side
    columns: Side
    lead: Lead
    itself: bool

    @property
    def placed(self) -> bool:
        """Whether its tokens lie in the image."""
        return bool(self.columns.levels)


def attention_of(model: Model, inputs: Inputs) -> tuple[Attention | None, ...]:
    """Every attention of a model in order, with the places of its tokens; found once per input shape.

    None: a softmax and a product that have nothing to do with the image.

    Raises:
        CannotDo: the model has no attention over tokens, or does not show it.
    """
    model.check(inputs)
    if model.inference is not None:  # what the network sees at once: the first window
        layout = model.inference.of(inputs)
        first = layout.part({k: layout.pad(v) for k, v in inputs.items()}, layout.starts[0])
        return attention_of(model.window, first)
    if not model.can.rules or model.can.batch is not None:
        why = model.can.why.get("rules", "its format hides it")
        raise CannotDo(f"this model does not show its attention: {why}", "load the model as a Python module")
    key = ("attention", *(tuple(v.shape[1:]) for v in inputs.values()))
    if key not in model.findings:
        model.findings[key] = _found(model, inputs)
    found: tuple[Attention | None, ...] = model.findings[key]
    if not any(found):
        raise CannotDo(
            "the model has no attention over tokens (a softmax over keys, times the values)",
            "use a class activation or gradient method, such as GradCAM or IntegratedGradients",
        )
    return found


def _found(model: Model, inputs: Inputs) -> tuple[Attention | None, ...]:
    name = model.primary
    image = inputs[name][:1].to(model.device)
    others = {k: v[:1].to(model.device).expand(image.dim() - 2, *v.shape[1:]) for k, v in inputs.items()}
    with model.held():
        try:
            return find_attention(lambda places: model({**others, name: places}), image)
        except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
            raise CannotDo(
                f"where the model's tokens lie cannot be told: it stumbled over coordinates ({error})",
                "use a class activation or gradient method, such as GradCAM or IntegratedGradients",
            ) from error


def heeded(found: Sequence[Attention | None]) -> tuple[Attention | None, ...]:
    """Those over tokens of the image; None: another, such as one over channels. All, if no place is known at all."""
    any_placed = any(one and one.placed for one in found)
    return tuple(one if one and (one.placed or not any_placed) else None for one in found)


def find_attention(run: Callable[[Tensor], object], image: Tensor) -> tuple[Attention | None, ...]:
    """Every attention of a module in order, with the places of its tokens.

    Args:
        run: the module, as a function of its image; nothing it computes is kept.
        image: one item, "1 channel *space".
    """
    lines = [torch.arange(n, device=image.device, dtype=torch.float32) + 0.5 for n in image.shape[2:]]
    axes = torch.stack(torch.meshgrid(*lines, indexing="ij"))[:, None]  # an item for each axis
    watch = Follow()
    with torch.no_grad(), watch:
        run(axes.expand(-1, image.shape[1], *image.shape[2:]).as_subclass(Place))
    return tuple(_attention(seen, len(axes)) for seen in watch.seen)


def _attention(seen: Seen, rank: int) -> Attention | None:
    """One attention from its coordinates, the axes lying in the batch; None: it has nothing to do with the image."""
    if seen.rows.shape[0] % rank:
        return None
    rows, columns = (
        plain(x).cpu().unflatten(0, (rank, x.shape[0] // rank)).movedim(0, -1) for x in (seen.rows, seen.columns)
    )
    lead = rows.dim() - 2
    both = torch.cat([rows.flatten(lead), columns.flatten(lead)], -1).nan_to_num(-1, -2, -2)
    heads = tuple(axis for axis in range(lead) if bool((both == both.narrow(axis, 0, 1)).all()))
    first = tuple(0 if axis in heads else slice(None) for axis in range(lead))
    itself = rows.shape == columns.shape and torch.allclose(rows, columns, atol=_CLOSE, equal_nan=True)
    row_side, column_side = (_side(x[first].reshape(-1, *x.shape[-2:])) for x in (rows, columns))
    return Attention(row_side, column_side, Lead(len(rows), heads), itself)


def _side(places: Tensor) -> Side:
    """Cells from coordinates "window token axis": those of a regular grid, numbered row by row."""
    filling = torch.isinf(places).any(-1)
    nowhere = torch.isnan(places).any(-1) & ~filling
    inside = ~filling & ~nowhere
    index, levels = torch.zeros(int(inside.sum()), dtype=torch.long), list[Tensor]()
    for along in places[inside].T:
        steps = _levels(along)
        index = index * len(steps) + torch.searchsorted(steps - _CLOSE / 2, along.contiguous(), right=True) - 1
        levels.append(steps)
    count = prod(map(len, levels))
    cells = torch.full(places.shape[:2], -1)
    # one window holds each special token once; several windows would hold copies of it in the same order
    order = nowhere.long().cumsum(1) - 1
    if count < 2 or len(index.unique()) != count:
        cells = torch.arange(places.shape[1]).expand(places.shape[:2])
        return Side((), places.shape[1], cells)
    cells[inside] = index
    cells[nowhere] = order[nowhere] + count
    return Side(tuple(levels), int(order.max()) + 1 if bool(nowhere.any()) else 0, cells)


def _levels(along: Tensor) -> Tensor:
    """The different coordinates along an axis, in order."""
    ordered = along.sort().values
    if not len(ordered):
        return ordered
    new = torch.cat([torch.ones(1, dtype=torch.bool), ordered.diff() > _CLOSE])
    return ordered[new]
