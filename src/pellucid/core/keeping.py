"""What is known of each case already, so that a run that was stopped goes on where it was."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Numbers = tuple[float, ...]
Told = Callable[[str, int, int], None]


class Journal(ABC):
    """Numbers by key that outlive a run."""

    @abstractmethod
    def get(self, key: str) -> Numbers | None:
        """What was found under this key; None: nothing yet."""

    @abstractmethod
    def put(self, found: Mapping[str, Numbers]) -> None:
        """Keep numbers, each entry whole or not at all."""


@dataclass(frozen=True, eq=False)
class Keeper:
    """What a run over a cohort keeps of each case, and tells of its progress.

    Args:
        journal: where numbers are kept; None: nowhere.
        about: what all keys share: method and settings, model, target, seed.
        told: called with a stage, the cases that are done, and all of them.
        found: by stage, how many cases the journal knew when it began, and of how many.
    """

    journal: Journal | None = None
    about: str = ""
    told: Told | None = None
    found: dict[str, tuple[int, int]] = field(default_factory=dict)

    def key(self, stage: str, case: str, context: str) -> str:
        """SHA-256 over all that a case's numbers depend on.

        Args:
            stage: of the method.
            case: content hash of the case.
            context: what else the numbers depend on, such as the case that a part comes from.
        """
        return hashlib.sha256(json.dumps([self.about, stage, case, context]).encode()).hexdigest()

    def get(self, key: str) -> Numbers | None:
        """As ``Journal.get``."""
        return self.journal.get(key) if self.journal is not None else None

    def put(self, found: Mapping[str, Numbers]) -> None:
        """As ``Journal.put``."""
        if self.journal is not None:
            self.journal.put(found)

    def tell(self, stage: str, done: int, of: int) -> None:
        """Say how far a stage is."""
        if self.told is not None:
            self.told(stage, done, of)
