"""How much of an evaluation set the detector was trained on, as far as the names of its utterances tell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from training.evaluation.subject import Subject
from training.runs.trained_names import FILE_NAME, read_trained_names
from utils.corpora import CorpusPart

_NOT_BEFORE = (
    "The training began with weights (--model_path), and what those were trained on before is not known: these trials "
    "may have been among it"
)


@dataclass(frozen=True)
class TrainedShare:
    """How many of `total` utterances were trained on; `trained` is None where `folder` does not say it.

    `is_all` is False where the training began with weights of which it is not known what they were trained on.
    """

    trained: int | None
    total: int
    folder: Path
    is_all: bool = True

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
        """What of it is not known, "" where all is.

        >>> TrainedShare(None, 20, Path("models/RUN")).note
        'Whether any of them was trained on is not known: models/RUN has no whole trained_names.bin'
        """
        if self.trained is None:
            return f"Whether any of them was trained on is not known: {self.folder} has no whole {FILE_NAME}"
        return "" if self.is_all else _NOT_BEFORE

    def document(self) -> dict[str, int | bool] | None:
        """Return both counts and whether they count all of the training, None where they are not known."""
        if self.trained is None:
            return None
        return {"utterances": self.trained, "of": self.total, "before_is_known": self.is_all}


def trained_share(subject: Subject, part: CorpusPart) -> TrainedShare:
    """Compare the names of a part with those that are kept beside the checkpoint."""
    folder = subject.sources[-1].parent
    names = read_trained_names(folder)
    trained = names.count(trial.utterance for trial in part.protocol.trials) if names else None
    return TrainedShare(trained, len(part), folder, is_all=names.are_all if names else True)
