"""Small seeded networks for comparisons: nonlinear, float64, in evaluation mode, in two parts where a layer is read."""

import torch
import torch.nn.functional as F
from torch import nn

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOL = {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}


class Split(nn.Module):
    """``tail(front(x))``: a test can hold the layer between the two."""

    def __init__(self, front, tail):
        super().__init__()
        self.front, self.tail = front, tail

    def forward(self, x):
        return self.tail(self.front(x))


class Functional(nn.Module):
    """A tail whose nonlinearity is no module."""

    def __init__(self, rank, channels, classes):
        super().__init__()
        self.conv, self.fc = CONV[rank](channels, 4, 3, padding=1), nn.Linear(4 * 2**rank, classes)
        self.pool = POOL[rank](2)

    def forward(self, a):
        return self.fc(self.pool(torch.tanh(F.relu(self.conv(a)))).flatten(1))


class Reused(nn.Module):
    """One ReLU module called twice, and a functional one."""

    def __init__(self, rank):
        super().__init__()
        self.one, self.two = CONV[rank](2, 4, 3, padding=1, stride=2), CONV[rank](4, 5, 3, padding=1)
        self.relu, self.fc = nn.ReLU(), nn.Linear(5, 3)

    def front(self, x):
        return self.relu(self.two(self.middle(x)))

    def middle(self, x):
        return self.relu(self.one(x))

    def after_middle(self, a):
        return self.tail(self.relu(self.two(a)))

    def tail(self, a):
        return self.fc(torch.sigmoid(a).flatten(2).amax(2))

    def forward(self, x):
        return self.tail(self.front(x))


class InPlaceBehind(nn.Module):
    """The layer's output is overwritten by the ReLU behind it."""

    def __init__(self, rank):
        super().__init__()
        self.conv, self.fc = CONV[rank](2, 4, 3, padding=1, stride=2), nn.Linear(4, 3)

    def tail(self, a):
        return self.fc(a.relu().flatten(2).square().mean(2))

    def forward(self, x):
        a = self.conv(x)
        F.relu(a, inplace=True)
        return self.fc(a.flatten(2).square().mean(2))


class Pair(nn.Module):
    """A layer that returns a tuple."""

    def __init__(self, rank):
        super().__init__()
        self.one, self.two = CONV[rank](2, 4, 3, padding=1, stride=2), CONV[rank](2, 3, 3, padding=1)

    def forward(self, x):
        return self.one(x), self.two(x)


class TupleLayer(nn.Module):
    """Reads both elements of the pair."""

    def __init__(self, rank):
        super().__init__()
        self.encoder, self.fc = Pair(rank), nn.Linear(7, 3)

    def tail(self, a, b):
        return self.fc(torch.cat([a.tanh().flatten(2).mean(2), b.relu().flatten(2).mean(2)], 1))

    def forward(self, x):
        return self.tail(*self.encoder(x))


class DictHead(nn.Module):
    """Returns a dict, the score under ``out``."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        out = self.inner(x)
        return {"features": out.exp(), "out": out}


class TwoImages(nn.Module):
    """Score of an interaction between two images."""

    def __init__(self, rank):
        super().__init__()
        self.pet, self.ct = CONV[rank](1, 3, 3, padding=1), CONV[rank](2, 3, 3, padding=1)
        self.mix, self.fc = CONV[rank](3, 4, 3, stride=2, padding=1), nn.Linear(4, 3)

    def forward(self, pet, ct):
        joint = torch.tanh(self.pet(pet)) * torch.relu(self.ct(ct)) + 0.1 * self.ct(ct)
        return self.fc(torch.relu(self.mix(joint)).flatten(2).mean(2))


class ImageAndVector(nn.Module):
    """An image gated by covariates."""

    def __init__(self, rank):
        super().__init__()
        self.conv, self.gate, self.fc = CONV[rank](2, 4, 3, padding=1), nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, image, covariates):
        features = torch.relu(self.conv(image)).flatten(2).mean(2)
        return self.fc(features * torch.sigmoid(self.gate(covariates)))


def seeded(build, seed=0):
    """``build()`` with seeded weights and batch statistics that are not trivial."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = build().double().eval()
        for m in net.modules():
            if isinstance(m, nn.modules.batchnorm._BatchNorm):
                m.running_mean.normal_(0, 0.2)
                m.running_var.uniform_(0.5, 1.5)
                if m.affine:
                    nn.init.normal_(m.bias, 0, 0.2)
    for p in net.parameters():
        p.requires_grad_(True)
    return net


def front(rank, channels=2):
    """Halves the resolution: six channels."""
    return nn.Sequential(
        CONV[rank](channels, 4, 3, padding=1), NORM[rank](4), nn.ReLU(), CONV[rank](4, 6, 3, stride=2, padding=1)
    )


def classifier(rank, classes=3, seed=0):
    """Two channels to class logits."""
    return seeded(lambda: Split(front(rank), Functional(rank, 6, classes)), seed)


def segmenter(rank, seed=0):
    """Two channels to three classes at the input's resolution."""
    up = nn.Upsample(scale_factor=2)
    return seeded(lambda: Split(front(rank), nn.Sequential(nn.SiLU(), CONV[rank](6, 3, 3, padding=1), up)), seed)


def linear(side, rank=2, channels=1, classes=1, seed=0):
    """``w.x + c``."""
    return seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(channels * side**rank, classes)), seed)


def noise(*shape, seed=1):
    """Standard normal float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
