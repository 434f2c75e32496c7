"""The maps and scores a reader gets who names no method and no metric."""

# One for each question: where the coarse evidence lies (two ways, because they can part), what the score reacts to,
# what each voxel contributes, and what hiding a place changes. All but the last two share one pass.
USUAL = ("GradCAM", "HiResCAM", "InputXGradient", "IntegratedGradients", "Occlusion", "Saliency")

# One for each question that can be asked of any map within a minute: does the score fall and rise with what is ranked
# high (and by how much more than by chance), does the map lie on the finding, is it concentrated, does it need the
# weights. What explains perturbed copies again (MaxSensitivity and its like) is left to those who name it.
USUAL_METRICS = (
    "AUPRC",
    "DeletionAUC",
    "Dice",
    "HitRate",
    "InsertionAUC",
    "IoU",
    "ModelParameterRandomization",
    "RelevanceMass",
    "Sparseness",
)
