"""The maps a reader gets who names no method."""

# One for each question: where the coarse evidence lies (two ways, because they can part), what the score reacts to,
# what each voxel contributes, and what hiding a place changes. All but the last two share one pass.
USUAL = ("GradCAM", "HiResCAM", "InputXGradient", "IntegratedGradients", "Occlusion", "Saliency")
