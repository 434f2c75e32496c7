"""Full-gradient representation after Srinivas and Fleuret (2019): S = <g, x> + sum over layers of <g_b, b>.

What a layer adds is its output where its input is zero; what the score makes of it is found by adding a little to one
cell of the layer's output at a time (central differences). Nothing is differentiated automatically.
"""

import torch


def slopes(score, x, step=1e-6):
    """dS/dx of one item by central differences; ``score`` takes any batch."""
    out = torch.zeros(x.numel(), dtype=torch.float64)
    for first in range(0, x.numel(), 512):
        index = torch.arange(first, min(first + 512, x.numel()))
        bump = torch.zeros(len(index), x.numel(), dtype=x.dtype)
        bump[torch.arange(len(index)), index] = step
        bump = bump.view(len(index), *x.shape[1:])
        out[index] = (score(bump) - score(-bump)).detach().double() / (2 * step)
    return out.view(x.shape)


def full_grad(module, score, x, calls):
    """The image's part and each layer's part ("1 channel *cells") for one item.

    ``calls`` names (module, number of its call): the bias of the second call of a reused layer has a part of its own.
    """
    parts = [x * slopes(lambda bump: score(x + bump), x)]
    for layer, number in calls:
        seen, given = [], []

        def look(_layer, args, output, seen=seen, given=given):
            seen.append(output)
            given.append(args[0])

        handle = layer.register_forward_hook(look)
        score(x)
        handle.remove()
        with torch.no_grad():
            added = layer(torch.zeros_like(given[number - 1]))

        def bumped(bump, layer=layer, number=number):
            count = [0]

            def add(_layer, _args, output):
                count[0] += 1
                return output + bump if count[0] == number else None

            handle = layer.register_forward_hook(add)
            out = score(x.expand(len(bump), *x.shape[1:]))
            handle.remove()
            return out

        parts.append(added * slopes(bumped, seen[number - 1]))
    return [p.detach() for p in parts]
