"""The names a detector's settings are made of, free of torch so that the command line answers at once."""

from __future__ import annotations

from collections.abc import Mapping

FRONT_END_TYPES = ("g3_heatmap", "sls", "ssl_mean")
"""Detectors on a self-supervised front-end."""
RAW_WAVEFORM_TYPES = ("aasist", "aasist_l", "lcnn", "spectrogram_resnet18", "spectrogram_swin")
"""Detectors that take the waveform itself, and compute what they need from it: all of their weights begin random."""
DETECTOR_TYPES = (*FRONT_END_TYPES, *RAW_WAVEFORM_TYPES)
VOCODER_TYPES = ("hifigan",)
"""Not detectors: what makes waveforms of mel spectrograms."""
MODEL_TYPES = (*DETECTOR_TYPES, *VOCODER_TYPES)

TYPES_WITH_SETTING: Mapping[str, tuple[str, ...]] = {
    "ssl_model": FRONT_END_TYPES,
    "normalize_waveform": FRONT_END_TYPES,
    "freeze_ssl": FRONT_END_TYPES,
    "group_size": ("g3_heatmap",),
    "temporal_bias": ("g3_heatmap",),
    "use_contrastive": ("g3_heatmap",),
    "visualize_attention": ("g3_heatmap",),
    "vocoder_size": VOCODER_TYPES,
    "metric_discriminator": VOCODER_TYPES,
}
"""The types for which a setting means something; settings that are not named here are for all of them."""

TEMPORAL_BIASES = ("centre", "none")
VOCODER_SIZES = ("V1", "V2", "V3", "small")

XLS_R_300M = "facebook/wav2vec2-xls-r-300m"
COMPACT = "compact"
