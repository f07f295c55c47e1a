"""The vocoders that --vocoders names: those of this program without weights, and trained ones from their files."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.runs.finding import find_source
from training.settings.nearest_name import nearest_name
from training.settings.requests import MakeSpoofs
from training.settings.tasks import VOCODER
from training.spoofs.signal_vocoders import LEAST_SAMPLES, SIGNAL_VOCODERS, Signal, SignalVocoder
from utils.audio.waveforms import SAMPLE_RATE_HZ, Waveform
from utils.errors import UserError
from utils.seeding import generator_at

if TYPE_CHECKING:
    from torch import nn

PIECE_SAMPLES = 30 * SAMPLE_RATE_HZ
"""What is copied at a time, so that an hour takes no more memory than this."""
FADE_SAMPLES = 2048
_PACKAGES = {"world": "pyworld"}
_NAMES = ", ".join(SIGNAL_VOCODERS)
_MAKES = Callable[[Waveform, np.random.Generator], Waveform]


@dataclass(frozen=True, eq=False)
class NamedVocoder:
    """A vocoder under the name that its spoofs have as their attack.

    `identity` tells it from others of that name: a version or a hash. `make` takes (samples,) at 16 kHz and what its
    draws come from, and returns as many samples.
    """

    name: str
    identity: str
    make: _MAKES
    is_trained: bool = False

    def copy(self, waveform: Waveform, utterance: str) -> Waveform:
        """Return the copy of an utterance (samples,) at 16 kHz; what is drawn depends on its name alone."""
        return in_pieces(waveform, lambda piece, number: self.make(piece, generator_at(self.name, utterance, number)))


def in_pieces(waveform: Waveform, make: Callable[[Waveform, int], Waveform]) -> Waveform:
    """Return what `make` makes of the pieces of a waveform, given with their number, faded into each other."""
    whole = np.zeros(waveform.size, dtype=np.float64)
    rising = (np.arange(FADE_SAMPLES) + 0.5) / FADE_SAMPLES
    starts = range(0, max(1, waveform.size - FADE_SAMPLES), PIECE_SAMPLES - FADE_SAMPLES)
    for number, start in enumerate(starts):
        made = make(waveform[start : start + PIECE_SAMPLES], number).astype(np.float64)
        if start:
            made[:FADE_SAMPLES] *= rising
            whole[start : start + FADE_SAMPLES] *= 1 - rising
        whole[start : start + made.size] += made
    return whole.astype(np.float32)


def find_vocoders(request: MakeSpoofs) -> list[NamedVocoder]:
    """Return what was named, sorted by name.

    Raises UserError for what is no vocoder, is named twice or lacks its package.
    """
    found = [
        _signal_vocoder(name) if name in SIGNAL_VOCODERS else _trained_vocoder(name, flag, request)
        for name, flag in request.named
    ]
    typed: dict[str, str] = {}
    for vocoder, (name, _) in zip(found, request.named, strict=True):
        if vocoder.name in typed:
            raise UserError(f"--vocoders {typed[vocoder.name]} and {name} are one vocoder: name it once")
        typed[vocoder.name] = name
    return sorted(found, key=lambda vocoder: vocoder.name)


def _signal_vocoder(name: str) -> NamedVocoder:
    package = _PACKAGES.get(name)
    identity = "of this program"
    if package:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UserError(
                f"--vocoders {name} needs the package {package} ({error}): pip install {package}, or "
                "pip install -r requirements-vocoder.txt"
            ) from error
        identity = f"{package} {importlib.metadata.version(package)}"
    return NamedVocoder(name, identity, partial(_of_signal, SIGNAL_VOCODERS[name]))


def _of_signal(vocoder: SignalVocoder, waveform: Waveform, generator: np.random.Generator) -> Waveform:
    speech: Signal = np.pad(waveform.astype(np.float64), (0, max(0, LEAST_SAMPLES - waveform.size)))
    return vocoder(speech, generator)[: waveform.size].astype(np.float32)


def _trained_vocoder(name: str, flag: str, request: MakeSpoofs) -> NamedVocoder:
    if not os.path.lexists(name):
        near = nearest_name(name, list(SIGNAL_VOCODERS))
        meant = f"did you mean {near}? " if near else ""
        raise UserError(
            f"{flag} {name} is no vocoder and no file or folder: {meant}pass {_NAMES}, or a checkpoint or run folder "
            "of --model_type hifigan"
        )
    opened = find_source(Path(name), request.load_checkpoint_type, flag)
    options = opened.source.options
    if options is None or options.task != VOCODER:
        holds = f"a {options.task.trains} ({options.model_type})" if options else "weights without a record of what"
        raise UserError(
            f"{flag} {name}: {opened.path} holds {holds}, and no vocoder: pass a checkpoint or run folder of "
            f"--model_type hifigan, or {_NAMES}"
        )
    from training.tasks.vocoding import Vocoder, generator_in  # noqa: PLC0415  (imports torch, 2 s)
    from utils.machine import choose_device  # noqa: PLC0415

    epoch = opened.source.epoch
    generator, _ = generator_in(opened, options)
    digest = _digest(generator)
    vocoder = Vocoder(generator, choose_device(request.options.device))

    def make(waveform: Waveform, _: np.random.Generator) -> Waveform:
        return vocoder.copy(waveform).waveform

    attack = f"{options.model_type}_{options.vocoder_size}_epoch{epoch}_{digest[:8]}"
    return NamedVocoder(attack, f"SHA-256 of its weights {digest}", make, is_trained=True)


def _digest(network: nn.Module) -> str:
    """Return the SHA-256 (hex) of a network's weights, whatever file they are from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
