"""ASV score files of the challenges, read into the error rates that the t-DCF needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.scores.tandem_cost import AsvErrorRates, asv_error_rates
from utils.text_tables import NUMBER_RULE, TextTable, is_number, plain_number, read_table

KINDS = ("target", "nontarget", "spoof")
_ADVICE = "check --asv_scores"
_METADATA = "trial_metadata.txt"


def read_asv_error_rates(path: Path, subset: str) -> AsvErrorRates:
    """Return the error rates of an ASV system, at its EER threshold, from its score file.

    * ASVspoof 2019: lines `source key score`, the key target, nontarget or spoof;
    * ASVspoof 2021: lines `speaker trial score` in `keys/LA/ASV/<system>/score.txt`; the keys stand line by line in
      `keys/LA/ASV/trial_metadata.txt` (key in column 6, subset in column 8), and trials of `subset` are used.

    Raises UserError for what cannot be read or understood and where a kind of trial is missing.
    """
    table = read_table(path, "ASV score", _ADVICE, (), _is_known_row)
    if len(table.columns) != 3:
        raise UserError(
            f"{path}, line {table.line_numbers[0]}: an ASV score file has lines `source key score` (ASVspoof 2019) or "
            f"`speaker trial score` (2021), found {len(table.columns)} columns (`{table.first_line()}`): {_ADVICE}"
        )
    scores = np.array(table.parsed(2, plain_number, NUMBER_RULE), dtype=np.float64)
    has_keys = table.columns[1][0] in KINDS
    keys = np.array(table.columns[1]) if has_keys else _keys_beside(path, table, subset)
    if has_keys:
        table.parsed(1, KINDS.index, "the key is `target`, `nontarget` or `spoof`")
    return asv_error_rates(*(scores[keys == kind] for kind in KINDS))


def _is_known_row(cells: Sequence[str]) -> bool:
    return len(cells) == 3 and is_number(cells[2])


def _keys_beside(path: Path, table: TextTable, subset: str) -> np.ndarray:
    """Return the key of each line, "" for those outside `subset`, from the file that the 2021 package has beside it."""
    beside = path.resolve().parent.parent / _METADATA
    if not beside.is_file():
        raise UserError(
            f"{path} does not hold keys (`{table.first_line()}`), and there is no {beside}: unpack the keys of "
            "ASVspoof 2021 as they are, keys/LA/ASV with both files"
        )
    metadata = read_table(beside, "ASV key", _ADVICE, (), lambda cells: len(cells) >= 8)
    if len(metadata.columns) < 8 or metadata.columns[1] != table.columns[1]:
        raise UserError(
            f"{path} and {beside} must hold the same trials line by line, found {len(table):,} and {len(metadata):,} "
            f"lines (`{table.first_line()}`; `{metadata.first_line()}`): unpack both from the same keys"
        )
    keys, subsets = np.array(metadata.columns[5]), np.array(metadata.columns[7])
    return np.where((subsets == subset) | (subset == "all"), keys, "")
