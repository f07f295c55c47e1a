"""The settings that say what is trained on: which corpus, how its labels are read, and how much of each utterance."""

from __future__ import annotations

from dataclasses import dataclass

from training.settings.setting import OnChange, setting
from utils.labels import CLASSES

DEMO_DATABASE = "demo"


@dataclass(frozen=True)
class DataSettings:
    """The data of a run; Options inherits it."""

    database_path: str = setting(
        DEMO_DATABASE,
        "data",
        OnChange.FREE,
        "folder of ASVspoof 2019 LA or 5 as published, or of a corpus with train.csv and dev.csv (path,label) or with "
        "bonafide/ and spoof/; `demo` is a small corpus made by the program",
    )
    protocols_path: str | None = setting(
        None,
        "data",
        OnChange.FREE,
        "folder with the protocol files, or one table `path,label[,attack,speaker,split]` (default: found under "
        "--database_path)",
    )
    label_1: str | None = setting(
        None,
        "data",
        OnChange.FREE,
        "the class that 1 means in tables whose labels are 0 and 1 (default: such tables are refused)",
        choices=CLASSES,
    )
    track: str = setting(
        "DF",
        "data",
        OnChange.REPORTED,
        "track the detector is meant for; all of them train on the train and dev parts of --database_path",
        choices=("LA", "DF", "In-the-Wild"),
    )
    num_examples: int | None = setting(
        None,
        "data",
        OnChange.BREAKS_EPOCH,
        "use only N training utterances, of both classes (default: all)",
        at_least=2,
    )
    crop: str = setting(
        "start",
        "data",
        OnChange.BREAKS_EPOCH,
        "which 64,600 samples of a longer training utterance: its first ones, or a random place in each epoch",
        choices=("start", "random"),
    )
