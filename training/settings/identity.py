"""Which settings tell one run from another, and the name that they give its folder.

The name begins with some settings, eight for a detector, and ends with the comment, as documented; every other setting
that changes what is computed and has not its default stands between them, as `seed2`. So two runs that give different
results have different names. What is never in it: the data, whose identity is the content of the protocols, --patience,
and a count of --accumulate_steps that was not typed (its default depends on the number of processes, which changes
nothing). Nor do --accumulate_steps and --adam tell runs apart where they were not typed: a run goes on with those that
it has.
"""

from __future__ import annotations

import hashlib
import re
import urllib.parse
from collections.abc import Collection, Set
from string import Formatter
from typing import Any

from training.settings.changes import Change, every_change
from training.settings.options import SETTINGS, Options, setting_type
from training.settings.setting import OnChange

LENGTH = "num_epochs"
"""In the name, but a run of one length goes on as one of another length."""
_NEVER = ("patience",)
UNLESS_TYPED = ("accumulate_steps", "adam")
"""In the name only if they were typed: one follows the number of processes by default, and a run keeps the other."""
_MOST_BYTES = 150  # without the comment, which has up to 100: a file system takes 255
_ESCAPE = "comment-"


def tells_runs_apart(name: str) -> bool:
    """Whether two runs that differ in a setting are two runs, of whatever length.

    >>> [tells_runs_apart(name) for name in ("seed", "lr", "num_epochs", "patience", "database_path", "num_workers")]
    [True, True, False, False, False, False]
    """
    return SETTINGS[name].on_change is not OnChange.FREE and name not in (*_NEVER, LENGTH)


def run_name(options: Options) -> str:
    """Return the name of a run's folder, with numbers as Python's `str` writes them.

    >>> run_name(Options())
    'g3_heatmap_DF_CCE_100_16_1e-06_group3_contrastiveFalse'
    >>> run_name(Options(lr=1e-3, comment="exp1"))
    'g3_heatmap_DF_CCE_100_16_0.001_group3_contrastiveFalse_exp1'
    >>> run_name(Options(crop="random", seed=2, comment="exp1"))
    'g3_heatmap_DF_CCE_100_16_1e-06_group3_contrastiveFalse_croprandom_seed2_exp1'
    >>> run_name(Options(model_type="hifigan", vocoder_size="small"))
    'hifigan_small_100_16_0.0002'
    """
    shown = [name for name in SETTINGS if _is_shown(name, options)]
    parts = [f"{name}{_text(name, getattr(options, name))}" for name in shown]
    beginning = _beginning(options)
    whole = "_".join([beginning, *parts])
    if len(whole.encode()) > _MOST_BYTES:
        return _shortened(beginning, parts) + _suffix(options.comment)
    comment = options.comment
    if comment and _reads_as_a_setting(comment, options, after=shown[-1] if shown else None):
        comment = _ESCAPE + comment
    return whole + _suffix(comment)


def former_name(options: Options) -> str:
    """Return the name that earlier versions gave: without the settings between the eight and the comment.

    >>> former_name(Options(seed=2, comment="exp1"))
    'g3_heatmap_DF_CCE_100_16_1e-06_group3_contrastiveFalse_exp1'
    """
    return _beginning(options) + _suffix(options.comment)


def possible_names(options: Options) -> tuple[str, ...]:
    """Return every name that a version of this program gave to the folder of a run with these settings."""
    return run_name(options), run_name(untyped(options)), former_name(options)


def untyped(options: Options, but: Collection[str] = ()) -> Options:
    """Return the settings that name a run of whose UNLESS_TYPED only those in `but` were typed.

    >>> run_name(untyped(Options(accumulate_steps=4))) == run_name(Options())
    True
    """
    return options.replaced(**{name: options.default_of(name) for name in UNLESS_TYPED if name not in but})


def differences(found: Options, asked: Options, given: Set[str]) -> tuple[Change, ...]:
    """Return the settings that make two runs of these, the length left aside; `given` are those that were typed."""
    return tuple(
        change
        for change in every_change(found, asked)
        if tells_runs_apart(change.name) and (change.name not in UNLESS_TYPED or change.name in given)
    )


def _is_shown(name: str, options: Options) -> bool:
    if not tells_runs_apart(name) or name in _in_every_name(options):
        return False
    return bool(getattr(options, name) != options.default_of(name))


def _in_every_name(options: Options) -> list[str]:
    """Return the settings that the names of a task's runs begin with."""
    return [name for _, name, _, _ in Formatter().parse(options.task.begins) if name]


def _beginning(options: Options) -> str:
    """Return the values of those settings, words as they are."""
    values = {name: getattr(options, name) for name in _in_every_name(options)}
    texts = {name: value if isinstance(value, str) else _text(name, value) for name, value in values.items()}
    return options.task.begins.format(**texts)


def _suffix(comment: str | None) -> str:
    return f"_{comment}" if comment else ""


def _shortened(beginning: str, parts: list[str]) -> str:
    """Keep as many whole parts as there is room for, and let a hash of all of them stand for the rest."""
    digest = hashlib.sha256("_".join(parts).encode()).hexdigest()[:8]
    name = beginning
    for part in parts:
        if len(f"{name}_{part}_{digest}".encode()) > _MOST_BYTES:
            break
        name = f"{name}_{part}"
    return f"{name}_{digest}"


def _text(name: str, value: Any) -> str:
    """Return a value such that it can be part of a path, and no two values have one text; there is no _ in it."""
    if isinstance(value, tuple):
        return "-".join(_quoted(part).replace("-", "%2D") if isinstance(part, str) else str(part) for part in value)
    if setting_type(name) is float:
        return str(float(value) + 0.0)  # 1 is 1.0, and -0.0 is 0.0
    return _quoted(value) if isinstance(value, str) else str(value)


def _quoted(text: str) -> str:
    """Return a text without _ and /, which becomes +, as in facebook+hubert-base-ls960."""
    quoted = urllib.parse.quote(text.encode("utf-8", "surrogatepass"), safe="/")
    return quoted.replace("/", "+").replace("_", "%5F")


def _reads_as_a_setting(comment: str, options: Options, after: str | None) -> bool:
    """Whether a comment looks as if another setting stood before it, so that two runs could have one name."""
    if comment.startswith(_ESCAPE):
        return True
    names = list(SETTINGS)
    later = names[names.index(after) + 1 :] if after else names
    could_be = [name for name in later if tells_runs_apart(name) and name not in _in_every_name(options)]
    return any(comment.startswith(name) and _is_a_value(name, comment, options) for name in could_be)


def _is_a_value(name: str, comment: str, options: Options) -> bool:
    """Whether the comment, up to its next _, is the name of a setting and a value that would be shown."""
    text = comment[len(name) :].partition("_")[0]
    if not text or text == _text(name, options.default_of(name)):
        return False
    kind, choices = setting_type(name), SETTINGS[name].choices
    if kind is bool:
        return text in ("True", "False")
    if kind is int:
        return re.fullmatch(r"-?(0|[1-9][0-9]*)", text) is not None
    if kind is float:
        return re.fullmatch(r"-?[0-9.]+(e[-+][0-9]+)?", text) is not None
    return text in choices if choices else True
