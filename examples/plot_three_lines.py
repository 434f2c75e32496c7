"""
Three lines in a notebook
=========================

Any torch module, any tensor, no card. The image is the fundus photograph of scikit-image. The network is small, seeded
and **untrained**: what follows shows how to ask, and is no finding about this eye.
"""

import torch
from skimage.data import retina
from torch import nn

torch.manual_seed(0)
network = nn.Sequential(
    nn.Conv2d(3, 8, 7, stride=4, padding=3),
    nn.ReLU(),
    nn.Conv2d(8, 16, 5, stride=4, padding=2),
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(16, 4),
)
photograph = torch.from_numpy(retina()).permute(2, 0, 1)[None] / 255
image = nn.functional.interpolate(photograph, size=(352, 352), mode="area")

# %%
# The three lines. The picture names its scale, its unit and its native resolution: one cell of the layer, to scale.

import pellucid

explanation = pellucid.explain(network, image, target=3, method="GradCAM")
figure = explanation.plot()

# %%
# Below the picture is a map with a unit, and everything that is needed to repeat it.

print(explanation.numpy().shape, explanation.attribution.unit, explanation.cell)
for key, value in explanation.provenance.plain().items():
    print(f"{key}: {value}")

# %%
# Another method, with a parameter. Occlusion hides a block and watches the score. Nothing is neutral to show instead:
# so it uses two fills, and tells how far they disagree.

method = "Occlusion:window=64,stride=32"
occlusion = pellucid.explain(network, image, target=3, method=method)
figure = occlusion.plot()

# %%
# What does the map depend on? Fresh weights are the control: a method that draws the same picture for another network
# shows the photograph and not the model.

torch.manual_seed(1)
for layer in network:
    if isinstance(layer, nn.Conv2d | nn.Linear):
        layer.reset_parameters()
again = pellucid.explain(network, image, target=3, method="GradCAM")
maps = torch.stack([torch.from_numpy(e.numpy()).flatten() for e in (explanation, again)])
print(f"correlation of the two maps: {torch.corrcoef(maps)[0, 1]:.2f}")
