"""Which Task trains what the options ask for."""

from __future__ import annotations

from collections.abc import Callable

import torch

from training.settings.options import Options
from training.settings.tasks import DETECTION, VOCODER
from training.tasks.detection import DetectionTask
from training.tasks.judged_vocoder import JudgedVocoderTask
from training.tasks.task import Task
from training.tasks.vocoder import VocoderTask

TASKS: dict[str, Callable[[Options, torch.device], Task]] = {
    DETECTION.name: DetectionTask,
    VOCODER.name: lambda *given: (JudgedVocoderTask if given[0].metric_discriminator else VocoderTask)(*given),
}
"""How a task is made, by the name in its description."""


def make_task(options: Options, device: torch.device) -> Task:
    """Return the task of a run with these options."""
    return TASKS[options.task.name](options, device)
