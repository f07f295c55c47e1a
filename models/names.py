"""The names a detector's settings are made of, free of torch so that the command line answers at once."""

from __future__ import annotations

MODEL_TYPES = ("g3_heatmap",)

TEMPORAL_BIASES = ("centre", "none")

XLS_R_300M = "facebook/wav2vec2-xls-r-300m"
COMPACT = "compact"
