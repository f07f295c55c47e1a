"""Batches with each spoof beside its source, for the trials of a part: --pair_batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from utils.corpora import CorpusPart
from utils.corpora.trials import UNKNOWN, sources_of
from utils.errors import UserError
from utils.pairing import Kin, families, layout_of, num_other_pairs, pairs
from utils.seeding import Visit
from utils.text_tables import few

_Item = TypeVar("_Item")


class PairedOrder:
    """The batches of each epoch, by the rules of `utils.pairing`: `families`, or with `balanced` `pairs`.

    Raises UserError where no spoof has its source in the part, where a source and its spoofs do not fit into a batch,
    and where bona fide utterances would have no spoof to stand beside.
    """

    def __init__(self, part: CorpusPart, batch_size: int, *, balanced: bool) -> None:
        trials = part.protocol.trials
        self._batch_size = batch_size
        self._balanced = balanced
        self._kin = Kin.of([trial.is_bona_fide is True for trial in trials], sources_of(trials))
        if not self._kin.families:
            raise UserError(_no_pairs(part))
        if balanced:
            self._refuse_lonely(part)
            self.num_batches = -(-2 * (self._kin.num_pairs + num_other_pairs(self._kin)) // batch_size)
        else:
            self._refuse_large(part)
            self.num_batches = len(layout_of(self._kin, batch_size))

    def batches(self, seed: int, epoch: int) -> list[list[Visit]]:
        """Return the batches of an epoch (from 1), `num_batches` of them."""
        if self._balanced:
            return in_batches(pairs(self._kin, seed, epoch), self._batch_size)
        return families(self._kin, self._batch_size, seed, epoch)

    @property
    def told(self) -> str:
        """What is paired, in a line."""
        kin = self._kin
        told = [f"pairs: {kin.num_pairs:,} spoofs, each in one batch with its source ({len(kin.families):,} sources)"]
        told += [f"{len(kin.other_spoofs):,} spoofs without one"] if kin.other_spoofs else []
        told += [f"{len(kin.other_bona_fide):,} bona fide without spoofs"] if kin.other_bona_fide else []
        return ", ".join(told)

    def _refuse_large(self, part: CorpusPart) -> None:
        largest = max(self._kin.families, key=len)
        if len(largest) > self._batch_size:
            raise UserError(
                f"--pair_batches keeps a source and all of its spoofs in one batch, and --batch_size "
                f"{self._batch_size} does not hold {part.protocol.trials[largest[0]].utterance} and its "
                f"{len(largest) - 1} spoofs: pass --batch_size {len(largest)} or more, or --balanced_batches, which "
                "takes each spoof with its source alone"
            )

    def _refuse_lonely(self, part: CorpusPart) -> None:
        lonely = [part.protocol.trials[index].utterance for index in self._kin.other_bona_fide]
        if lonely and not self._kin.other_spoofs:
            raise UserError(
                f"--pair_batches with --balanced_batches: {len(lonely):,} bona fide utterances of {part.protocol.path} "
                f"have no spoof, and there is none without a source to stand beside them ({few(lonely)}): leave "
                "--balanced_batches out, or take them out of the table"
            )


def in_batches(order: Sequence[_Item], batch_size: int) -> list[list[_Item]]:
    """Return an order cut into batches, the last of which may be smaller."""
    return [list(order[first : first + batch_size]) for first in range(0, len(order), batch_size)]


def _no_pairs(part: CorpusPart) -> str:
    named = [trial.source for trial in part.protocol.trials if trial.source != UNKNOWN]
    found = (
        f"its column `source` names no bona fide utterance of this part (found {few(named)})"
        if named
        else "it has no column `source` that names the bona fide utterance of a spoof"
    )
    return (
        f"--pair_batches has no pairs in {part.protocol.path}: {found}; --make_spoofs writes such a corpus, or leave "
        "--pair_batches out"
    )
