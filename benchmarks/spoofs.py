"""How near the spoofs of --make_spoofs are to their sources, and how long each vocoder takes.

    python -m benchmarks.spoofs CORPUS [VOCODER...]

All bona fide utterances of the parts of a corpus are copied, by the vocoders without weights or by those that are
named; nothing is written. `mel distance` is that of docs/vocoder.md, here over whole utterances, the source at 0.95
of full scale and the spoof at its level. `level` is the greatest difference of the level of a spoof from its source's.
The computing takes one thread.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
import soundfile
import torch

from benchmarks.measuring import machine_text
from models.log_mel import HifiGanMel
from training.data.segments import at_peak
from training.settings.options import Options
from training.settings.requests import MakeSpoofs
from training.spoofs.corpus import open_sources
from training.spoofs.signal_vocoders import SIGNAL_VOCODERS
from training.spoofs.sounds import Source, read_source, spoof_of
from training.spoofs.vocoders import NamedVocoder, find_vocoders
from training.tasks.vocoding import mel_distances
from utils.audio.waveforms import SAMPLE_RATE_HZ, Waveform


def measure(vocoder: NamedVocoder, sources: Sequence[Source]) -> str:
    """Return a line of figures of one vocoder."""
    mel, distances, levels, same_length, seconds = HifiGanMel(), [], [], 0, 0.0
    for source in sources:
        began = time.perf_counter()
        made = vocoder.copy(source.waveform, source.path.name)
        seconds += time.perf_counter() - began
        samples, _ = soundfile.read(io.BytesIO(spoof_of(source, made).content), dtype="float64", always_2d=True)
        level = np.sqrt(np.mean(np.square(samples)))
        levels.append(abs(20 * np.log10(level / source.level)))
        same_length += len(samples) == source.samples
        distances.append(mel_distances(*(mel(one) for one in _at_one_level(source.waveform, made))).item())
    audio_s = sum(source.waveform.size for source in sources) / SAMPLE_RATE_HZ
    return (
        f"{vocoder.name:32} mel distance {fmean(distances):.3f}  {audio_s / seconds:6.1f} times real time  "
        f"level within {max(levels):.2f} dB  {same_length} of {len(sources)} of one length"
    )


def _at_one_level(source: Waveform, made: Waveform) -> Iterator[torch.Tensor]:
    brought, _ = at_peak(source)
    yield torch.from_numpy(brought).unsqueeze(0)
    yield torch.from_numpy(made * np.sqrt(np.mean(brought**2) / np.mean(made**2))).unsqueeze(0)


def main(corpus: str, *vocoders: str) -> None:
    """Print the figures of each vocoder."""
    torch.set_num_threads(1)
    options = Options(database_path=corpus)
    request = MakeSpoofs(folder=Path("spoofs"), vocoders=vocoders or tuple(SIGNAL_VOCODERS), options=options)
    found = open_sources(options, request.folder)
    sources = [read_source(utterance.path) for utterance in found.utterances]
    print(f"{machine_text()}\n{len(sources)} bona fide utterances of {found.folder}")
    for vocoder in find_vocoders(request):
        print(measure(vocoder, sources), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
