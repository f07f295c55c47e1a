"""The settings of a run: their documented defaults, pinned, and every bad value refused by the flag's name."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from models.names import DETECTOR_TYPES, FRONT_END_TYPES, TYPES_WITH_SETTING, VOCODER_TYPES, XLS_R_300M
from training.settings.options import SETTINGS, Options, options_from_record
from utils.errors import EXIT_USAGE, UserError

# Every setting and its default. A new flag is a decision: it is made here too, and in the docs.
DEFAULTS: dict[str, Any] = {
    "database_path": "demo",
    "protocols_path": None,
    "label_1": None,
    "track": "DF",
    "num_examples": None,
    "crop": "start",
    "algo": 0,
    "nBands": 5,
    "minF": 20.0,
    "maxF": 8000.0,
    "minBW": 100.0,
    "maxBW": 1000.0,
    "minCoeff": 10,
    "maxCoeff": 100,
    "minG": 0.0,
    "maxG": 0.0,
    "minBiasLinNonLin": 5.0,
    "maxBiasLinNonLin": 20.0,
    "N_f": 5,
    "P": 10.0,
    "g_sd": 2.0,
    "SNRmin": 10.0,
    "SNRmax": 40.0,
    "model_type": "g3_heatmap",
    "vocoder_size": "V1",
    "metric_discriminator": False,
    "ssl_model": "compact",
    "group_size": 3,
    "temporal_bias": "centre",
    "normalize_waveform": False,
    "freeze_ssl": False,
    "use_contrastive": False,
    "loss": "CCE",
    "class_weights": [0.1, 0.9],
    "focal_gamma": 2.0,
    "contrastive": "margin",
    "contrastive_weight": 0.1,
    "supcon_weight": 0.1,
    "batch_size": 16,
    "balanced_batches": False,
    "pair_batches": False,
    "accumulate_steps": 1,
    "num_epochs": 100,
    "patience": 0,
    "lr": 1e-6,
    "weight_decay": 1e-4,
    "clip_grad_norm": None,
    "scheduler": "constant",
    "lr_min": 0.0,
    "plateau_patience": 3,
    "plateau_factor": 0.5,
    "warmup_steps": 0,
    "swa": False,
    "swa_below": 100.0,
    "seed": 1234,
    "adam": "fused",
    "precision": "fp32",
    "device": "auto",
    "num_workers": 2,
    "save_interval": 1000,
    "max_lost": None,
    "mirror": None,
    "val_interval": 0,
    "save_freq": 1,
    "milestones": [],
    "keep_last_n": None,
    "save_best_only": False,
    "checkpoint_name": None,
    "compress_after": None,
    "sync_save": False,
    "experiment": None,
    "comment": None,
    "wandb": False,
    "wandb_project": None,
    "wandb_entity": None,
    "wandb_name": None,
    "wandb_tags": [],
    "wandb_notes": None,
    "wandb_mode": None,
    "log_model": False,
    "log_audio": False,
    "save_wandb_metadata": True,
    "visualize_attention": False,
    "viz_samples": 20,
    "viz_frequency": 10,
}

# (setting, a value that is not possible, the words of the refusal)
BAD_VALUES: list[tuple[str, Any, str]] = [
    ("track", "PA", "--track must be one of LA, DF, In-the-Wild, found 'PA'"),
    ("model_type", "rawnet", "--model_type must be one of g3_heatmap, sls, ssl_mean, aasist, aasist_l, lcnn"),
    ("loss", "MSE", "--loss must be one of CCE"),
    ("class_weights", (0.1,), "--class_weights must be two numbers above 0, for spoof and for bona fide"),
    ("class_weights", (0.1, 0.9, 1.0), "such as 0.1,0.9, found 0.1,0.9,1"),
    ("class_weights", (0.0, 1.0), "found 0,1"),
    ("class_weights", (0.1, float("nan")), "found 0.1,nan"),
    ("class_weights", (0.1, float("inf")), "found 0.1,inf"),
    ("focal_gamma", -1.0, "--focal_gamma must be at least 0, found -1.0"),
    ("crop", "end", "--crop must be one of start, random"),
    ("algo", 9, "--algo must be at most 8, found 9"),
    ("algo", -1, "--algo must be at least 0, found -1"),
    ("nBands", 0, "--nBands must be at least 1, found 0"),
    ("minF", -1.0, "--minF must be at least 0, found -1.0"),
    ("maxF", 8001.0, "--maxF must be at most 8000, found 8001.0"),
    ("minF", 8000.5, "--minF must not exceed --maxF, found 8000.5 and 8000"),
    ("minBW", 0.0, "--minBW must be at least 1, found 0.0"),
    ("maxBW", 50.0, "--minBW must not exceed --maxBW, found 100 and 50"),
    ("minCoeff", 0, "--minCoeff must be at least 1, found 0"),
    ("minCoeff", 101, "--minCoeff must not exceed --maxCoeff, found 101 and 100"),
    ("minG", 1.0, "--minG must not exceed --maxG, found 1 and 0"),
    ("N_f", 0, "--N_f must be at least 1, found 0"),
    ("P", 101.0, "--P must be at most 100, found 101.0"),
    ("g_sd", -1.0, "--g_sd must be at least 0, found -1.0"),
    ("SNRmax", 5.0, "--SNRmin must not exceed --SNRmax, found 10 and 5"),
    ("scheduler", "step", "--scheduler must be one of constant, linear, cosine, plateau"),
    ("patience", -1, "--patience must be at least 0, found -1"),
    ("plateau_patience", -1, "--plateau_patience must be at least 0, found -1"),
    ("lr_min", -1.0, "--lr_min must be at least 0, found -1.0"),
    ("lr_min", 1e-3, "--lr_min is what --lr falls to and must not exceed it, found 0.001 and 1e-06"),
    ("swa_below", -1.0, "--swa_below must be at least 0, found -1.0"),
    ("contrastive", "triplet", "--contrastive must be one of margin, infonce"),
    ("plateau_factor", 0.0, "--plateau_factor must be above 0, found 0.0"),
    ("plateau_factor", 1.5, "--plateau_factor must be at most 1, found 1.5"),
    ("precision", "fp8", "--precision must be one of fp32, bf16, fp16"),
    ("num_examples", 1, "--num_examples must be at least 2, found 1"),
    ("group_size", 0, "--group_size must be at least 1, found 0"),
    ("batch_size", 0, "--batch_size must be at least 1, found 0"),
    ("num_epochs", 0, "--num_epochs must be at least 1, found 0"),
    ("lr", 0.0, "--lr must be above 0, found 0.0"),
    ("lr", -1e-6, "--lr must be above 0, found -1e-06"),
    ("lr", float("nan"), "--lr must be a finite number, found nan"),
    ("lr", float("inf"), "--lr must be a finite number, found inf"),
    ("weight_decay", -0.1, "--weight_decay must be at least 0, found -0.1"),
    ("contrastive_weight", -1.0, "--contrastive_weight must be at least 0"),
    ("supcon_weight", -1.0, "--supcon_weight must be at least 0"),
    ("accumulate_steps", 0, "--accumulate_steps must be at least 1, found 0"),
    ("clip_grad_norm", 0.0, "--clip_grad_norm must be above 0, found 0.0"),
    ("warmup_steps", -1, "--warmup_steps must be at least 0, found -1"),
    ("seed", -1, "--seed must be at least 0, found -1"),
    ("num_workers", -1, "--num_workers must be at least 0, found -1"),
    ("save_interval", -1, "--save_interval must be at least 0, found -1"),
    ("val_interval", -1, "--val_interval must be at least 0, found -1"),
    ("save_freq", 0, "--save_freq must be at least 1, found 0"),
    ("milestones", (10, 0, 25), "--milestones must be epochs from 1 on, found 0"),
    ("milestones", (-3,), "--milestones must be epochs from 1 on, found -3"),
    ("keep_last_n", 0, "--keep_last_n must be at least 1, found 0"),
    ("compress_after", 0, "--compress_after must be at least 1, found 0"),
    ("checkpoint_name", "{stp}.pth", "has the unknown field {stp}: did you mean {step}?"),  # more in test_names.py
    ("experiment", "", "--experiment becomes part of file names"),
    ("experiment", "a/b", "no slash or line break, found 'a/b'"),
    ("experiment", "..", "--experiment becomes part of file names and cannot be '..'"),
    ("viz_samples", 0, "--viz_samples must be at least 1, found 0"),
    ("viz_frequency", -1, "--viz_frequency must be at least 0, found -1"),
    ("device", "gpu", "--device must be auto, cpu, cuda or cuda:N, found 'gpu'"),
    ("device", "5", "--device must be auto, cpu, cuda or cuda:N, found '5'"),
    ("device", "cuda:", "--device must be auto, cpu, cuda or cuda:N, found 'cuda:'"),
    ("device", "cuda:-1", "--device must be auto, cpu, cuda or cuda:N, found 'cuda:-1'"),
    ("comment", "", "--comment becomes part of file names"),
    ("comment", "a/b", "no slash or line break, found 'a/b'"),
    ("comment", "a\\b", "--comment becomes part of file names"),
    ("comment", "a\nb", "--comment becomes part of file names"),
    ("comment", "x" * 101, "at most 100 bytes"),
    ("comment", "..", "--comment becomes part of file names and cannot be '..'"),
]


def test_the_settings_and_their_defaults_are_these() -> None:
    assert Options().as_dict() == DEFAULTS


def test_every_setting_tells_what_it_is_for() -> None:
    assert [name for name, declared in SETTINGS.items() if len(declared.help) < 8] == []


@pytest.mark.parametrize(("name", "value", "words"), BAD_VALUES)
def test_a_bad_value_is_refused_by_the_name_of_its_flag(name: str, value: Any, words: str) -> None:
    with pytest.raises(UserError) as refused:
        Options(**{name: value})
    assert words in str(refused.value)
    assert refused.value.exit_code == EXIT_USAGE


@pytest.mark.parametrize("comment", ["exp1", "lr 1e-4, no bias", "über", "x" * 100, "a.b_c"])
def test_a_comment_may_be_what_a_file_name_may_be(comment: str) -> None:
    assert Options(comment=comment).comment == comment


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:11"])
def test_a_device_is_named_as_torch_names_it(device: str) -> None:
    assert Options(device=device).device == device


@pytest.mark.parametrize(
    ("given", "front_end"),
    [
        ({}, "compact"),
        ({"database_path": "/data/LA"}, XLS_R_300M),
        ({"database_path": "/data/LA", "ssl_model": "compact"}, "compact"),
        ({"ssl_model": XLS_R_300M}, XLS_R_300M),
    ],
)
def test_the_front_end_is_compact_only_for_the_demo_corpus_or_on_request(given: dict[str, Any], front_end: str) -> None:
    assert Options(**given).ssl_model == front_end


def test_milestones_are_kept_in_order_and_once() -> None:
    assert Options(milestones=(50, 10, 25, 10)).milestones == (10, 25, 50)


# (setting, a value that is not the default, the detectors it is for)
OF_SOME_DETECTORS: list[tuple[str, Any, tuple[str, ...]]] = [
    ("ssl_model", "compact", FRONT_END_TYPES),
    ("normalize_waveform", True, FRONT_END_TYPES),
    ("freeze_ssl", True, FRONT_END_TYPES),
    ("group_size", 4, ("g3_heatmap",)),
    ("temporal_bias", "none", ("g3_heatmap",)),
    ("use_contrastive", True, ("g3_heatmap",)),
    ("visualize_attention", True, ("g3_heatmap",)),
    ("vocoder_size", "small", VOCODER_TYPES),
    ("metric_discriminator", True, VOCODER_TYPES),
]


def test_every_setting_of_some_detectors_is_tried() -> None:
    assert {name: types for name, _, types in OF_SOME_DETECTORS} == TYPES_WITH_SETTING
    assert set(TYPES_WITH_SETTING) < set(SETTINGS)


@pytest.mark.parametrize(("name", "value", "types"), OF_SOME_DETECTORS)
@pytest.mark.parametrize("model_type", DETECTOR_TYPES)
def test_a_setting_is_refused_for_a_detector_that_has_no_use_for_it(
    model_type: str, name: str, value: Any, types: tuple[str, ...]
) -> None:
    if model_type in types:
        assert getattr(Options(**{"model_type": model_type, name: value}), name) == value
        return
    named = "g3_heatmap, sls or ssl_mean" if types == FRONT_END_TYPES else types[0]
    words = f"--{name} is for --model_type {named}, and {model_type} has no use for it: drop --{name}, or pass --model_"
    with pytest.raises(UserError, match=words) as refused:
        Options(**{"model_type": model_type, name: value})
    assert refused.value.exit_code == EXIT_USAGE


def test_an_unknown_detector_is_refused_before_its_settings_are() -> None:
    with pytest.raises(UserError, match=r"--model_type must be one of .*, found 'rawnet'"):
        Options(model_type="rawnet", group_size=4)


@pytest.mark.parametrize("model_type", FRONT_END_TYPES)
def test_every_detector_on_a_front_end_gets_the_default_one(model_type: str) -> None:
    assert Options(model_type=model_type).ssl_model == "compact"
    assert Options(model_type=model_type, database_path="/data/LA").ssl_model == XLS_R_300M


def test_the_options_of_a_detector_without_a_front_end_come_back_from_a_checkpoint_and_name_none() -> None:
    options = Options(model_type="aasist")
    assert options.ssl_model == ""
    assert options_from_record(options.as_dict()) == options


@pytest.mark.parametrize(
    ("given", "weights"),
    [
        ({}, (0.1, 0.9)),
        ({"loss": "focal"}, (0.1, 0.9)),
        ({"loss": "oc_softmax"}, (1.0, 1.0)),
        ({"loss": "oc_softmax", "class_weights": [0.1, 0.9]}, (0.1, 0.9)),
        ({"balanced_batches": True}, (1.0, 1.0)),
        ({"class_weights": [3.0, 1.0]}, (3.0, 1.0)),
    ],
)
def test_the_class_weights_are_those_of_the_loss_unless_they_are_given(
    given: dict[str, Any], weights: tuple[float, float]
) -> None:
    assert Options(**given).class_weights == weights


def test_balanced_batches_need_an_even_batch_size() -> None:
    with pytest.raises(UserError, match="--balanced_batches needs an even --batch_size, found 15: pass 16") as refused:
        Options(balanced_batches=True, batch_size=15)
    assert refused.value.exit_code == EXIT_USAGE


def test_a_patience_that_ends_before_the_rate_is_lowered_is_refused() -> None:
    with pytest.raises(UserError, match="--patience 3 ends training before --plateau_patience 3 can lower the rate"):
        Options(scheduler="plateau", patience=3)
    Options(scheduler="plateau", patience=4)
    Options(scheduler="plateau", patience=0)
    Options(scheduler="cosine", patience=1)


def test_wce_is_another_name_for_cce() -> None:
    assert Options(loss="WCE") == Options(loss="CCE")


def test_options_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Options().lr = 1.0  # type: ignore[misc]


def test_a_replaced_value_is_checked_again() -> None:
    with pytest.raises(UserError, match="--batch_size must be at least 1"):
        Options().replaced(batch_size=0)


def test_options_come_back_from_a_checkpoint_as_they_went_in() -> None:
    options = Options(database_path="/data/LA", lr=3e-5, comment="x", num_examples=40, milestones=(10, 25))
    assert options_from_record(options.as_dict()) == options


def test_a_setting_that_did_not_exist_when_the_checkpoint_was_saved_has_its_default() -> None:
    stored = Options(lr=3e-5).as_dict()
    del stored["crop"]
    assert options_from_record(stored) == Options(lr=3e-5)


def test_a_run_of_before_the_fused_update_keeps_the_plain_one() -> None:
    stored = Options(lr=3e-5).as_dict()
    del stored["adam"]
    assert options_from_record(stored) == Options(lr=3e-5, adam="plain")


def test_a_setting_of_a_later_version_is_refused_by_its_name() -> None:
    with pytest.raises(UserError, match=r"does not know \(warp_drive\).*update this one"):
        options_from_record(Options().as_dict() | {"warp_drive": 9})


OF_ANOTHER_TYPE = [
    ("lr", "1e-3", "--lr must be a number, found '1e-3'"),
    ("lr", True, "--lr must be a number, found True"),
    ("lr", 10**400, "--lr must be a number, found 1"),
    ("num_epochs", 2.5, "--num_epochs must be a whole number, found 2.5"),
    ("seed", None, "--seed must be a whole number, found None"),
    ("comment", 5, "--comment must be text, found 5"),
    ("balanced_batches", 1, "--balanced_batches must be true or false, found 1"),
    ("milestones", 10, "--milestones must be whole numbers, as [10, 25, 50], found 10"),
    ("class_weights", ["0.1", "0.9"], "--class_weights must be numbers, as [0.1, 0.9], found ['0.1', '0.9']"),
    ("wandb_tags", "adapter", "--wandb_tags must be a list of words, as [adapter, training], found 'adapter'"),
]


@pytest.mark.parametrize(("name", "value", "words"), OF_ANOTHER_TYPE)
def test_a_value_of_another_type_is_refused_wherever_it_comes_from(name: str, value: object, words: str) -> None:
    """Flags and YAML are read into the right types; a checkpoint's record may hold anything that JSON can."""
    for made_of in (lambda settings: Options(**settings), options_from_record):
        with pytest.raises(UserError) as refused:
            made_of({name: value})
        assert str(refused.value).startswith(words)


def test_a_whole_number_is_a_number_and_a_list_from_json_a_tuple() -> None:
    options = options_from_record({"lr": 1, "milestones": [2, 1], "wandb_tags": ["a"]})
    assert (options.lr, options.milestones, options.wandb_tags) == (1, (1, 2), ("a",))
