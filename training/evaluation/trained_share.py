"""How much of an evaluation set the detector was trained on, as far as the names of its utterances tell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from training.evaluation.subject import Subject
from training.runs.trained_names import FILE_NAME, read_trained_names
from utils.corpora import CorpusPart


@dataclass(frozen=True)
class TrainedShare:
    """How many of `total` utterances were trained on; `trained` is None where `folder` does not say it."""

    trained: int | None
    total: int
    folder: Path

    @property
    def warning(self) -> str:
        """What must be said before anything else; "" where nothing was trained on, as far as is known.

        >>> TrainedShare(12, 20, Path("models/RUN")).warning
        '12 of 20 utterances (60.0 %) were trained on, by name: the figures flatter the detector'
        """
        if not self.trained:
            return ""
        share = max(0.1, 100 * self.trained / self.total)
        return (
            f"{self.trained:,} of {self.total:,} utterances ({share:.1f} %) were trained on, by name: the figures "
            "flatter the detector"
        )

    @property
    def note(self) -> str:
        """That it is not known, where it is not.

        >>> TrainedShare(None, 20, Path("models/RUN")).note
        'Whether any of them was trained on is not known: models/RUN has no whole trained_names.bin'
        """
        known = self.trained is not None
        return (
            "" if known else f"Whether any of them was trained on is not known: {self.folder} has no whole {FILE_NAME}"
        )

    def document(self) -> dict[str, int] | None:
        """Return both counts, None where they are not known."""
        return None if self.trained is None else {"utterances": self.trained, "of": self.total}


def trained_share(subject: Subject, part: CorpusPart) -> TrainedShare:
    """Compare the names of a part with those that are kept beside the checkpoint."""
    folder = subject.sources[-1].parent
    names = read_trained_names(folder)
    trained = names.count(trial.utterance for trial in part.protocol.trials) if names else None
    return TrainedShare(trained, len(part), folder)
