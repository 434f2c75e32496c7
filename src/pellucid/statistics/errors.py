"""The one error of this room: numbers that cannot be analyzed, with the mend.

The room stands beside core and imports nothing of it (adr/0012). Who shows a reader an error turns this one into an
``InputError`` with the same two sentences.
"""


class Unfit(ValueError):
    """A table or a setting that cannot be analyzed; what only lacks data is undefined and no error.

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
