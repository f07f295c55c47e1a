"""The ways of saving that `benchmarks.saving` compares: torch.save with fsync, ours, and torch's own async_save."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_saver import async_save

from benchmarks.listing import XLS_R_300M_CONFIG
from training.checkpoints.record import CheckpointRecord, Kind
from training.saving.background_saving import BackgroundSaver, fence_before_updates, tensors_that_steps_change
from training.saving.save_control import SaveControl
from training.saving.store import save_checkpoint
from training.settings.options import Options
from training.state.snapshot import RunFacts, take_snapshot
from training.state.train_state import TrainState


@dataclass(frozen=True)
class Way:
    """One way of saving: `begin` saves step N into a path; `held_later` is what it held up the loop since, in seconds.

    `durable_at` is the time when the save was on disk, None while it is under way.
    """

    begin: Callable[[Path], None]
    durable_at: Callable[[], float | None]
    held_later: Callable[[], float] = lambda: 0.0
    close: Callable[[], object] = lambda: None


def way_of(name: str, state: TrainState, device: torch.device) -> Way:
    """Return a way to save this state, ready for its first save."""
    makers: dict[str, Callable[[], Way]] = {
        "torch_save": lambda: _torch_save(state),
        "ours": lambda: _ours(state, device),
        "async_save": lambda: _async_save(state, None),
        "async_save_kept": lambda: _async_save(state, _kept(device)),
    }
    return makers[name]()


def _kept(device: torch.device) -> DefaultStager:
    """Keep the memory between saves: pinned and filled beside training, which torch does from a GPU only."""
    is_cuda = device.type == "cuda"
    return DefaultStager(StagingOptions(is_cuda, False, is_cuda, is_cuda))


def _torch_save(state: TrainState) -> Way:
    def begin(path: Path) -> None:
        torch.save(state.to_payload(), path)
        with path.open("rb") as file:
            os.fsync(file.fileno())

    return Way(begin, time.perf_counter)


def _ours(state: TrainState, device: torch.device) -> Way:
    facts = RunFacts(Options(), {}, XLS_R_300M_CONFIG, {})
    paths: list[Path] = []
    begun: list[float] = []
    ended: list[float] = []

    def commit(payload: dict[str, Any], record: CheckpointRecord, control: SaveControl) -> Path:
        path = paths[-1]
        save_checkpoint(path, payload, record, control.check)
        ended.append(time.perf_counter())
        return path

    saver = BackgroundSaver(
        commit,
        lambda: tensors_that_steps_change(state.networks.values(), state.optimizers.values()),
        device.type == "cuda",
    )
    hooks = fence_before_updates(saver.fence, state.optimizers.values())
    saver.prepare()

    def begin(path: Path) -> None:
        saver.collect()
        paths.append(path)
        saver.begin(*take_snapshot(state, facts, Kind.STEP))
        begun.append(saver.blocked.last_seconds)

    def durable_at() -> float | None:
        return ended[-1] if len(ended) == len(paths) else None

    def close() -> None:
        hooks.close()
        saver.close()

    return Way(begin, durable_at, lambda: saver.blocked.last_seconds - begun[-1], close)


def _async_save(state: TrainState, stager: DefaultStager | None) -> Way:
    saves: list[Any] = []
    ended: list[float] = []
    waited = [0.0]

    def begin(path: Path) -> None:
        waited[0] = 0.0
        answer: Any = async_save(_tensors_of(state), checkpoint_id=path, no_dist=True, async_stager=stager)
        saves.append(answer)
        _upload(answer).add_done_callback(lambda _: ended.append(time.perf_counter()))

    def before_an_update() -> None:  # as torch's tutorial has it: nothing may change what is not staged yet
        start = time.perf_counter()
        if saves and hasattr(saves[-1], "staging_completion"):
            saves[-1].staging_completion.result()
        waited[0] += time.perf_counter() - start

    def durable_at() -> float | None:
        if len(ended) < len(saves):
            return None
        _upload(saves[-1]).result()
        return ended[-1]

    def close() -> None:
        hooks.close()
        if stager:
            stager.close()

    hooks = fence_before_updates(before_an_update, state.optimizers.values())
    return Way(begin, durable_at, lambda: waited[0], close)


def _tensors_of(state: TrainState) -> dict[str, Any]:
    """Return weights and moments in plain containers."""
    payload = state.to_payload()
    weights = {name: tensor.detach() for name, tensor in payload["model_state_dict"].items()}
    return {
        "weights": weights,
        "moments": {str(n): dict(of) for n, of in payload["optimizer_state_dict"]["state"].items()},
    }


def _upload(answer: Any) -> Any:
    return getattr(answer, "upload_completion", answer)
