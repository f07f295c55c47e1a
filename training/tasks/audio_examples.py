"""A few validation utterances with their scores, to be listened to beside the curves."""

from __future__ import annotations

import numpy as np
import torch

from models.detector import Detector, scores
from training.data.batches import validation_view
from training.data.loading import read_waveforms
from training.tasks.heatmaps import choose_balanced
from training.tasks.task import AudioExample
from utils.audio.waveforms import SAMPLE_RATE_HZ
from utils.corpora import CorpusPart
from utils.interruption import StopRequest
from utils.waiting import NEVER

NUM_EXAMPLES = 8


def audio_examples(
    detector: Detector, part: CorpusPart, device: torch.device, stop: StopRequest = NEVER
) -> list[AudioExample]:
    """Return up to 8 utterances of a part whose labels are known, half of each class, scored by the detector.

    Like the samples of heatmaps they are taken at even distances from each class, so they are the same in every run.
    Leaves the detector in evaluation mode; raises UserError for a file that cannot be read, and StopAskedError.
    """
    trials = part.protocol.trials
    known = [index for index, trial in enumerate(trials) if trial.is_bona_fide is not None]
    detector.eval()
    found = []
    balanced = choose_balanced([bool(trials[index].is_bona_fide) for index in known], NUM_EXAMPLES)
    chosen = [known[position] for position in balanced]
    sounds = read_waveforms([part.audio_paths[index] for index in chosen], stop)
    for index, sound in zip(chosen, sounds, strict=True):
        trial, waveform = trials[index], validation_view(sound, 0, trials[index].utterance)
        with torch.inference_mode():
            output = detector.analyse(torch.as_tensor(waveform, dtype=torch.float32, device=device).unsqueeze(0))
        score = scores(output.log_probabilities).item()
        label = "bona fide" if trial.is_bona_fide else "spoof"
        heard = np.asarray(waveform, np.float32)
        found.append(AudioExample(trial.utterance, label, score, heard, SAMPLE_RATE_HZ))
    return found
