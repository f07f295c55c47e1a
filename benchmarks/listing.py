"""What listing 100 checkpoints of XLS-R's size costs, against opening one of them with torch.

    python -m benchmarks.listing [FOLDER]

Makes, in a temporary folder (in FOLDER, if given), 100 files of 3.8 GB: the archive that torch.save writes for
g3_heatmap on XLS-R 300M with Adam's moments, all zeros and stored as holes, so that together they take less than 1 GB
of disk; each has a record of its own. Then it measures whole processes: `main.py --list_checkpoints`, and
`torch.load(mmap=True)` of one file, which reads no weights either. Files are in the page cache for both. The files
carry no valid seal: neither of the two looks at it.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import IO, Any, cast

from benchmarks.measuring import PROGRAM, REPOSITORY, machine_text, run_once, run_repeatedly
from training.checkpoints.record import CheckpointRecord, Kind
from training.checkpoints.rows import EpochMetrics
from training.checkpoints.sealed_file import RECORD_NAME
from training.runs.directory import RunDirectory
from training.settings.options import Options

NUM_CHECKPOINTS = 100
STEPS_PER_EPOCH = 1587  # 25,380 utterances of ASVspoof 2019 LA in batches of 16
REPEATS = 7
OPTIONS = Options(database_path="LA", comment="listing")
# config.json of facebook/wav2vec2-xls-r-300m, as far as it differs from transformers' defaults.
XLS_R_300M_CONFIG: dict[str, Any] = {
    "model_type": "wav2vec2",
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "conv_bias": True,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
}
_LOAD_ONE = "import sys, torch; torch.load(sys.argv[1], map_location='cpu', mmap=True, weights_only=True)['epoch']"
_LIST_AND_TELL = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from main import main; main(sys.argv[1:]); "
    "print('torch' in sys.modules)"
)


class _HoleMakingWriter:
    """Writes to a file, but steps over blocks of zeros, which then take no room on disk."""

    def __init__(self, file: io.BufferedRandom) -> None:
        self._file = file

    def write(self, data: Any) -> int:
        block = bytes(data)
        if len(block) >= 1 << 16 and block == bytes(len(block)):
            self._file.seek(len(block), os.SEEK_CUR)
        else:
            self._file.write(block)
        return len(block)

    def flush(self) -> None:
        self._file.flush()


def make_template(path: Path) -> None:
    """Write the torch archive of a whole state of g3_heatmap on XLS-R 300M, every number in it zero."""
    import torch  # noqa: PLC0415  (only in the process that makes the template: see benchmarks/measuring.py)

    from models.build import rebuild_detector  # noqa: PLC0415
    from models.detector import DetectorSettings  # noqa: PLC0415

    with torch.device("meta"):
        detector = rebuild_detector(DetectorSettings(), XLS_R_300M_CONFIG)

    def zeros(like: torch.Tensor) -> torch.Tensor:
        return torch.zeros(like.shape, dtype=like.dtype)

    trained = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    payload = {
        "epoch": 1,
        "model_state_dict": {name: zeros(tensor) for name, tensor in detector.state_dict().items()},
        "optimizer_state_dict": {
            "state": {
                index: {"step": torch.tensor(1.0), "exp_avg": zeros(parameter), "exp_avg_sq": zeros(parameter)}
                for index, parameter in enumerate(trained)
            },
            "param_groups": [{"lr": 1e-6, "params": list(range(len(trained)))}],
        },
    }
    with path.open("w+b") as file:
        torch.save(payload, cast(IO[bytes], _HoleMakingWriter(file)))  # it needs these two methods only


def copy_with_holes(source: Path, target: Path) -> None:
    """Copy the parts of a file that are stored, and leave its holes holes."""
    with source.open("rb") as reader, target.open("wb") as writer:
        size = reader.seek(0, os.SEEK_END)
        writer.truncate(size)
        end = 0
        while end < size:
            try:
                start = os.lseek(reader.fileno(), end, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but a hole is left
                return
            end = os.lseek(reader.fileno(), start, os.SEEK_HOLE)
            os.pwrite(writer.fileno(), os.pread(reader.fileno(), end - start, start), start)


def write_checkpoint(template: Path, path: Path, history: list[EpochMetrics]) -> None:
    """Write the checkpoint after the last epoch of `history`: the template with a record of its own."""
    copy_with_holes(template, path)
    record = _record(history)
    with zipfile.ZipFile(path, "a") as archive:
        top = archive.namelist()[0].split("/", 1)[0]
        archive.writestr(f"{top}/{RECORD_NAME}", json.dumps(record.as_dict(), indent=1))
        archive.comment = b"bonafide sealed crc32:00000000"  # in its place; listing does not check it


def _record(history: list[EpochMetrics]) -> CheckpointRecord:
    last = history[-1]
    return CheckpointRecord(
        path=Path(),
        bytes_on_disk=0,
        kind=Kind.EPOCH,
        lineage=(("0123456789abcdef", 0),),
        epoch=last.epoch,
        step=last.step,
        batches_done=0,
        batches_per_epoch=STEPS_PER_EPOCH,
        learning_rate=last.learning_rate,
        last=last,
        best=min(history, key=lambda row: row["val_eer"]),
        options=OPTIONS,
        data={"train": "a" * 64, "dev": "b" * 64},
        metadata={"num_threads": 2, "torch": "2", "device": "none"},
    )


def _metrics(epoch: int) -> EpochMetrics:
    losses = {"train_loss": 0.1, "train_eer": 5.0, "val_loss": 0.1}
    figures = losses | {"val_acc": 99.0, "val_eer": 1.0 + 10.0 / epoch}
    return EpochMetrics(epoch, epoch * STEPS_PER_EPOCH, figures, learning_rate=1e-6)


def make_run(folder: Path) -> list[Path]:
    """Make the run's checkpoints below `folder` and return their paths."""
    template = folder / "template.pth"
    maker = multiprocessing.get_context("spawn").Process(target=make_template, args=(template,))
    maker.start()
    maker.join()
    if maker.exitcode != 0:
        raise RuntimeError(f"the template could not be made in {folder}")
    run = RunDirectory.of(OPTIONS)
    history = [_metrics(epoch) for epoch in range(1, NUM_CHECKPOINTS + 1)]
    paths = [folder / run.epoch_checkpoint(row.epoch) for row in history]
    paths[0].parent.mkdir(parents=True)
    for epoch, path in enumerate(paths, start=1):
        write_checkpoint(template, path, history[:epoch])
    template.unlink()
    return paths


def main(where: str | None = None) -> None:
    """Make the files, measure, print."""
    print(machine_text())
    with tempfile.TemporaryDirectory(dir=where) as name:
        folder = Path(name)
        paths = make_run(folder)
        stored_gb = sum(path.stat().st_blocks for path in paths) * 512 / 1e9
        print(f"{len(paths)} checkpoints of {paths[0].stat().st_size / 1e9:.2f} GB each ({stored_gb:.2f} GB of disk)")
        arguments = ["--list_checkpoints", "--database_path", "LA", "--comment", "listing"]
        told = run_once([sys.executable, "-c", _LIST_AND_TELL, str(REPOSITORY), *arguments], folder).output
        assert told.count("📦") == NUM_CHECKPOINTS
        listing = run_repeatedly([*PROGRAM, *arguments], folder, REPEATS)
        loading = run_repeatedly([sys.executable, "-c", _LOAD_ONE, str(paths[0])], folder, REPEATS)
    print(f"{f'whole processes, median of {REPEATS}':<42}{'wall':>8}  {'processor':>9}  {'peak memory':>11}")
    for title, cost in (
        (f"  --list_checkpoints, all {NUM_CHECKPOINTS} files", listing),
        ("  torch.load(mmap=True), one file", loading),
    ):
        print(f"{title:<42}{cost.seconds:6.2f} s  {cost.cpu_seconds:7.2f} s  {cost.peak_mib:7.0f} MiB")
    print(
        f"{'  loading one / listing all':<42}{loading.seconds / listing.seconds:6.1f} x  "
        f"{loading.cpu_seconds / listing.cpu_seconds:7.1f} x  {loading.peak_mib / listing.peak_mib:7.1f} x"
    )
    print(f"torch imported by --list_checkpoints: {'yes' if told.rstrip().endswith('True') else 'no'}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
