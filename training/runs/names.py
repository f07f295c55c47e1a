"""Which file name a checkpoint gets: the default one of its epoch or step, or what `--checkpoint_name` makes of it.

Names are for people: the program reads the record inside a file, and never takes a name for a fact.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.checkpoints.record import CheckpointRecord, Kind
from training.runs.directory import default_checkpoint_name
from training.settings.name_template import NameTemplate
from training.settings.options import Options


@dataclass(frozen=True)
class CheckpointNames:
    """The names of one run's checkpoints; `template` is None where nothing but default names were asked for.

    >>> CheckpointNames.of(Options(checkpoint_name="ep{epoch:03d}")).template.rendered({"epoch": 7})
    'ep007.pth'
    """

    template: NameTemplate | None
    comment: str | None
    save_interval: int

    @classmethod
    def of(cls, options: Options) -> CheckpointNames:
        """Return the names that these options ask for."""
        return cls(options.name_template, options.comment, options.save_interval)

    def file_name(self, record: CheckpointRecord) -> str:
        """Return the name for a checkpoint with this record.

        A step checkpoint saved in between the steps of --save_interval (a stop, a signal) has the default name, since
        two of them could have one {kstep}, and so has one that was saved before it was validated.
        """
        if self.template is None or not self._is_named_by_template(record):
            return self._default_name(record)
        values = {"epoch": record.epoch, "step": record.step, "kstep": record.step // 1000}
        figures = _figures(record)
        if not self.template.figures <= set(figures):
            return self._default_name(record)
        return self.template.rendered({**figures, **values})

    def _is_named_by_template(self, record: CheckpointRecord) -> bool:
        assert self.template is not None
        if record.kind is Kind.STEP:
            return self.template.names_steps and record.step % self.save_interval == 0
        return record.kind is Kind.EPOCH and not self.template.names_steps

    def _default_name(self, record: CheckpointRecord) -> str:
        assert record.kind is not Kind.WEIGHTS, "files of weights have one name, see RunDirectory.best_weights"
        count = record.epoch if record.kind is Kind.EPOCH else record.step
        return default_checkpoint_name(record.kind.value, count, self.comment)


def _figures(record: CheckpointRecord) -> dict[str, float]:
    """Return the validation figures of exactly these weights; {} where they were not validated."""
    found = record.validated or (record.last if record.kind is Kind.EPOCH else None)
    return dict(found.figures) if found else {}
