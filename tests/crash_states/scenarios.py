"""What is done to run folders by the real program, on the task of two networks: small files, and all of the code."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from main import main
from tests.crash_states.disk import Recording
from tests.crash_states.recorded import Work, record
from tests.system_calls.recorder import Call, Fault, trace
from tests.toy_task import registered
from training.settings.command_line import read_command
from training.settings.requests import AutoResume

RUN = "models/echo_DF_CCE_{epochs}_4_1e-06_group3_contrastiveFalse"
_TOY = ("--model_type", "echo", "--batch_size", "4", "--num_workers", "0")
Command = tuple[str, ...]


@dataclass(frozen=True)
class Scenario:
    """`before` are commands that make the folder what it is, `command` is what a crash ends.

    `killed` ends the last command before by SIGKILL: then a crash finds what was done and synced by two processes.
    `next_start` is what a user types after the crash, with --auto_resume: training to the same end.
    """

    command: Command
    next_start: Command
    before: tuple[Command, ...] = ()
    killed: Fault | None = None

    def recorded(self, folder: Path, corpus: Path) -> Recording:
        """Do all of it in an empty folder, which then holds what an undisturbed run leaves, and return the record."""
        *durable, last = *(self.work(command, corpus) for command in self.before), self.work(self.command, corpus)
        killed = [durable.pop()] if self.killed else []
        for work in durable:
            done = trace(work, [], cwd=folder)
            assert done.exit_code == 0, done.output
        return record(folder, *killed, last, faults=[self.killed] if self.killed else [])

    def calls(self, folder: Path, corpus: Path) -> tuple[Call, ...]:
        """Return the calls of the command in an empty folder, those that failed too, as faults count them."""
        done = trace(self.work(self.command, corpus), [folder], cwd=folder)
        assert done.exit_code == 0, done.output
        return done.calls

    def work(self, command: Command, corpus: Path) -> Work:
        """Return a command as something to be done in a fork."""
        return lambda: _main([*command, *self._more(command, corpus)])

    def start_again(self, corpus: Path) -> Work:
        """Return what a user does after the crash."""
        return self.work(self.next_start, corpus)

    def request(self, corpus: Path) -> AutoResume:
        """Return what the user asks for then."""
        with registered():
            request = read_command([*self.next_start, *self._more(self.next_start, corpus)])
        assert isinstance(request, AutoResume)
        return request

    @staticmethod
    def _more(command: Command, corpus: Path) -> Sequence[str]:
        data = ["--database_path", str(corpus)]
        return data if "--resume" in command else [*_TOY, *data]


def warm_up(folder: Path, corpus: Path) -> None:
    """Train once in this process, so that its forks need not import and compile what training imports and compiles."""
    with contextlib.chdir(folder):
        assert _main([*_TOY, *_epochs(1), "--database_path", str(corpus)]) == 0


def _main(arguments: Sequence[str]) -> int:
    with registered():
        return main(arguments)


def _epochs(number: int, *more: str) -> Command:
    return "--num_epochs", str(number), *more


def training(epochs: int, *flags: str, more: Command = (), before: tuple[Command, ...] = ()) -> Scenario:
    """Return a scenario of one training, which is started again with the same flags."""
    command = _epochs(epochs, *flags)
    return Scenario((*command, *more), (*command, "--auto_resume"), before)


def killed_at(fault: Fault, epochs: int = 2, *flags: str) -> Scenario:
    """Return a training that is killed somewhere, goes on, and then ends in a crash."""
    again = _epochs(epochs, *flags, "--auto_resume")
    return Scenario(again, again, (_epochs(epochs, *flags),), fault)


_FREQUENT = ("--keep_last_n", "1", "--save_interval", "2")
SCENARIOS: Mapping[str, Scenario] = {
    "steps and epochs are saved and pruned": training(2, *_FREQUENT),
    "in the foreground": training(2, *_FREQUENT, "--sync_save"),
    "the best alone is kept": training(3, "--save_best_only"),
    "old ones are compressed": training(4, "--compress_after", "1"),
    "names by a template": training(
        2, "--checkpoint_name", "at_{step:05d}.pt", "--save_interval", "1", "--val_interval", "1"
    ),
    "a killed run goes on": killed_at(Fault("rename", r"checkpoint_epoch_2\.pth$", kill=True), 3, *_FREQUENT),
    "a new run moves the old one aside": training(2, before=(_epochs(2),)),
    "a run goes on from an older epoch": Scenario(
        ("--resume", "--model_path", RUN.format(epochs=3) + "/checkpoint_epoch_1.pth"),
        _epochs(3, "--auto_resume"),
        (_epochs(3),),
    ),
    "a run of another length is brought along": training(3, more=("--auto_resume",), before=(_epochs(2),)),
    "an experiment's next version": training(
        2, "--experiment", "x", "--lr", "1e-6", before=(_epochs(1, "--experiment", "x", "--lr", "1e-3"),)
    ),
}
