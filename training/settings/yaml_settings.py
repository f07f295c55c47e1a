"""Reads the YAML file of --config: settings as flat `name: value` lines, and the sections `checkpoint:` and `wandb:`.

Under `checkpoint:` may stand every setting of the group "saving", and two more names. `resume_from: PATH`, which no
flag has, acts as --resume --model_path PATH unless one of the checkpoint flags or --model_path was typed; null is no
path. Under `wandb:` stand the settings of the group "wandb": `enabled` is --wandb, the others have no `wandb_` before
them; `save_wandb_metadata` may stand in either section. `wandb: true` on a line of its own is the flag, as
config.yaml has it. A name that is not known, or that is given twice, is refused: a settings file that means something
else than it says would cost a training run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from training.settings.nearest_name import nearest_name
from training.settings.options import SETTINGS, part_type, setting_type, wrong_type
from training.settings.setting import seconds_in
from training.settings.wandb import MODES
from utils.errors import EXIT_USAGE, UserError
from utils.regular_files import read_regular

CHECKPOINT, WANDB = "checkpoint", "wandb"
MOST_BYTES = 1 << 16
"""Of a settings file: the largest is a few kilobytes."""
_SHOWN = 200
_SAVING = frozenset(name for name, declared in SETTINGS.items() if declared.group == "saving")
_RESUME_FROM = "resume_from"  # no setting of a run
_SAVE_METADATA = "save_wandb_metadata"
_WANDB = {
    "enabled" if name == WANDB else name.removeprefix("wandb_"): name
    for name, declared in SETTINGS.items()
    if declared.group == "wandb"
}
_SECTIONS: Mapping[str, frozenset[str]] = {
    CHECKPOINT: _SAVING | {_RESUME_FROM, _SAVE_METADATA},
    WANDB: frozenset(_WANDB),
}


@dataclass(frozen=True)
class SettingsFile:
    """A settings file as it was when the program read it: its bytes, the settings in it, and what it resumes, if so."""

    path: Path
    content: bytes
    settings: Mapping[str, Any]
    resume_from: Path | None = None


def read_settings_file(path: Path) -> SettingsFile:
    """Read a file, once, and check it as strictly as the flags; raises UserError with exit code 2."""
    import yaml  # noqa: PLC0415  (only runs with --config pay for it)

    try:
        content = read_regular(path, MOST_BYTES)
    except OSError as error:
        raise UserError(f"--config {path} cannot be read: {error.strerror}", EXIT_USAGE) from error
    try:
        text = content.decode()
        _refuse_bombs(text)
        document = yaml.safe_load(text)
        _refuse_names_given_twice(path, yaml.compose(text, yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: bad UTF-8, or a date that is none
        reason = " ".join(str(error).split())
        raise UserError(f"--config {path} is not valid YAML: {reason}", EXIT_USAGE) from error
    if not isinstance(document, Mapping):
        raise UserError(f"--config {path} must hold `name: value` lines, found {type(document).__name__}", EXIT_USAGE)
    return _Reader(path).read(content, document)


def _refuse_bombs(text: str) -> None:
    """Refuse what no file of settings has and what takes seconds to read, or more memory than there is.

    An alias can stand for a structure in which others stand again, and so for more than can ever be written out.
    """
    import yaml  # noqa: PLC0415

    depth = aliases = 0
    for number, event in enumerate(yaml.parse(text, yaml.SafeLoader)):
        aliases += isinstance(event, yaml.AliasEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        for count, most, what in ((number, 10_000, "values"), (aliases, 12, "aliases"), (depth, 8, "levels")):
            if count > most:
                raise yaml.YAMLError(f"it has more than {most:,} {what}, and a file of settings needs few")


def _refuse_names_given_twice(path: Path, node: Any, section: str = "") -> None:
    """Refuse what YAML forbids and its reader lets pass: of two lines with one name the last would win in silence."""
    seen: dict[str, int] = {}
    for key, value in node.value if node is not None and node.id == "mapping" else ():
        if key.id != "scalar":
            continue
        line = key.start_mark.line + 1
        if key.value in seen:
            where = f"in lines {seen[key.value]} and {line}"
            raise UserError(f"--config {path} gives {section}{key.value} twice, {where}: keep one of them", EXIT_USAGE)
        seen[key.value] = line
        if key.value in _SECTIONS and not section:
            _refuse_names_given_twice(path, value, f"{key.value}.")


@dataclass(frozen=True)
class _Reader:
    """Checks the content of one file; `path` is for its messages."""

    path: Path

    def read(self, content: bytes, document: Mapping[Any, Any]) -> SettingsFile:
        sections = {name: self._section(name, document.get(name)) for name in _SECTIONS}
        flat = dict(self._flat(document))
        saving = dict(sections[CHECKPOINT])
        resume_from = saving.pop(_RESUME_FROM, None)
        saving = {name: self._setting(name, f"{CHECKPOINT}.{name}", value) for name, value in saving.items()}
        if not isinstance(resume_from, str | None):
            self._refuse_type(f"{CHECKPOINT}.{_RESUME_FROM}", "text", resume_from)
        if resume_from == "":
            self._refuse(f"has an empty {CHECKPOINT}.resume_from: write a path, or null")
        wandb = dict(self._wandb(sections[WANDB]))
        for name in (*saving, *wandb):
            if name in flat:
                section = CHECKPOINT if name in saving else WANDB
                self._refuse(f"gives {name} twice, on a line of its own and under {section}: keep one of them")
        if _SAVE_METADATA in saving and _SAVE_METADATA in wandb:
            self._refuse(f"gives {_SAVE_METADATA} twice, under {CHECKPOINT} and under {WANDB}: keep one of them")
        return SettingsFile(self.path, content, flat | saving | wandb, Path(resume_from) if resume_from else None)

    def _refuse(self, what: str) -> NoReturn:
        raise UserError(f"--config {self.path} {what}", EXIT_USAGE)

    def _section(self, section: str, content: Any) -> Mapping[Any, Any]:
        """Return the lines of a section whose every name is known; one that is empty or absent has none."""
        if content is None or _is_flag(section, content):
            return {}
        if not isinstance(content, Mapping):
            self._refuse(f"must hold `name: value` lines under {section}, found {_short(content)}")
        for name in content:
            if name in _SECTIONS[section]:
                continue
            if name in SETTINGS:
                self._refuse(f"has `{section}.{name}`: {name} does not belong there, write it on a line of its own")
            self._refuse(f"has an unknown setting `{section}.{name}`{_nearest(name, _SECTIONS[section])}")
        return content

    def _flat(self, document: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
        for name, value in document.items():
            if name in _SECTIONS and not _is_flag(name, value):
                continue
            if name in SETTINGS:
                yield name, self._setting(name, name, value)
            elif isinstance(value, Mapping):
                self._refuse(f"has an unknown section `{name}`{_nearest(name, _SECTIONS)}")
            else:
                owner = next((section for section in (CHECKPOINT, WANDB) if name in _SECTIONS[section]), None)
                hint = f": it belongs under `{owner}:`" if owner else _nearest(name, SETTINGS)
                self._refuse(f"has an unknown setting `{name}`{hint}")

    def _setting(self, name: str, shown: str, value: Any) -> Any:
        kind = setting_type(name)
        if kind is float and isinstance(value, int | str) and not isinstance(value, bool):
            with contextlib.suppress(ValueError, OverflowError):  # what is no number is refused below
                text = str(value)  # YAML 1.1 reads 1e-6 as text
                value = seconds_in(text) if SETTINGS[name].is_time else float(value)
        if kind is tuple and value is None and part_type(name) is str:
            value = []
        if must_be := wrong_type(name, value):
            self._refuse_type(shown, must_be, value)
        return tuple(map(part_type(name), value)) if kind is tuple else value

    def _refuse_type(self, shown: str, must_be: str, value: Any) -> NoReturn:
        raise UserError(f"--config {self.path}: {shown} must be {must_be}, found {_short(value)}", EXIT_USAGE)

    def _wandb(self, section: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for name, value in section.items():
            read = self._setting(_WANDB[name], f"{WANDB}.{name}", value)
            if name == "mode" and read is not None and read not in MODES:
                self._refuse(f"has wandb.mode {read!r}: it must be one of {', '.join(MODES)}")
            yield _WANDB[name], read


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _is_flag(name: str, value: Any) -> bool:
    """Whether this is `wandb: true`, as config.yaml has it, and no section."""
    return name == WANDB and isinstance(value, bool)


def _nearest(name: Any, known: Collection[str]) -> str:
    near = nearest_name(str(name), known)
    if near:
        return f": did you mean `{near}`?"
    return ": python main.py --help lists them" if known is SETTINGS else f": known are {', '.join(sorted(known))}"
