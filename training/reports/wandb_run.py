"""The run at W&B: the same points as in all other logs, each once, however often training was stopped.

Every validation within an epoch and every epoch is one point, numbered from 0 in the order of training: W&B's own
`_step`. The axis of the curves is the training step, `global_step`. A point is handed over once a checkpoint that holds
it is on disk, so W&B never has one that training could lose. A process begins with the first point that W&B lacks:
online the service says which that is, offline the files of earlier processes do.

Whatever W&B raises ends the logging there with one warning, and never training. The package is imported in
`WandbRun` alone, as it begins.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from pathlib import Path
from typing import Any

from training.reports.points import Curves
from training.reports.story import Moment, Story
from training.reports.wandb_files import next_point, note_first_point
from training.runs.directory import RunDirectory
from training.settings.options import Options
from training.settings.tasks import Figure
from training.settings.wandb import WandbIdentity
from training.tasks.task import AudioExample
from utils.console import say
from utils.shell_text import quoted
from utils.waiting import Helpers, StopAskedError

DEFAULT_PROJECT = "bonafide"
INIT_TIMEOUT_S = 20.0
FINISH_TIMEOUT_S = 60.0
FILES_TIMEOUT_S = 10.0
HURRIED_TIMEOUT_S = 4.0  # after a stop, which is to end the process within 10 s
FLUSH_INTERVAL_S = 1.0  # by default 15 s, which are lost where this process is killed
_DATA_DIR = "WANDB_DATA_DIR"  # where W&B prepares artifacts, by default in the home folder
UPLOAD_TIMEOUT_S = 3600.0  # of checkpoints, which --log_model asks for


class WandbRun:
    """One process's part of a W&B run. All methods are called by the thread that trains, and none of them raises.

    It is told at the start, after each save and at the end of training. `stored` is what the checkpoint says, None for
    a training that W&B does not know yet, and `came_from` the logs folder of the run that made the checkpoint.
    `left_later` says that this training goes on from a checkpoint behind which others were: what W&B has of those is
    cut off where the service can do that, and otherwise this training gets a new run there, which begins with its first
    epoch. So it does where the training of the checkpoint `goes_on_elsewhere`, as one whose folder was copied may: two
    futures are two runs, unless WANDB_RUN_ID names the one of before.
    """

    moments = frozenset({Moment.BEGUN, Moment.SAVED, Moment.COMPLETED, Moment.ENDED})

    def __init__(
        self,
        run: RunDirectory,
        options: Options,
        stored: WandbIdentity | None,
        *,
        came_from: Path | None = None,
        left_later: bool = False,
        goes_on_elsewhere: bool = False,
    ) -> None:
        self._options = options
        self._left_later = left_later
        self._folder = Path(os.environ.get("WANDB_DIR") or run.logs_folder)
        self._folders = {self._folder, came_from or self._folder}
        self._is_known = stored is not None
        is_named = stored is not None and os.environ.get("WANDB_RUN_ID") == stored.run_id
        self._is_to_be_new = stored is not None and goes_on_elsewhere and not is_named
        self.identity = WandbIdentity(
            stored.run_id if stored else os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4),
            options.wandb_name or os.environ.get("WANDB_NAME") or (stored.name if stored else run.folder.name),
            options.wandb_project or (stored.project if stored else os.environ.get("WANDB_PROJECT") or DEFAULT_PROJECT),
        )
        self._run: Any = None
        self._num_logged = 0
        self._deciding: Figure | None = None
        self._has_failed = self._has_set_data_dir = self._is_hurried = False

    @property
    def is_logging(self) -> bool:
        """Whether W&B takes points: it was started, and has not failed."""
        return self._run is not None

    @property
    def place(self) -> str:
        """W&B."""
        return "W&B"

    def tell(self, story: Story) -> None:
        """Hand over the points that W&B lacks: at the start those of the checkpoint, later those that are saved."""
        if story.moment is Moment.BEGUN:
            self._start(Curves.of(story.history), story.history.figures.first)
        elif story.moment is Moment.SAVED:
            self._write(Curves.of(story.history, until=story.saved))
        elif story.moment is Moment.ENDED:
            self._is_hurried = bool(story.interrupted)
        else:
            self._complete(story)

    def _start(self, curves: Curves, deciding: Figure) -> None:
        num_points = len(curves)
        self._deciding = deciding
        self._guarded(lambda: self._begin(num_points))
        self._guarded(self._say_where)
        self._write(curves)

    def _begin(self, num_points: int) -> None:
        import wandb  # noqa: PLC0415

        if _DATA_DIR not in os.environ:
            os.environ[_DATA_DIR] = str((self._folder / "wandb" / "data").resolve())
            self._has_set_data_dir = True
        if self._is_to_be_new:
            old = self.identity.run_id
            self._take_new_id(
                f"the training of {old} may go on in the folder that this one was copied from (to go on with it here: "
                f"WANDB_RUN_ID={old})"
            )
        # A file that cannot be found was sent from elsewhere, with all that the checkpoint has.
        known = next_point(self._folders, self.identity.run_id) if self._is_known else 0
        mode = self._options.wandb_mode or os.environ.get("WANDB_MODE") or "online"
        if mode != "offline":
            failure = self._attempt(lambda: self._begin_online(num_points))
            if failure:
                say(f"[WARNING] W&B cannot be used online ({failure}): logging to files, to be sent later.")
                wandb.teardown()  # its service keeps a run that could not be begun
        if self._run is None:
            self._begin_offline(num_points if known is None else known)
        note_first_point(self._folder, self.identity.run_id, self._num_logged)

    def _write(self, curves: Curves) -> None:
        """Hand over what W&B lacks of these points, all of which must be in a checkpoint on disk."""

        def hand_over() -> None:
            for number, point in enumerate(curves.in_order(self._num_logged), self._num_logged):
                self._run.log(point, step=number, commit=True)
                self._num_logged = number + 1

        self._guarded(hand_over)

    def _complete(self, story: Story) -> None:
        """Add the checkpoints and the audio that --log_model and --log_audio ask for."""
        if self._options.log_audio:
            self._guarded(lambda: self._add_audio(story.audio_examples))
        if self._options.log_model:
            self._guarded(lambda: self._add_model(story.checkpoints()))

    def close(self) -> None:
        """Finish this process's part; online that waits until all is sent, for a time that is short after a stop."""
        if self._run is not None:
            self._guarded(self._finish_in_time if self._is_hurried else self._finish)
        self._run = None
        if self._has_set_data_dir:
            del os.environ[_DATA_DIR]
            self._has_set_data_dir = False

    def _finish_in_time(self) -> None:
        finished = Helpers(1, "W&B").do(lambda _: self._finish())
        wait([finished], HURRIED_TIMEOUT_S)
        if finished.done():
            finished.result()
        else:
            say(f"[NOTE] W&B did not take all of it within {HURRIED_TIMEOUT_S:.0f} s: the next start sends the rest.")

    def _finish(self) -> None:
        import wandb  # noqa: PLC0415

        self._run.finish()
        wandb.teardown()
        # Its service ends on its own, and may write after this: the next process must see what there is.
        until = time.monotonic() + FILES_TIMEOUT_S
        while (next_point([self._folder], self.identity.run_id) or 0) < self._num_logged and time.monotonic() < until:
            time.sleep(0.05)

    def _begin_online(self, num_points: int) -> None:
        import wandb  # noqa: PLC0415

        wandb.setup(wandb.Settings(silent=True))
        if not wandb.login(prompt=False, verify=False):
            raise RuntimeError("no login: run `wandb login`, or set WANDB_API_KEY")
        run = self._init(mode="online", resume="allow")
        if run.step > num_points:  # what came after the checkpoint is there already
            run.finish()
            run = self._rewound(num_points)
        self._run, self._num_logged = run, run.step

    def _rewound(self, num_points: int) -> Any:
        """Return the run cut off after its first points, or a new one where the service cannot do that."""
        found: list[Any] = []
        if num_points:
            moment = f"{self.identity.run_id}?_step={num_points - 1}"
            self._attempt(lambda: found.append(self._init(mode="online", resume_from=moment)))
        if not found:
            self._take_new_id(f"{self.identity.run_id} has epochs that come after this checkpoint")
            found.append(self._init(mode="online"))
        return found[0]

    def _begin_offline(self, first_point: int) -> None:
        if self._left_later and self._is_known:
            self._take_new_id(f"{self.identity.run_id} has epochs that come after this checkpoint")
            first_point = 0
        self._num_logged = first_point
        self._run = self._init(mode="offline")

    def _take_new_id(self, why: str) -> None:
        new = WandbIdentity(secrets.token_hex(4), self.identity.name, self.identity.project)
        say(f"[NOTE] W&B: a new run {new.run_id}; {why}.")
        self.identity, self._is_known = new, False

    def _init(self, **how: Any) -> Any:
        import wandb  # noqa: PLC0415

        self._folder.mkdir(parents=True, exist_ok=True)
        options = self._options
        run = wandb.init(
            id=self.identity.run_id,
            name=self.identity.name,
            project=self.identity.project,
            entity=options.wandb_entity,
            tags=list(options.wandb_tags) or None,
            notes=options.wandb_notes,
            dir=str(self._folder.resolve()),  # W&B's service may run in another folder
            config=options.as_dict(),
            allow_val_change=True,
            settings=wandb.Settings(
                console="off",
                silent=True,
                init_timeout=INIT_TIMEOUT_S,
                finish_timeout=UPLOAD_TIMEOUT_S if options.log_model else FINISH_TIMEOUT_S,
                disable_git=True,
                disable_code=True,
                disable_job_creation=True,
                x_transaction_log_flush_interval=FLUSH_INTERVAL_S,
            ),
            **how,
        )
        run.define_metric("global_step", hidden=True)
        run.define_metric("*", step_metric="global_step")
        if self._deciding:
            best = "max" if self._deciding.higher_is_better else "min"
            run.define_metric(f"val/{self._deciding.scalar}", step_metric="global_step", summary=f"{best},last")
        return run

    def _say_where(self) -> None:
        told = f"W&B: run {self.identity.name} ({self.identity.run_id}) of project {self.identity.project}"
        if self._run.offline:
            folder = quoted(str(self._folder / "wandb"))
            files = f"{folder}/offline-run-*-{self.identity.run_id}*"
            say(f"{told}, offline. To send it: WANDB_RESUME=allow wandb sync {files}")
        else:
            say(f"{told}, {self._run.url}")

    def _add_model(self, checkpoints: Sequence[Path]) -> None:
        import wandb  # noqa: PLC0415

        artifact = wandb.Artifact(f"checkpoints-{self.identity.run_id}", type="model")
        for path in checkpoints:
            if self._run.offline:
                artifact.add_reference(path.resolve().as_uri(), name=path.name)
            else:
                artifact.add_file(str(path), name=path.name, policy="immutable")  # no copy of it here
        self._run.log_artifact(artifact, aliases=["latest"])

    def _add_audio(self, audio_examples: Callable[[], Sequence[AudioExample]]) -> None:
        import wandb  # noqa: PLC0415

        try:
            examples = audio_examples()
        except StopAskedError:
            return
        measure = next((example.measure for example in examples), "score")
        table = wandb.Table(columns=["utterance", "label", measure, "audio"])
        for example in examples:
            caption = f"{example.name}, {example.label}, {example.measure} {example.score:.3f}"
            audio = wandb.Audio(example.waveform, sample_rate=example.rate, caption=caption)
            table.add_data(example.name, example.label, example.score, audio)
        self._run.summary["validation_audio"] = table

    def _guarded(self, action: Callable[[], None]) -> None:
        """Do something with the run, if there is one still; what goes wrong is said once and ends it."""
        if self._has_failed:
            return
        failure = self._attempt(action)
        if failure:
            self._run, self._has_failed = None, True
            say(f"[WARNING] W&B failed ({failure}): no more is logged there. Training and the other logs go on.")

    @staticmethod
    def _attempt(action: Callable[[], object]) -> str:
        """Do something with W&B and return what went wrong, in a line; "" where nothing did."""
        try:
            action()
        except Exception as error:  # noqa: BLE001  (a library that talks to a network may raise anything)
            return " ".join(f"{type(error).__name__}: {error}".split())
        return ""
