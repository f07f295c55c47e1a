"""The evaluation sets of ASVspoof 2021, LA and DF: a list of trials, and keys that are published apart from it."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import replace
from functools import partial
from pathlib import Path

from utils.corpora.parts import FoundCorpus, PartSource, Published
from utils.corpora.places import CorpusPlace, first_file, first_folder
from utils.corpora.trial_columns import TRIAL_LIST
from utils.corpora.trials import ScannedProtocol
from utils.errors import UserError
from utils.table_bytes import decode, read_table_bytes

TRACKS = ("LA", "DF")
LOOKED_FOR = "ASVspoof2021_LA_eval/flac or ASVspoof2021_DF_eval/flac"
KEYS_FILE = "trial_metadata.txt"
# asvspoof-challenge/2021: all trials; official figures use the subset eval, 148,176 of LA and 533,928 of DF.
_PUBLISHED = {"LA": Published(181_566, None, "LA_E_"), "DF": Published(611_829, None, "DF_E_")}


def find(place: CorpusPlace, track: str) -> FoundCorpus | None:
    """Return the set of a track in `place`, which is ASVspoof2021_<track>_eval or its parent; None without audio.

    The keys are looked for as they are unpacked, keys/<track>/CM/trial_metadata.txt in its database, beside it or in
    its protocols; without them the trials are those of the list ASVspoof2021.<track>.cm.eval.trl.txt, without labels.
    """
    own_name = f"ASVspoof2021_{track}_eval"
    own = place.database if place.database.name == own_name else place.database / own_name
    audio = first_folder([own / "flac"])
    if audio is None:
        return None
    bases = [base for base in (place.protocols, own, own.parent) if base]
    keys = first_file(_key_candidates(bases, track))
    trial_list = first_file(base / f"ASVspoof2021.{track}.cm.eval.trl.txt" for base in bases)
    if keys is None and trial_list is None:
        trial_list = own / f"ASVspoof2021.{track}.cm.eval.trl.txt"
    scan = partial(scan_trials, place, trial_list, keys)
    return FoundCorpus(f"ASVspoof 2021 {track}", own, (PartSource("eval", scan, (audio,), _PUBLISHED[track]),))


def _key_candidates(bases: list[Path], track: str) -> Iterator[Path]:
    for base in bases:
        for below in (f"keys/{track}/CM", f"{track}/CM", "keys/CM", "CM", ""):
            yield base / below / KEYS_FILE


def scan_trials(place: CorpusPlace, trial_list: Path | None, keys: Path | None) -> ScannedProtocol:
    """Return the trials of the keys, then those of the list that have no key."""
    if keys is None:
        assert trial_list is not None
        return place.scanning(trial_list, TRIAL_LIST)()
    scanned = place.scanning(keys)()
    known = {trial.utterance for trial in scanned.trials}
    if trial_list is None or _names_only(trial_list, known):
        return scanned
    listed = place.scanning(trial_list, TRIAL_LIST)()
    without_key = [position for position, trial in enumerate(listed.trials) if trial.utterance not in known]
    return replace(
        scanned,
        trials=scanned.trials + tuple(listed.trials[position] for position in without_key),
        names=scanned.names + tuple(listed.names[position] for position in without_key),
        faults=scanned.faults + listed.faults,
    )


def _names_only(trial_list: Path, known: Set[str]) -> bool:
    """Whether a list has each of its names once and names known trials only: then its lines need not be looked at."""
    try:
        names = decode(read_table_bytes(trial_list, "trial list", ""), trial_list, "trial list").split()
    except UserError:
        return False
    return len(set(names)) == len(names) and set(names) <= known
