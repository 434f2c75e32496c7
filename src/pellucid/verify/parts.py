"""What is compared of the methods that hide parts of an image, and of those that need many cases."""

from pellucid.verify.plan import DENSE, DENSE_3D, ONE, PAIR, Comparison
from pellucid.verify.subjects import PATCHES, Subject

COHORT = Subject("pooled-2d", PATCHES, (24, 28), layer="")

_BLACK = "infill=0"
_SINGLE = 1e-4  # captum solves its regressions in float32
_SCORE = 1e-5  # the model score is float32

SHAPLEY = (
    Comparison(f"ExactShapley:players=grid:2,{_BLACK}", "captum", "ShapleyValues", (PAIR, DENSE), hand="players"),
    Comparison(f"ExactShapley:players=grid:1x2x2,{_BLACK}", "captum", "ShapleyValues", (DENSE_3D,), hand="players"),
    Comparison(f"ExactShapley:players=grid:3,{_BLACK}", "shap", "ExactExplainer", (PAIR, DENSE), hand="players"),
    Comparison(f"ExactShapley:players=grid:2,{_BLACK}", "shap", "ExactExplainer", (DENSE_3D,), hand="players"),
    Comparison(f"ExactShapley:players=superpixels:8,{_BLACK}", "shap", "ExactExplainer", (ONE,), hand="players"),
    Comparison(
        f"KernelSHAP:players=grid:3,samples=512,{_BLACK}",
        "shap",
        "KernelExplainer",
        (PAIR, DENSE),
        options={"samples": 512},
        hand="players",
    ),
    Comparison(
        f"KernelSHAP:players=grid:2,samples=256,{_BLACK}",
        "shap",
        "KernelExplainer",
        (DENSE_3D,),
        options={"samples": 256},
        hand="players",
    ),
    Comparison(
        f"KernelSHAP:players=grid:3x4,samples=256,{_BLACK}",
        "shap",
        "ExactExplainer",
        (ONE, DENSE),
        hand="players",
        estimate=True,
    ),
    Comparison(
        f"KernelSHAP:players=grid:3,samples=512,{_BLACK}",
        "captum",
        "KernelShap",
        (ONE, DENSE),
        formula="captum KernelShap",
        options={"samples": 512},
        hand="players",
        tolerance=_SINGLE,
    ),
)
OWEN = (
    Comparison(
        f"PartitionSHAP:players=grid:4,samples=512,{_BLACK}",
        "shap",
        "PartitionExplainer",
        (PAIR, DENSE),
        options={"samples": 512},
        hand="hierarchy",
    ),
    Comparison(
        f"PartitionSHAP:players=superpixels:12,samples=1024,{_BLACK}",
        "shap",
        "PartitionExplainer",
        (ONE,),
        options={"samples": 4096},
        hand="hierarchy",
    ),
    Comparison(
        f"PartitionSHAP:players=grid:2,samples=256,{_BLACK}",
        "shap",
        "PartitionExplainer",
        (DENSE_3D,),
        options={"samples": 256},
        hand="hierarchy",
    ),
)
_TOSSED = f"samples=200,players=grid:4,{_BLACK}"
LIME = (
    Comparison(f"LIME:{_TOSSED}", "lime", "LimeImageExplainer", (ONE, DENSE), hand="coalitions"),
    Comparison(f"LIME:samples=200,players=grid:2,{_BLACK}", "lime", "LimeBase", (DENSE_3D,), hand="coalitions"),
    Comparison(f"LIME:preset=captum,{_TOSSED}", "captum", "Lime", (DENSE,), hand="coalitions", tolerance=_SINGLE),
    Comparison(
        f"LIME:preset=captum,alpha=0.0001,{_TOSSED}",
        "captum",
        "Lime",
        (ONE,),
        options={"alpha": 1e-4},
        hand="coalitions",
        tolerance=_SINGLE,
    ),
    Comparison(
        f"LIME:preset=captum,alpha=0.0001,samples=200,players=grid:2,{_BLACK}",
        "captum",
        "Lime",
        (DENSE_3D,),
        options={"alpha": 1e-4},
        hand="coalitions",
        tolerance=_SINGLE,
    ),
)
MORRIS = tuple(
    Comparison(
        f"MorrisSensitivity:players={players},statistic={statistic},{_BLACK}",
        "SALib",
        "morris.analyze",
        on,
        options={"statistic": statistic},
        hand="coalitions",
    )
    for players, on in (("grid:4", (PAIR, DENSE)), ("grid:2", (DENSE_3D,)))
    for statistic in ("mu", "mu_star", "sigma")
)
COHORTS = (
    *(
        Comparison(
            f"PermutationImportance:repeats=4,loss={loss}",
            "scikit-learn",
            "permutation_importance",
            (COHORT,),
            options={"loss": loss},
            hand="orders",
            tolerance=tolerance,
        )
        for loss, tolerance in (("log", _SCORE), ("change", None))
    ),
    Comparison("PartialDependence:points=5", "scikit-learn", "partial_dependence", (COHORT,), hand="values"),
    *(
        Comparison(
            f"GlobalSurrogate:form={form},{more}",
            "scikit-learn",
            "cross_val_predict",
            (COHORT,),
            options={"form": form, "depth": 3},
            hand="regions",
        )
        for form, more in (("tree", "depth=3"), ("linear", "penalty=0"))
    ),
)

PARTS: tuple[Comparison, ...] = (*SHAPLEY, *OWEN, *LIME, *MORRIS, *COHORTS)
