"""How this process was started: alone, or as one of several by torchrun or srun, as its environment says.

torchrun sets RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT and more (docs.pytorch.org, "torchrun (Elastic Launch)"); srun
sets SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_STEP_NODELIST and more (slurm.schedmd.com/srun.html). A batch script that
is no step of srun has no SLURM_STEP_NUM_TASKS: what it starts is alone, whatever --ntasks says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from utils.errors import EXIT_USAGE, UserError

_MOST = {"MASTER_PORT": 65_535}
_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_FIRST_PORT, _NUM_PORTS = 12_000, 20_000  # below those that Linux gives to clients (32768 and up)
_STEPS_OF_A_JOB = 16


@dataclass(frozen=True)
class Launch:
    """Which of `count` processes this is, and where they find each other: a store at `address`, `port`.

    `local_index` counts those of one machine, of which there are `local_count`. `attempt` says how often torchrun has
    started them again, of at most `most_restarts` times. With `has_store` torchrun keeps that store; else the first
    process does.

    >>> Launch().count, Launch().is_first
    (1, True)
    """

    index: int = 0
    count: int = 1
    local_index: int = 0
    local_count: int = 1
    address: str = ""
    port: int = 0
    attempt: int = 0
    most_restarts: int = 0
    has_store: bool = False

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints what all would print."""
        return self.index == 0


def find_launch(environment: Mapping[str, str]) -> Launch:
    """Return how this process was started; raises UserError (usage) where the environment contradicts itself.

    >>> find_launch({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "29500"}).index
    1
    >>> find_launch({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}).count
    1
    """
    if "RANK" in environment or _number_of(environment, "WORLD_SIZE", 1) > 1:
        return _by_torchrun(environment)
    if _number_of(environment, "SLURM_STEP_NUM_TASKS", 1) > 1:
        return _by_srun(environment)
    return Launch()


def _by_torchrun(environment: Mapping[str, str]) -> Launch:
    missing = [name for name in _NEEDED if name not in environment]
    if missing:
        there = next(name for name in _NEEDED if name in environment)
        raise UserError(
            f"{there} is {environment[there]} in the environment, and {', '.join(missing)} {_is_or_are(missing)} not "
            f"there: start several processes by torchrun or srun, or unset {there}",
            EXIT_USAGE,
        )
    count, index = _number_of(environment, "WORLD_SIZE"), _number_of(environment, "RANK")
    if index >= count:
        raise UserError(
            f"RANK is {index} and WORLD_SIZE {count} in the environment: ranks are counted from 0", EXIT_USAGE
        )
    attempt = _number_of(environment, "TORCHELASTIC_RESTART_COUNT", 0)
    most_restarts = _number_of(environment, "TORCHELASTIC_MAX_RESTARTS", 0)
    if count == 1:
        return Launch(attempt=attempt, most_restarts=most_restarts)
    return Launch(
        index,
        count,
        _number_of(environment, "LOCAL_RANK", index),
        _number_of(environment, "LOCAL_WORLD_SIZE", count),
        environment["MASTER_ADDR"],
        _number_of(environment, "MASTER_PORT"),
        attempt,
        most_restarts,
        environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )


def _by_srun(environment: Mapping[str, str]) -> Launch:
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or ""
    if not nodes or "SLURM_PROCID" not in environment:
        raise UserError(
            "SLURM_STEP_NUM_TASKS is in the environment, and SLURM_PROCID or SLURM_STEP_NODELIST is not: start several "
            "processes by srun or torchrun, or unset SLURM_STEP_NUM_TASKS",
            EXIT_USAGE,
        )
    count = _number_of(environment, "SLURM_STEP_NUM_TASKS")
    node = _number_of(environment, "SLURM_NODEID", 0)
    tasks = _tasks_per_node(environment.get("SLURM_STEP_TASKS_PER_NODE", str(count)))
    job, step = _number_of(environment, "SLURM_JOB_ID", 0), _number_of(environment, "SLURM_STEP_ID", 0)
    return Launch(
        _number_of(environment, "SLURM_PROCID"),
        count,
        _number_of(environment, "SLURM_LOCALID", 0),
        tasks[node] if node < len(tasks) else 1,
        environment.get("MASTER_ADDR") or _first_node(nodes),
        _number_of(environment, "MASTER_PORT", _FIRST_PORT + (job * _STEPS_OF_A_JOB + step) % _NUM_PORTS),
    )


def _first_node(nodes: str) -> str:
    """Return the first host of a list as Slurm writes them.

    >>> [_first_node(nodes) for nodes in ("a17", "gpu[03-05,09],login1", "n[7,9]-ib", "a1,a2")]
    ['a17', 'gpu03', 'n7-ib', 'a1']
    """
    first = re.match(r"([^,\[]*)(?:\[([^\],-]+)[^\]]*\])?([^,\[]*)", nodes)
    assert first is not None, "every part may be empty"
    return "".join(part or "" for part in first.groups())


def _tasks_per_node(text: str) -> list[int]:
    """Return how many processes each node has, from Slurm's short form.

    >>> _tasks_per_node("2(x3),1")
    [2, 2, 2, 1]
    """
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(tasks) for tasks, times in found for _ in range(int(times or 1))]


def _number_of(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, "")
    if not text and default is not None:
        return default
    most = _MOST.get(name, 999_999_999)
    if not re.fullmatch(r"\d{1,9}", text) or int(text) > most:
        what = f"a whole number up to {most}" if name in _MOST else "a whole number"
        raise UserError(f"{name} in the environment must be {what}, found {text!r}: unset it", EXIT_USAGE)
    return int(text)


def _is_or_are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"
