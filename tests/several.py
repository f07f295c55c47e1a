"""Runs a function in several processes of one run, forked from this one, and returns what it gave in each of them."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import TypeVar

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from utils.launch import Launch
from utils.processes import joined
from utils.ranks import Alone, Ranks

Result = TypeVar("Result")
AT_MOST_S = 120.0
_STORES: list[object] = []  # for good: a fork that frees one waits for a thread that it has not


def on_processes(count: int, work: Callable[[Ranks], Result]) -> list[Result]:
    """Return what `work` returned in each of `count` processes; one is this process itself."""
    if count == 1:
        return [work(Alone())]
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    _STORES.append(store)
    forking = multiprocessing.get_context("fork")
    started, all_are_there = [], forking.Event()  # see `Several`
    for index in range(count):
        own, its = forking.Pipe(duplex=False)
        launch = Launch(index, count, index, count, "127.0.0.1", store.port, has_store=True)
        process = forking.Process(target=_answer, args=(launch, work, its, all_are_there))
        process.start()
        its.close()
        started.append((process, own))
    all_are_there.set()
    try:
        answers = [own.recv() if own.poll(AT_MOST_S) else ([], "no answer") for _, own in started]
    finally:
        for process, own in started:
            process.kill()
            process.join()
            own.close()
    assert not any(failure for _, failure in answers), "\n".join(failure for _, failure in answers)
    return [result for results, _ in answers for result in results]


def _answer(launch: Launch, work: Callable[[Ranks], Result], answers: Connection, all_are_there: Event) -> None:
    all_are_there.wait(AT_MOST_S)
    torch.set_num_threads(1)  # those of OpenMP do not survive a fork
    try:
        with joined(launch) as ranks:
            answers.send(([work(ranks)], ""))
    except BaseException:  # noqa: BLE001  (told to whoever asked)
        answers.send(([], traceback.format_exc()))
