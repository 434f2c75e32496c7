"""The one declaration of a method or metric, and the registry that declaring fills."""

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from enum import Enum, StrEnum
from typing import Annotated, ClassVar, Literal, get_origin, get_type_hints

from pellucid.core.errors import DeclarationError, UnknownName

Task = Literal["classification", "segmentation", "regression"]


class Family(StrEnum):
    """How a method works."""

    GRADIENT = "gradient"
    PATH = "path"
    CAM = "class activation"
    PERTURBATION = "perturbation"
    RELEVANCE = "relevance"
    ATTENTION = "attention"
    SURROGATE = "surrogate"
    CONCEPT = "concept"
    CASE = "case-based"
    COUNTERFACTUAL = "counterfactual"
    TEXT = "text"


class Level(StrEnum):
    """What the answer is written in (the review's section 2.2)."""

    PIXEL = "pixel"
    FEATURE_MAP = "feature map"
    REGION = "region"
    CONCEPT = "concept"


class Property(StrEnum):
    """What a metric measures (the review's section 3.3 and Table 7)."""

    FAITHFULNESS = "faithfulness"
    LOCALIZATION = "localization"
    ROBUSTNESS = "robustness"
    RANDOMIZATION = "randomization"
    COMPLEXITY = "complexity"
    AGREEMENT = "agreement"
    UTILITY = "clinical utility"


class Ask(Enum):
    """What may be asked of the shared pass."""

    OUTPUT = "output"
    INPUT_GRADIENT = "input gradient"
    ACTIVATION = "activation"
    LAYER_GRADIENT = "layer gradient"
    ATTENTION = "attention"
    ATTENTION_GRADIENT = "attention gradient"


ATTENTIONS = frozenset({Ask.ATTENTION, Ask.ATTENTION_GRADIENT})  # the weights come with the target's slope behind them
GRADIENTS = frozenset({Ask.INPUT_GRADIENT, Ask.LAYER_GRADIENT}) | ATTENTIONS
LAYERS = frozenset({Ask.ACTIVATION, Ask.LAYER_GRADIENT})


@dataclass(frozen=True)
class Cost:
    """Model evaluations; a forward is one item through the module."""

    forwards: int = 0
    backwards: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.forwards + other.forwards, self.backwards + other.backwards)

    def __mul__(self, items: int) -> "Cost":
        return Cost(self.forwards * items, self.backwards * items)


def shared_cost(asks: frozenset[Ask]) -> Cost:
    """The one pass per item that answers all of ``asks``, however many methods ask."""
    return Cost(int(bool(asks)), int(bool(asks & GRADIENTS)))


@dataclass(frozen=True)
class Card:
    """What an explainer declares about itself.

    Args:
        family: how it works.
        shows: one sentence: what a reader sees.
        caution: one sentence: what it is bad at.
        equation: LaTeX.
        source: bibliography key.
        cost_note: own passes per item in words (``none: shares one pass``).
        asks: answered by the shared pass.
        signed: whether negative values mean evidence against.
        stochastic: whether it draws random numbers (then it takes a seed).
        space: spatial ranks it works for.
        tasks: model tasks it works for.
        scope: one case (``local``) or a cohort (``global``).
        level: what the answer is written in.
        attribution: whether the answer is a map that distributes the score.
        intrinsic: part of the model (``True``) or post hoc.
        agnostic: needs only the model's outputs.
        completes: whether the values promise to sum to the score's difference from a reference.
        early: whether it may stop before the declared cost is spent, where it sees that it has enough.
    """

    family: Family
    shows: str
    caution: str
    equation: str
    source: str
    cost_note: str
    asks: frozenset[Ask]
    signed: bool
    stochastic: bool = False
    space: frozenset[int] = frozenset({2, 3})
    tasks: frozenset[Task] = frozenset({"classification", "segmentation", "regression"})
    scope: Literal["local", "global"] = "local"
    level: Level = Level.PIXEL
    attribution: bool = True
    intrinsic: bool = False
    agnostic: bool = False
    completes: bool = False
    early: bool = False


@dataclass(frozen=True)
class MetricCard:
    """What a metric declares about itself.

    Args:
        measures: the property.
        shows: one sentence: what the number says.
        caution: one sentence: what it does not say.
        equation: LaTeX.
        source: bibliography key.
        cost_note: own passes per item in words.
        direction: which way is better; ``none`` where neither is.
        unit: of the value.
        interval: possible values, in words.
        needs_region: whether an expert or planted region is needed.
        asks: answered by the shared pass.
        stochastic: whether it draws random numbers.
        repeatable: whether the same seed gives the same value: a clock does not.
        space: spatial ranks it works for.
        tasks: model tasks it works for.
        scope: of one case.
    """

    measures: Property
    shows: str
    caution: str
    equation: str
    source: str
    cost_note: str
    direction: Literal["higher", "lower", "none"]
    unit: str = "1"
    interval: str = "0 to 1"
    needs_region: bool = False
    asks: frozenset[Ask] = frozenset()
    stochastic: bool = False
    repeatable: bool = True
    space: frozenset[int] = frozenset({2, 3})
    tasks: frozenset[Task] = frozenset({"classification", "segmentation", "regression"})
    scope: Literal["local", "global"] = "local"


@dataclass(frozen=True)
class Parameter:
    """One hyperparameter of a declared class.

    Args:
        name: of the field.
        type: as annotated.
        default: value that is used when none is given.
        help: one sentence with the unit.
    """

    name: str
    type: object
    default: object
    help: str


class Declared:
    """Base of everything that carries a card: defining a final subclass registers it."""

    registry: ClassVar[dict[str, type]]
    kind: ClassVar[str]

    def __init_subclass__(cls, abstract: str | None = None) -> None:
        super().__init_subclass__()
        if abstract is not None:
            if abstract:
                cls.registry, cls.kind = {}, abstract
            return
        if "card" not in cls.__dict__:
            raise DeclarationError(f"{cls.__name__} has no card", "declare one: card: ClassVar = Card(family=..., ...)")
        known = cls.registry.get(cls.__name__)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise DeclarationError(
                f"{cls.__module__} declares a second {cls.kind} named {cls.__name__}, "
                f"the first is in {known.__module__}",
                "choose another class name",
            )
        cls.registry[cls.__name__] = cls

    @classmethod
    def parameters(cls) -> Iterator[Parameter]:
        """The hyperparameters, from the annotated fields."""
        hints = get_type_hints(cls, include_extras=True)
        for field in fields(cls):  # pyright: ignore[reportArgumentType] -- final subclasses are dataclasses
            hint = hints[field.name]
            annotated = get_origin(hint) is Annotated
            default = field.default if field.default is not MISSING else None
            yield Parameter(
                field.name,
                hint.__origin__ if annotated else hint,
                default,
                hint.__metadata__[0] if annotated else "",
            )

    def settings(self) -> dict[str, object]:
        """The values of the hyperparameters, for the provenance."""
        return {p.name: getattr(self, p.name) for p in type(self).parameters()}


def find_declared(base: type[Declared], name: str) -> type:
    """A declared class by name, in any case.

    Raises:
        UnknownName: there is none; the message lists those there are.
    """
    by_name = {known.lower(): cls for known, cls in base.registry.items()}
    plain = name.lower().replace("-", "").replace("_", "").replace("++", "plusplus")
    if plain not in by_name:
        raise UnknownName(f"no {base.kind} named {name!r}", f"there are: {', '.join(sorted(base.registry))}")
    return by_name[plain]
