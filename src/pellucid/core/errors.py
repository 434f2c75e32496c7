"""Every error that Pellucid raises on purpose: what is wrong, and the mend.

PellucidError
├── InputError                 what came in cannot be used (exit code 2)
│   ├── UnreadableImage        no image in the file, or only part of one
│   ├── ShapeMismatch          wrong rank, size or channel count
│   ├── NonFinite              NaN or infinity among the voxels, or in what the model gave
│   ├── UnknownLabel           the model has no such label
│   ├── UnknownLayer           the model has no such layer
│   ├── UnknownName            no method, metric, input or region of this name
│   ├── BadRegion              a region that is empty, full or on another grid
│   ├── BadOption              a parameter outside its range
│   ├── SourceChanged          the files are not the ones that were explained
│   └── UnwritableOutput       the result cannot be written there
├── ModelError                 the model file or its card cannot be used (exit code 2)
│   ├── BadCard                model.toml is malformed or contradicts itself
│   ├── WeightsMismatch        weights do not fit the module, or are not the ones the card names
│   ├── Untrusted              the file would run code, and nobody said it may
│   ├── CannotDo               the model offers no gradient, no layers, ... that the method needs
│   └── GoldenVectorMismatch   the model does not give the scores its card promises
├── NotApplicable              the card excludes this image (exit code 2)
├── MissingExtra               an optional package is not installed (exit code 2)
├── ArchiveError               an archive did not do what was asked (exit code 1)
│   ├── ArchiveUnreachable     no answer, or not now: worth another try
│   └── ArchiveRefused         it does not let us in, or does not take this
├── AuditError                 the audit record cannot be written or does not verify
└── DeclarationError           a method or metric is declared wrongly (for those who write one)
"""


class PellucidError(Exception):
    """An error with its mend, in one line.

    Args:
        problem: what was expected and what was got.
        mend: what the reader can do about it.
    """

    def __init__(self, problem: str, mend: str) -> None:
        self.problem = " ".join(problem.split()).rstrip(".")
        self.mend = " ".join(mend.split()).rstrip(".")
        super().__init__(f"{self.problem}. {self.mend}.")

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.problem, self.mend)


class InputError(PellucidError, ValueError):
    """What came in cannot be used."""


class UnreadableImage(InputError):
    """No image in the file, or only part of one."""


class ShapeMismatch(InputError):
    """Wrong rank, size or channel count."""


class NonFinite(InputError):
    """NaN or infinity among the voxels, or in what the model gave."""


class UnknownLabel(InputError):
    """The model has no such label."""


class UnknownLayer(InputError):
    """The model has no such layer."""


class UnknownName(InputError):
    """No method, metric, input or region of this name."""


class BadRegion(InputError):
    """A region that is empty, full or on another grid."""


class BadOption(InputError):
    """A parameter outside its range."""


class SourceChanged(InputError):
    """The files are not the ones that were explained."""


class UnwritableOutput(InputError):
    """The result cannot be written there."""


class ModelError(PellucidError):
    """The model file or its card cannot be used."""


class BadCard(ModelError):
    """model.toml is malformed or contradicts itself."""


class WeightsMismatch(ModelError):
    """Weights do not fit the module, or are not the ones the card names."""


class Untrusted(ModelError):
    """The file would run code, and nobody said it may."""


class CannotDo(ModelError):
    """The model offers no gradient, no layers, ... that the method needs."""


class GoldenVectorMismatch(ModelError):
    """The model does not give the scores its card promises."""


class NotApplicable(PellucidError):
    """The card excludes this image."""


class MissingExtra(PellucidError):
    """An optional package is not installed."""


class ArchiveError(PellucidError):
    """An archive did not do what was asked."""


class ArchiveUnreachable(ArchiveError):
    """No answer, or not now: worth another try."""


class ArchiveRefused(ArchiveError):
    """It does not let us in, or does not take this."""


class AuditError(PellucidError):
    """The audit record cannot be written or does not verify."""


class DeclarationError(PellucidError, TypeError):
    """A method or metric is declared wrongly."""
