"""--inspect_checkpoint: prints what a file holds, as text or as JSON."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from training.checkpoints.decision import NO_DECISION, Decision
from training.checkpoints.inspection import Inspection, inspect_file
from training.checkpoints.record import CheckpointRecord, Kind, record_document
from training.checkpoints.tensor_table import TensorEntry, TensorTable, stored_bytes
from training.runs.survey import checkpoint_files, survey_folder
from training.settings.requests import InspectCheckpoint
from training.settings.tasks import DETECTION
from utils.console import say
from utils.errors import UserError
from utils.folders import is_folder
from utils.json_text import json_text
from utils.regular_files import is_regular
from utils.terminal_text import RULE, bytes_text, lines_text

_KINDS = {
    Kind.EPOCH: "the whole state after an epoch",
    Kind.STEP: "the whole state inside an epoch",
    Kind.WEIGHTS: "weights only",
    Kind.FROZEN: "frozen weights, which checkpoints refer to",
}
_INDENT = "   "


def run(request: InspectCheckpoint) -> int:
    """Print what one checkpoint file holds, and fail if something is wrong with it."""
    found = inspect_file(_find_file(request.place, request.load_checkpoint_type))
    say(json_text(inspection_document(found)) if request.as_json else inspection_text(found))
    if found.problems:
        raise UserError(f"{found.path} cannot be used: {'; '.join(found.problems)}")
    return 0


def _find_file(place: Path, which: str) -> Path:
    """Return the file to inspect: `place`, or the last or best checkpoint of the run folder that it is.

    Raises UserError where there is none.
    """
    if not is_folder(place):
        if not os.path.lexists(place):
            raise UserError(f"--inspect_checkpoint {place} does not exist: --list_checkpoints shows those of a run")
        if not is_regular(place):
            raise UserError(f"--inspect_checkpoint {place} is no regular file: pass a checkpoint or a run folder")
        return place
    run = survey_folder(place)
    found = run.best if which == "best" else run.latest
    if found is None:
        names = [path.name for path in checkpoint_files(place)]
        raise UserError(
            f"--inspect_checkpoint {place} holds no {which} checkpoint: found {', '.join(names) or 'no such file'}"
        )
    return found.path


def inspection_document(found: Inspection) -> dict[str, Any]:
    """Return what --json prints.

    `path`, `bytes`; `problems`, a list of sentences, empty where nothing is wrong; `record`, see record_document, null
    for a file of another program or of frozen weights; `keys` and `values`, the top-level keys of the file and those
    with a number or text; `tensors`, a list of key, name, shape, dtype, bytes and storage; `total_parameters` and
    `total_tensor_bytes`. The last five are null where the list of tensors cannot be read.
    """
    table = found.table
    return {
        "path": str(found.path),
        "bytes": found.bytes_on_disk,
        "problems": list(found.problems),
        "record": record_document(found.record) if found.record else None,
        "keys": list(table.keys) if table else None,
        "values": dict(table.plain) if table else None,
        "tensors": [asdict(tensor) for tensor in table.tensors] if table else None,
        "total_parameters": total_parameters(table) if table else None,
        "total_tensor_bytes": stored_bytes(table.tensors) if table else None,
    }


def total_parameters(table: TensorTable) -> int:
    """Return the number of values in all state dicts of a file, buffers such as running means included."""
    return sum(tensor.values for key in table.state_dicts for tensor in table.under(key))


def inspection_text(found: Inspection) -> str:
    """Return what --inspect_checkpoint prints; every line of it is safe to show on a terminal."""
    lines = [RULE, f"📦 {found.path}", RULE, *_head(found)]
    if found.record:
        lines += _metrics(found.record)
        if found.record.task == DETECTION.name:
            lines += ["", f"Threshold: {_decision(found.record.decision)}"]
        lines += _block("Options", found.record.options.as_dict())
        lines += _block("Metadata", _readable(found.record))
    if found.table:
        if not found.record:
            lines += _block("Values", found.table.plain)
        lines += _tensors(found.table)
    lines += ["", "Whether any bit was changed is not checked here: --validate_checkpoints PATH does that."]
    return lines_text(lines)


def _head(found: Inspection) -> list[str]:
    record = found.record
    size = f"Size: {bytes_text(found.bytes_on_disk)} ({found.bytes_on_disk:,} bytes)"
    if record is None:
        other = "cannot be read" if found.problems else "a file of another program"
        return [f"Kind: {_KINDS[found.kind] if found.kind else other}", size]
    lines = [f"Kind: {_KINDS[record.kind]}", size, f"Epoch: {record.epoch}", f"Step: {record.step}"]
    if record.batches_done:
        lines[-1] += f" ({record.progress_in_epoch})"
    if record.frozen:
        lines.append(f"Frozen weights: {bytes_text(record.frozen.bytes)} more, in {record.frozen.file}")
    return [*lines, f"Learning rate: {record.learning_rate}", f"Run: {record.run_id}"]


def _metrics(record: CheckpointRecord) -> list[str]:
    if record.last is None or record.best is None:
        return ["", "Metrics", f"{_INDENT}no epoch is complete yet"]
    best = record.best.as_dict()
    rows = [(name, value, best[name]) for name, value in record.last.as_dict().items()]
    return [
        "",
        _metrics_title(record),
        f"{_INDENT}{'':14}{'last':>14}{'best':>14}",
        *(f"{_INDENT}{name:14}{_figure(last):>14}{_figure(best):>14}" for name, last, best in rows),
    ]


def _metrics_title(record: CheckpointRecord) -> str:
    in_percent = dict.fromkeys(figure.short for figure in record.figures.by_measure if figure.unit == "%")
    return f"Metrics ({' and '.join(in_percent)} in percent)" if in_percent else "Metrics"


def _decision(decision: Decision | None) -> str:
    if decision is None:
        return NO_DECISION
    rule = decision.rule()
    if rule is None:
        return f"none, and so no verdict: {decision.why_undecided}"
    text = (
        f"bona fide above {rule.threshold:.6f}, where the log-likelihood ratio = {rule.scale:.6g} x score + "
        f"{rule.offset:.6g} exceeds 0 (prior {rule.bona_fide_prior:g})"
    )
    if decision.miss_rate is None or decision.false_alarm_rate is None:
        return f"{text}; its errors on validation were not stored by the version that wrote the file"
    return (
        f"{text}; on validation {decision.miss_rate:.2%} of {decision.num_bona_fide:,} bona fide missed, "
        f"{decision.false_alarm_rate:.2%} of {decision.num_spoof:,} spoof accepted"
    )


def _block(title: str, values: Mapping[str, Any]) -> list[str]:
    width = max(map(len, values), default=0)
    return ["", title, *(f"{_INDENT}{name:{width}}  {_short(value)}" for name, value in values.items())]


def _figure(value: float) -> str:
    return f"{value:.6g}"


def _short(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) and abs(value) >= 1e-3 else str(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _readable(record: CheckpointRecord) -> dict[str, Any]:
    if record.saved_at_s is None:
        return dict(record.metadata)
    saved_at = datetime.fromtimestamp(record.saved_at_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return {**record.metadata, "saved_at": saved_at}


def _tensors(table: TensorTable) -> Iterator[str]:
    """Show state dicts tensor by tensor, and everything else that holds tensors (optimizers, say) in a line each."""
    yield ""
    yield f"Tensors: {len(table.tensors):,}, {bytes_text(stored_bytes(table.tensors))}"
    for key, tensors in itertools.groupby(table.tensors, key=lambda tensor: tensor.key):
        entries = list(tensors)
        values = sum(tensor.values for tensor in entries)
        title = f"{key or 'the whole file'}: {len(entries):,} tensors, {values:,} values"
        yield f"{_INDENT}{title}, {bytes_text(stored_bytes(entries))}"
        if key in table.state_dicts:
            yield from _by_module(entries)
    yield f"Total parameters: {total_parameters(table):,} (state dicts, with their buffers)"


def _by_module(tensors: list[TensorEntry]) -> Iterator[str]:
    width = max(len(tensor.name.rpartition(".")[2]) for tensor in tensors)
    for module, members in itertools.groupby(tensors, key=lambda tensor: tensor.name.rpartition(".")[0]):
        yield f"{_INDENT * 2}{module or '(top)'}"
        for tensor in members:
            name = tensor.name.rpartition(".")[2]
            yield f"{_INDENT * 3}{name:{width}}  {tensor.shape!s:20} {tensor.dtype:10} {bytes_text(tensor.bytes)}"
