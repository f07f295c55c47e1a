"""ONNX: a network as a graph that onnxruntime and others run, without torch and without Python.

The batch is dynamic. Whether the length is, is tried: for some detectors the conversion fails then (g3_heatmap), others
have the number of nodes of the example baked in and are wrong at other lengths (aasist).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn
from torch.export import Dim

from training.export.checking import takes_any_length
from training.export.exportable import Exportable, Score
from training.export.quiet import quiet
from utils.errors import UserError
from utils.terminal_text import bytes_text

_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_LIMIT_BYTES = 2_000_000_000  # a protobuf message holds less than 2 GiB; the graph itself takes a few MB


def require_packages() -> None:
    """Raise UserError that names the packages which are missing: torch converts with two, the third runs the check."""
    missing = [name for name in _NEEDED if not _is_there(name)]
    if missing:
        raise UserError(
            f"--export onnx needs {', '.join(missing)}, not installed here: pip install -r requirements-export.txt"
        )


def _is_there(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def require_room_in_one_file(detector: nn.Module) -> None:
    """Raise UserError where the weights are more than one ONNX file holds."""
    size = sum(tensor.nbytes for tensor in detector.state_dict().values())
    if size > _LIMIT_BYTES:
        raise UserError(
            f"--export onnx: the weights are {bytes_text(size)} and one ONNX file holds {bytes_text(_LIMIT_BYTES)}: "
            "use --export torchscript or --export safetensors"
        )


def convert(detector: Exportable) -> tuple[Any, bool]:
    """Return the network as an onnx.ModelProto, and whether it takes any length: which it must prove at two others."""
    try:
        model = converted(detector, any_length=True)
        if takes_any_length(detector.taken, detector, _scored_by(model.SerializeToString())[0]):
            return model, True
    except RuntimeError:
        pass  # torch cannot convert it for any length, or onnxruntime cannot run that: below, any failure is told
    return converted(detector, any_length=False), False


def converted(detector: Exportable, any_length: bool) -> Any:
    """Return an onnx.ModelProto for any batch size; raises OnnxExporterError, a RuntimeError, where torch cannot."""
    taken = detector.taken
    dynamic = {0: Dim("batch")} | ({taken.axis: Dim(taken.unit, min=taken.least)} if any_length else {})
    with torch.no_grad(), quiet():
        program = torch.onnx.export(
            detector,
            (taken.make(2, taken.length),),
            dynamo=True,
            verbose=False,
            input_names=[taken.name],
            output_names=list(detector.outputs),
            dynamic_shapes={taken.name: dynamic},
        )
    assert program is not None
    return _without_traces(program.model_proto)


def _without_traces(model: Any) -> Any:
    """Take out what torch notes at each node for debugging, with the paths of this machine in it: half of the file."""
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output, model.graph):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    return model


def write(model: Any, metadata: Mapping[str, str], file: BinaryIO) -> None:
    """Write an onnx.ModelProto with `metadata` as its metadata_props."""
    del model.metadata_props[:]
    for name, value in metadata.items():
        model.metadata_props.add(key=name, value=value)
    file.write(model.SerializeToString())


def open_file(path: Path, threads: int = 0) -> tuple[Score, dict[str, str]]:
    """Return the network in a file as onnxruntime runs it on the CPU, and the metadata that it holds.

    `threads` 0: as many as it likes.
    """
    return _scored_by(str(path), threads)


def _scored_by(model: str | bytes, threads: int = 0) -> tuple[Score, dict[str, str]]:
    import onnxruntime  # noqa: PLC0415  (optional, as are the others)
    from onnxruntime.capi import onnxruntime_pybind11_state as native  # noqa: PLC0415

    names = ("Fail", "InvalidArgument", "InvalidGraph", "NotImplemented", "RuntimeException")
    refusals = tuple(getattr(native, name) for name in names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # it prints what it also raises, which is no failure where a length is tried
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except refusals as error:
        raise RuntimeError(f"onnxruntime does not take the converted network: {error}") from error

    (taken,) = session.get_inputs()

    def score(given: Tensor) -> tuple[Tensor, ...]:
        try:
            outputs = session.run(None, {taken.name: given.numpy()})
        except refusals as error:  # derived from nothing but Exception
            raise RuntimeError(f"onnxruntime cannot run this input: {error}") from error
        return tuple(map(torch.from_numpy, outputs))

    return score, dict(session.get_modelmeta().custom_metadata_map)
