"""Tells whether something that is no speech gives the labels of a corpus away: rate, format, level or length.

A detector learns the easiest difference there is. Where one class was recorded at another rate, or scaled to another
level, that is the difference it learns, and its figures on such a corpus say nothing about speech.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.data.check import CheckedPart
from utils.audio.checking import CheckedAudio

LEAST_RIGHT_PERCENT = 75.0
"""What a guess must get right, in the mean of both classes, to be worth a note; 50 is chance, 100 gives all away."""
_CHANCE = 1e-4
"""How rarely a property that has nothing to do with the labels may pass, whatever the size of the corpus."""
_SHOWN = 4

_NAMED: Mapping[str, Callable[[CheckedAudio], str]] = {
    "sample rate": lambda audio: f"{audio.sample_rate_hz:,} Hz",
    "file format": lambda audio: f"{audio.format}, {'mono' if audio.channels == 1 else f'{audio.channels} channels'}",
}
_MEASURED: Mapping[str, tuple[Callable[[CheckedAudio], float], str]] = {
    "level (RMS)": (lambda audio: round(audio.level_db, 2), "dB"),
    "peak": (lambda audio: round(audio.peak_db, 2), "dB"),
    "length": (lambda audio: round(audio.seconds, 3), "s"),
}


@dataclass(frozen=True)
class Confound:
    """A property by which alone the label can be guessed: `right_percent` of the time, classes counted alike.

    `guess` says how, in words.
    """

    of: str
    right_percent: float
    guess: str

    @property
    def text(self) -> str:
        """The note of it."""
        return (
            f"the {self.of} tells the label: {self.guess}, is right for {self.right_percent:.0f} % (mean of both "
            "classes). A detector may learn that instead of speech"
        )


def confounds_of(part: CheckedPart) -> list[Confound]:
    """Return the properties by which the labels of a part can be guessed, of the files that can be read.

    A guess counts that is right for 75 % or more and would be so by chance in one corpus of 10,000 at most. So 20 files
    of each class are noted only where the guess is right for 86 %, and 10 of each never are.
    """
    known = [
        (audio, trial.is_bona_fide)
        for audio, trial in zip(part.audio, part.scanned.trials, strict=True)
        if audio and audio.samples and trial.is_bona_fide is not None
    ]
    bona_fide = [audio for audio, is_bona_fide in known if is_bona_fide]
    spoof = [audio for audio, is_bona_fide in known if not is_bona_fide]
    if not bona_fide or not spoof:
        return []
    found = [by_name(name, [of(a) for a in bona_fide], [of(a) for a in spoof]) for name, of in _NAMED.items()]
    found += [
        by_value(name, [of(a) for a in bona_fide], [of(a) for a in spoof], unit)
        for name, (of, unit) in _MEASURED.items()
    ]
    return [confound for confound in found if confound]


def by_name(of: str, bona_fide: Sequence[Hashable], spoof: Sequence[Hashable]) -> Confound | None:
    """Return what the best guess by a named property gives; None where it is not worth a note.

    It guesses for each name the class in which that is more frequent, so it is right for (1 + the total variation
    distance of the two classes) / 2.
    """
    shares = [{name: n / len(names) for name, n in Counter(names).items()} for names in (bona_fide, spoof)]
    names = sorted({*shares[0], *shares[1]}, key=str)
    gaps = {name: shares[0].get(name, 0.0) - shares[1].get(name, 0.0) for name in names}
    separation = sum(abs(gap) for gap in gaps.values()) / 2
    # The distance is the largest gap over all sets of names; a set and its complement have the same.
    if separation < _worth_noting(len(bona_fide), len(spoof), guesses=2.0 ** (len(names) - 1)):
        return None
    ours, theirs = ([name for name in names if sign * gaps[name] > 0] for sign in (1, -1))
    return Confound(of, 50 * (1 + separation), f"guessing bona fide for {_few(ours)}, and spoof for {_few(theirs)}")


def by_value(of: str, bona_fide: Sequence[float], spoof: Sequence[float], unit: str) -> Confound | None:
    """Return what the best guess by a threshold on a measured property gives; None where it is not worth a note.

    It is right for (1 + the Kolmogorov-Smirnov distance of the two classes) / 2.
    """
    ours, theirs = np.sort(bona_fide), np.sort(spoof)
    values = np.union1d(ours, theirs)
    shares = [np.searchsorted(one, values, side="right") / one.size for one in (ours, theirs)]
    gaps = shares[0] - shares[1]
    at = int(np.abs(gaps).argmax())
    separation = abs(float(gaps[at]))
    if separation < _worth_noting(len(bona_fide), len(spoof), guesses=1.0):
        return None
    side = "up to" if gaps[at] > 0 else "above"
    return Confound(of, 50 * (1 + separation), f"guessing bona fide {side} {values[at]:g} {unit}, and spoof else")


def _worth_noting(num_bona_fide: int, num_spoof: int, guesses: float) -> float:
    """Return the least separation, 0 to 1 (more: none is enough), that is noted.

    By Hoeffding's inequality for the difference of two means, times the number of `guesses` that were tried; for a
    threshold by the two-sample form of that of Dvoretzky, Kiefer and Wolfowitz (Wei and Dudley 2012), the same but for
    a constant of e in place of 2.
    """
    constant = math.e if guesses == 1.0 else 2.0 * guesses
    by_chance = math.sqrt(math.log(constant / _CHANCE) / 2 * (1 / num_bona_fide + 1 / num_spoof))
    return max(2 * LEAST_RIGHT_PERCENT / 100 - 1, by_chance)


def _few(names: Sequence[Hashable]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(str(name) for name in names[:_SHOWN]) + more
