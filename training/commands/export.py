"""--export: writes a checkpoint as one whole file, or its detector or vocoder for other programs."""

from __future__ import annotations

from training.checkpoints.verified_file import VerifiedFile
from training.planning.refusals import refuse_verb
from training.runs.finding import find_source
from training.settings.requests import WHOLE_CHECKPOINT, Export
from utils.console import say
from utils.terminal_text import bytes_text


def run(request: Export) -> int:
    """Write what was asked for, and say where it is."""
    opened = find_source(request.model_path, request.load_checkpoint_type)
    if request.format_name != WHOLE_CHECKPOINT:
        refuse_verb("--export", opened.path, opened.source.options)
    if request.format_name == WHOLE_CHECKPOINT:
        _export_checkpoint(opened, request)
    else:
        _export_model(opened, request)
    return 0


def _export_checkpoint(opened: VerifiedFile, request: Export) -> None:
    """Write a checkpoint as one file, which resumes without the frozen weights that it refers to."""
    from training.export import whole_checkpoint  # noqa: PLC0415  (imports torch, 2 s)

    written = whole_checkpoint.export_checkpoint(opened, request.export_path)
    say(f"Exported {opened.path} to {written} ({bytes_text(written.stat().st_size)}): it needs no other file")


def _export_model(opened: VerifiedFile, request: Export) -> None:
    """Write the network of a checkpoint for other programs, proved to be the same on noise and on speech."""
    from training.commands.export_text import export_text  # noqa: PLC0415  (imports torch, 2 s)
    from training.export import exporting  # noqa: PLC0415

    exported = exporting.export_model(opened, request.format_name, request.export_path, request.audio)
    say(export_text(exported, opened.path))
