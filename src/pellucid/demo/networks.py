"""The small networks of the demo and of the studies, written plainly: nothing but torch is needed to run them.

Each factory takes no argument and returns an untrained module in evaluation mode; the trained weights lie in
``models/<name>/weights.safetensors`` beside this file, and ``training/`` makes them again from a seed. What a
network does to its input before the first weight (local contrast, standardization, enlarging) is part of the
module, so that an attribution is about the image that went in and not about something derived from it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

FIELD_LEVEL = 0.1  # brightest channel above this: inside the field of view of a fundus photograph


class LocalContrast(nn.Module):
    """Take the local mean away from each channel and divide by the local contrast, inside the field of view.

    With box means over the field only, ``z = (x - mean) / (sd_local / 2 + sd_field / 2)``. The field of view is
    where the brightest channel exceeds ``FIELD_LEVEL``; it is a constant to the gradient. Outside it the result
    is 0. Bad at: dark lesions as large as the box, which it flattens.

    Args:
        window: side of the box in pixels, odd.
    """

    def __init__(self, window: int = 41) -> None:
        super().__init__()
        self.window = window

    def _box(self, x: Tensor) -> Tensor:
        half = self.window // 2
        rows = functional.avg_pool2d(x, (self.window, 1), stride=1, padding=(half, 0))
        return functional.avg_pool2d(rows, (1, self.window), stride=1, padding=(0, half))

    def forward(self, x: Tensor) -> Tensor:
        """Normalized channels, 0 outside the field of view."""
        field = (x.detach().amax(dim=1, keepdim=True) > FIELD_LEVEL).to(x.dtype)
        # The floors keep every quotient and root finite, also in its derivative, where the field is absent.
        share = self._box(field).clamp_min(1e-4)
        residue = (x - self._box(x * field) / share) * field
        squares = residue * residue
        local = torch.sqrt(self._box(squares) / share + 1e-6)
        count = field.sum(dim=(2, 3), keepdim=True).clamp_min(1.0)
        overall = torch.sqrt(squares.sum(dim=(2, 3), keepdim=True) / count + 1e-6)
        return residue / (0.5 * local + 0.5 * overall)


class Standardize(nn.Module):
    """Bring each image to zero mean and unit standard deviation.

    Args:
        floor: added to the standard deviation, so that a flat image gives zeros and a finite gradient.
    """

    def __init__(self, floor: float = 1e-3) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, x: Tensor) -> Tensor:
        """The standardized image."""
        axes = tuple(range(1, x.ndim))
        centered = x - x.mean(dim=axes, keepdim=True)
        # The root is taken of a sum that is never 0: its derivative at 0 is infinite.
        spread = torch.sqrt((centered * centered).mean(dim=axes, keepdim=True) + self.floor**2)
        return centered / (spread + self.floor)


class DoubleConv(nn.Sequential):
    """Twice a 3 x 3 convolution, batch normalization and ReLU.

    Args:
        inputs: channels in.
        outputs: channels out.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )


class VesselNet(nn.Module):
    """U-Net that marks the vessels of a fundus photograph.

    Input: RGB in [0, 1], the field of view cropped to its bounding box on black, sides divisible by 8. Output:
    one logit per pixel. Bad at: vessels thinner than two pixels, and dark lesions, which it may take for vessels.

    Args:
        widths: channels per depth.
    """

    def __init__(self, widths: tuple[int, ...] = (12, 24, 48, 72)) -> None:
        super().__init__()
        self.contrast = LocalContrast()
        self.encoder = nn.ModuleList(DoubleConv(a, b) for a, b in zip((3, *widths[:-1]), widths, strict=True))
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.decoder = nn.ModuleList(DoubleConv(deep + skip, skip) for deep, skip in pairs)
        self.head = nn.Conv2d(widths[0], 1, 1)

    def body(self, x: Tensor) -> Tensor:
        """Everything behind the local contrast; training runs it on patches of images normalized whole."""
        skips = []
        for depth, block in enumerate(self.encoder):
            x = block(x if depth == 0 else functional.max_pool2d(x, 2))
            skips.append(x)
        for block, skip in zip(self.decoder, skips[-2::-1], strict=True):
            x = block(torch.cat([functional.interpolate(x, scale_factor=2.0, mode="nearest"), skip], dim=1))
        return self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """One logit per pixel."""
        return self.body(self.contrast(x))


class VolumeBlock(nn.Module):
    """Residual pair of 3-D convolutions with instance normalization.

    Args:
        inputs: channels in.
        outputs: channels out.
        stride: of the first convolution and of the shortcut.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.InstanceNorm3d(outputs, affine=True)
        self.act1 = nn.LeakyReLU(0.1)
        self.second = nn.Conv3d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.InstanceNorm3d(outputs, affine=True)
        self.shortcut = nn.Conv3d(inputs, outputs, 1, stride)
        self.act2 = nn.LeakyReLU(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Features at the resolution of the stride."""
        inner = self.norm2(self.second(self.act1(self.norm1(self.first(x)))))
        return self.act2(inner + self.shortcut(x))


class VolumeUp(nn.Module):
    """Narrow, enlarge twice by trilinear interpolation, add the skip, then convolve.

    Args:
        inputs: channels in.
        outputs: channels of the skip and of the result.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.narrow = nn.Conv3d(inputs, outputs, 1)
        self.conv = nn.Conv3d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm = nn.InstanceNorm3d(outputs, affine=True)
        self.act = nn.LeakyReLU(0.1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Features at the resolution of the skip."""
        x = functional.interpolate(self.narrow(x), scale_factor=2.0, mode="trilinear", align_corners=False)
        return self.act(self.norm(self.conv(x + skip)))


class HippocampusNet(nn.Module):
    """3-D U-Net that marks the anterior and the posterior hippocampus in a T1 crop.

    Input: (1, D, H, W), RAS at 1 mm, clipped to the percentiles 1 and 99.5 and z-scored over the crop, sides
    divisible by 4. Output: logits of background, anterior, posterior. Bad at: anything but a crop around a
    hippocampus; on a whole head it marks tissue all over. Narrower and with one class, it marks lungs (``lungs``).

    Args:
        widths: channels at full, half and quarter resolution, and of the bottom.
        classes: logits per voxel.
    """

    def __init__(self, widths: tuple[int, int, int, int] = (8, 16, 32, 48), classes: int = 3) -> None:
        super().__init__()
        full, half, quarter, bottom = widths
        self.stem = nn.Sequential(
            nn.Conv3d(1, full, 3, 1, 1, bias=False), nn.InstanceNorm3d(full, affine=True), nn.LeakyReLU(0.1)
        )
        self.down1 = VolumeBlock(full, half, stride=2)
        self.down2 = VolumeBlock(half, quarter, stride=2)
        self.bottom = VolumeBlock(quarter, bottom)
        self.up1 = VolumeUp(bottom, half)
        self.up2 = VolumeUp(half, full)
        self.head = nn.Conv3d(full, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """One logit per class and voxel."""
        full = self.stem(x)
        half = self.down1(full)
        deep = self.bottom(self.down2(half))
        return self.head(self.up2(self.up1(deep, half), full))


class Residual(nn.Module):
    """Residual pair of 2-D convolutions with batch normalization.

    Args:
        inputs: channels in.
        outputs: channels out.
        stride: of the first convolution and of the shortcut.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        same = inputs == outputs and stride == 1
        projected = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Identity() if same else projected
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Features at the resolution of the stride."""
        inner = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        return self.relu2(inner + self.shortcut(x))


def residual_stem() -> nn.Sequential:
    """One channel to 16 at half resolution."""
    return nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())


def residual_stages() -> nn.Sequential:
    """16 channels to 64 at a quarter of the resolution; the last two stages share it."""
    return nn.Sequential(Residual(16, 16), Residual(16, 32, stride=2), Residual(32, 48, stride=2), Residual(48, 64))


class ResidualClassifier(nn.Module):
    """Small residual network with one logit: enlarge, standardize, stem, four stages, global average, linear.

    Because the logit is linear in the mean of the last stage, the class activation map at ``stages`` is exact; its
    cells are 1/8 of the enlarged image. Bad at: anything it was not trained on; see the model card.

    Args:
        enlarge_to: side in pixels to which the input is first enlarged (bilinear).
        dropout: share of the averaged features dropped in training.
    """

    def __init__(self, enlarge_to: int, dropout: float = 0.2) -> None:
        super().__init__()
        self.enlarge_to = enlarge_to
        self.standardize = Standardize()
        self.stem = residual_stem()
        self.stages = residual_stages()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(64, 1)

    def forward(self, x: Tensor) -> Tensor:
        """One logit per image."""
        size = (self.enlarge_to, self.enlarge_to)
        x = functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
        features = self.stages(self.stem(self.standardize(x)))
        return self.head(self.dropout(features.mean(dim=(2, 3))))


class ResidualDetector(nn.Module):
    """Small residual network that says whether a small thing lies anywhere: the soft maximum of one logit per cell.

    ``logit = log(sum over cells of exp(cell))``. A global average would thin out a nodule of 3 cells among 256.
    Bad at: telling one nodule from two, and anything it was not trained on; see the model card.
    """

    def __init__(self) -> None:
        super().__init__()
        self.standardize = Standardize()
        self.stem = residual_stem()
        self.stages = residual_stages()
        self.head = nn.Conv2d(64, 1, 1)

    def cells(self, x: Tensor) -> Tensor:
        """One logit per cell of 8 x 8 pixels; training compares it with the planted mask."""
        return self.head(self.stages(self.stem(self.standardize(x))))

    def forward(self, x: Tensor) -> Tensor:
        """One logit per image."""
        return torch.logsumexp(self.cells(x), dim=(2, 3))


def vessels() -> nn.Module:
    """Vessels of a fundus photograph: (B, 3, H, W) in [0, 1] to (B, 1, H, W) logits."""
    return VesselNet().eval()


def hippocampus() -> nn.Module:
    """Parts of the hippocampus in a T1 crop: (B, 1, D, H, W) z-scores to (B, 3, D, H, W) logits."""
    return HippocampusNet().eval()


def pneumonia() -> nn.Module:
    """Pneumonia on a child's chest film of 28 x 28 pixels: (B, 1, 28, 28) in [0, 1] to (B, 1) logits."""
    return ResidualClassifier(enlarge_to=64).eval()


def nodule() -> nn.Module:
    """Planted nodule in a patch of a chest film: (B, 1, 128, 128) in [0, 1] to (B, 1) logits."""
    return ResidualDetector().eval()


def lungs() -> nn.Module:
    """Lungs of a chest CT, a technical model: (B, 1, D, H, W) in [0, 1] to (B, 1, D, H, W) logits."""
    return HippocampusNet(widths=(6, 12, 24, 32), classes=1).eval()
