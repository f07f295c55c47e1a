"""The detector contract: settings that cannot be wrong, scores that point one way, attention that adds up."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest
import torch

from models.build import DETECTORS, RAW_DETECTORS, create_detector, rebuild_detector
from models.detector import AttentionWeights, DetectorSettings, scores
from models.names import DETECTOR_TYPES, FRONT_END_TYPES, RAW_WAVEFORM_TYPES
from utils.errors import UserError

COMPACT = DetectorSettings(ssl_model="compact", use_contrastive=True)


@pytest.mark.parametrize(
    ("flag", "setting", "value"),
    [
        ("--model_type", "model_type", "resnet"),
        ("--group_size", "group_size", 0),
        ("--group_size", "group_size", -3),
        ("--group_size", "group_size", 1.5),
        ("--temporal_bias", "temporal_bias", "edges"),
        ("--ssl_model", "ssl_model", " "),
    ],
)
def test_settings_no_detector_can_have_are_refused_with_their_flag(flag: str, setting: str, value: Any) -> None:
    with pytest.raises(UserError, match=flag) as refusal:
        dataclasses.replace(COMPACT, **{setting: value})
    assert str(value) in str(refusal.value)


def test_a_group_larger_than_the_front_end_is_refused_with_both_numbers() -> None:
    with pytest.raises(UserError, match=r"--group_size.*--ssl_model compact, 6, found 7"):
        create_detector(dataclasses.replace(COMPACT, group_size=7))


def test_every_model_type_has_a_builder() -> None:
    assert (tuple(DETECTORS), tuple(RAW_DETECTORS)) == (FRONT_END_TYPES, RAW_WAVEFORM_TYPES)
    assert DETECTOR_TYPES == FRONT_END_TYPES + RAW_WAVEFORM_TYPES


def test_the_names_need_no_torch() -> None:
    program = "import sys, models.names; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_higher_score_means_bona_fide() -> None:
    log_probabilities = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]]).log()
    expected = torch.tensor([1 / 9, 1.0, 4.0]).log()
    torch.testing.assert_close(scores(log_probabilities), expected)


def test_layer_importance_is_inter_times_intra() -> None:
    # Three layers in groups of two: the last place is padding.
    attention = AttentionWeights(
        temporal=torch.tensor([[[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]]]),
        intra=torch.tensor([[[0.25, 0.75], [1.0, 0.0]]]),
        inter=torch.tensor([[0.4, 0.6]]),
    )
    torch.testing.assert_close(attention.layer_importance(), torch.tensor([[0.1, 0.3, 0.6]]))
    torch.testing.assert_close(attention.time_importance(), torch.tensor([[0.05 + 0.3, 0.05 + 0.6]]))


def test_forward_gives_what_analyse_gives() -> None:
    detector = create_detector(COMPACT).eval()
    waveform = torch.randn(2, 4000, generator=torch.Generator().manual_seed(1))
    assert torch.equal(detector(waveform), detector.analyse(waveform).log_probabilities)


def test_a_rebuilt_detector_with_the_same_weights_gives_the_same_bits() -> None:
    detector = create_detector(COMPACT).eval()
    rebuilt = rebuild_detector(COMPACT, detector.front_end_config).eval()
    rebuilt.load_state_dict(detector.state_dict(), strict=True)
    waveform = torch.randn(2, 4000, generator=torch.Generator().manual_seed(1))
    assert torch.equal(rebuilt(waveform), detector(waveform))
    assert rebuilt.front_end_config == detector.front_end_config
