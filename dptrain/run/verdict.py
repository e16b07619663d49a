"""What has been checked of a run, and what was found."""

from dataclasses import asdict, dataclass, field

from dptrain.checked import Plain


@dataclass(frozen=True)
class Difference:
    """Where something came out otherwise: what is in the run, and what was found."""

    step: int
    receipt: Plain
    found: Plain


@dataclass
class Verdict:
    """What has been checked of a run, and what was found."""

    run: str
    ranks: int
    steps: int = 0
    """How many steps the receipt has."""
    wrong: list[str] = field(default_factory=list)
    """What is not as it should be."""
    fine: list[str] = field(default_factory=list)
    """What is."""
    notes: list[str] = field(default_factory=list)
    """What is worth knowing."""
    replayed: tuple[int, int] | None = None
    """The first and last step that were done once more."""
    replayed_from: int = 0
    """The step of the checkpoint that this began with; 0 for the run's own beginning."""
    first_difference: Difference | None = None

    @property
    def verdict(self) -> str:
        """In a word: identical (replayed), whole (checked), or not."""
        if self.first_difference is not None:
            return "different"
        if self.wrong:
            return "damaged"
        return "identical" if self.replayed else "whole"

    def values(self) -> Plain:
        """Return it as plain values."""
        return {"verdict": self.verdict, **asdict(self)}
