"""What is said of an exported file: what it holds, what it takes, how far it is from the original, how to run it."""

from __future__ import annotations

from pathlib import Path

from training.export.exporting import Exported
from training.export.scored_detector import INPUT, OUTPUTS
from utils.shell_text import with_path
from utils.terminal_text import bytes_text

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


def export_text(exported: Exported, source: Path) -> str:
    """Return the lines that are printed after an export."""
    facts = exported.metadata
    lines = [
        f"Exported {source} to {exported.path} ({bytes_text(exported.path.stat().st_size)}, {exported.format})",
        f"  detector:    {facts['model_type']}, epoch {facts['epoch']}, step {facts['step']}, "
        f"val EER {_val_eer(exported)}, threshold {facts.get('threshold', UNKNOWN)}",
        *([] if exported.format == "safetensors" else _inputs_and_outputs(exported)),
        "  differs from the original by at most",
        *(f"    {check.greatest:7.1e}  {check.case}" for check in exported.checks),
        "  to use it:",
        *(f"    {line}" for line in _use(exported).splitlines()),
    ]
    return "\n".join(lines)


def _inputs_and_outputs(exported: Exported) -> list[str]:
    any_length = exported.metadata["length"] == "any"
    length = "samples" if any_length else exported.metadata["samples"]
    why = f"any batch, {'any length' if any_length else 'this length only'}; float32, 16 kHz, full scale 1"
    return [
        f"  input:       {INPUT} (batch, {length}): {why}",
        f"  outputs:     {OUTPUTS[0]} (batch, 2): spoof, bona fide; {OUTPUTS[1]} (batch): higher is bona fide",
    ]


def _val_eer(exported: Exported) -> str:
    stored = exported.metadata.get("val_eer_percent")
    return UNKNOWN if stored is None else f"{float(stored):.2f}%"


def _use(exported: Exported) -> str:
    path, model_type = str(exported.path), exported.metadata["model_type"]
    return _USE[exported.format].format(path=path, model_path=with_path("--model_path", path), model_type=model_type)
