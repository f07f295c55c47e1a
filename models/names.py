"""The names a detector's settings are made of, free of torch so that the command line answers at once."""

from __future__ import annotations

FRONT_END_TYPES = ("g3_heatmap",)
"""Detectors on a self-supervised front-end."""
RAW_WAVEFORM_TYPES = ("aasist", "aasist_l")
"""Detectors that take the waveform itself: settings of a front-end and of attention over its layers mean nothing."""
MODEL_TYPES = (*FRONT_END_TYPES, *RAW_WAVEFORM_TYPES)

TEMPORAL_BIASES = ("centre", "none")

XLS_R_300M = "facebook/wav2vec2-xls-r-300m"
COMPACT = "compact"
