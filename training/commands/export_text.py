"""What is said of an exported file: what it holds, what it takes, how far it is from the original, how to run it."""

from __future__ import annotations

from pathlib import Path

from training.export.exporting import Exported
from training.export.scored_detector import INPUT, OUTPUTS
from utils.shell_text import with_path
from utils.terminal_text import bytes_text, lines_text

UNKNOWN = "—"

_USE = {
    "onnx": """\
import onnxruntime
session = onnxruntime.InferenceSession({path!r})
log_probabilities, score = session.run(None, {{"waveform": waveform}})  # NumPy, float32""",
    "torchscript": """\
import torch
detector = torch.jit.load({path!r})
log_probabilities, score = detector(waveform)  # a tensor, float32""",
    "safetensors": """\
python main.py --model_type {model_type} --fresh_start {model_path}   # and the other flags of a new run""",
}


_USE_OF_VOCODER = {
    "onnx": """\
import onnxruntime
session = onnxruntime.InferenceSession({path!r})
(waveform,) = session.run(None, {{"mel": mel}})  # NumPy, float32""",
    "torchscript": """\
import torch
vocoder = torch.jit.load({path!r})
(waveform,) = vocoder(mel)  # a tensor, float32""",
    "safetensors": """\
the generator alone, under the names of jik876/hifi-gan: for other programs; a run here begins from a checkpoint""",
}


def export_text(exported: Exported, source: Path) -> str:
    """Return the lines that are printed after an export."""
    told = _of_vocoder(exported) if "vocoder_size" in exported.metadata else _of_detector(exported)
    lines = [
        f"Exported {source} to {exported.path} ({bytes_text(exported.path.stat().st_size)}, {exported.format})",
        *(told[:1] if exported.format == "safetensors" else told),
        "  differs from the original by at most",
        *(f"    {check.greatest:7.1e}  {check.case}" for check in exported.checks),
        "  to use it:",
        *(f"    {line}" for line in _use(exported).splitlines()),
    ]
    return lines_text(lines)


def _of_vocoder(exported: Exported) -> list[str]:
    facts = exported.metadata
    any_length, mel = facts["length"] == "any", facts.get("val_mel")
    frames, length = ("frames", "any length") if any_length else (facts["frames"], "this length only")
    return [
        f"  vocoder:     {facts['model_type']} {facts['vocoder_size']}, epoch {facts['epoch']}, step {facts['step']}, "
        f"val mel distance {UNKNOWN if mel is None else f'{float(mel):.4f}'}",
        f"  input:       mel (batch, 80, {frames}): any batch, {length}; float32, as models/log_mel.py makes them",
        f"  output:      waveform (batch, 256 x {frames}): 16 kHz, full scale 1",
    ]


def _of_detector(exported: Exported) -> list[str]:
    facts = exported.metadata
    any_length = exported.metadata["length"] == "any"
    length = "samples" if any_length else exported.metadata["samples"]
    why = f"any batch, {'any length' if any_length else 'this length only'}; float32, 16 kHz, full scale 1"
    return [
        f"  detector:    {facts['model_type']}, epoch {facts['epoch']}, step {facts['step']}, "
        f"val EER {_val_eer(exported)}, threshold {facts.get('threshold', UNKNOWN)}",
        f"  input:       {INPUT} (batch, {length}): {why}",
        f"  outputs:     {OUTPUTS[0]} (batch, 2): spoof, bona fide; {OUTPUTS[1]} (batch): higher is bona fide",
    ]


def _val_eer(exported: Exported) -> str:
    stored = exported.metadata.get("val_eer_percent")
    return UNKNOWN if stored is None else f"{float(stored):.2f}%"


def _use(exported: Exported) -> str:
    path, model_type = str(exported.path), exported.metadata["model_type"]
    use = _USE_OF_VOCODER if "vocoder_size" in exported.metadata else _USE
    return use[exported.format].format(path=path, model_path=with_path("--model_path", path), model_type=model_type)
