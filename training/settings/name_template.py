"""A checkpoint's name as `--checkpoint_name` asks for it: a template, checked when it is read. Knows no records.

A template that is accepted gives every checkpoint it names another name, so that none can replace another, and never a
name that the program uses for something else. What is allowed may grow and must not shrink: the options of a
checkpoint are checked again when it is read.
"""

from __future__ import annotations

import difflib
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from training.settings.tasks import TaskDescription
from utils.errors import EXIT_USAGE, UserError

CHECKPOINT_SUFFIXES = (".pth", ".pt", ".ckpt")
LAST_CHECKPOINT, FROZEN = "last_checkpoint", "frozen_"
"""How the names of the checkpoint that is furthest in training, and of frozen weights, begin."""

COUNTERS = ("epoch", "step", "kstep")
TEXTS = ("comment", "model_type", "seed")
# Padding from the right, or in another base, could write two numbers as one text.
_COUNTER_SPEC = (re.compile(r"0?[0-9]{0,2}d?"), "08d")
_FIGURE_SPEC = (re.compile(r"0?[0-9]{0,2}(\.[0-9]{1,2})?[efgEFG]?"), ".4f")
_TEXT_SPEC = (re.compile(""), "")
_DIGITS = "0123456789"
_NAME_BYTES = 230  # of the 255 that file systems allow: atomic_write needs 22 for the name it writes under first
_LONGEST_COUNTER, _LONGEST_FIGURE = 10**10 - 1, -1.2345678901234567e-100


@dataclass(frozen=True)
class Part:
    """Literal text, or a field with its format spec where `field` is not empty."""

    text: str
    field: str = ""

    def rendered(self, values: Mapping[str, float]) -> str:
        """Return this part of a name."""
        return format(values[self.field], self.text) if self.field else self.text

    def __str__(self) -> str:
        return "{" + self.field + (f":{self.text}" if self.text else "") + "}" if self.field else self.text


@dataclass(frozen=True)
class NameTemplate:
    """A checked template; what is the same for all checkpoints of a run is filled in already.

    `figures` are the validation figures without which a checkpoint cannot have such a name.

    >>> from training.settings.tasks import DETECTION
    >>> template = NameTemplate.parse("checkpoint_{kstep}k.pt", {}, DETECTION, save_interval=1000, val_interval=0)
    >>> template.rendered({"kstep": 5})
    'checkpoint_5k.pt'
    """

    parts: tuple[Part, ...]
    figures: frozenset[str] = frozenset()

    @classmethod
    def parse(
        cls, typed: str, texts: Mapping[str, str], task: TaskDescription, *, save_interval: int, val_interval: int
    ) -> NameTemplate:
        """Read a template as typed, with the run's `texts` for its fields of that kind; raises UserError, exit code 2.

        Its fields may be the validation figures of the `task`.

        The intervals are those of the run, in steps, 0 for never.
        """
        figures = [figure.name for figure in task.figures.of_validation]
        parts = _parts(typed, figures)
        parts += _missing_suffix(typed, parts[-1] if parts else Part(""))
        filled = tuple(Part(texts[part.field]) if part.field in TEXTS else part for part in parts)
        template = cls(filled, frozenset(part.field for part in filled) & set(figures))
        _refuse_what_collides(typed, template, save_interval)
        _refuse_fields_that_touch(typed, template)
        _refuse_missing_figures(typed, template, save_interval, val_interval)
        _refuse_bad_names(typed, template, reserved_names(task))
        return template

    @property
    def fields(self) -> frozenset[str]:
        """The fields whose values differ between checkpoints."""
        return frozenset(part.field for part in self.parts if part.field)

    @property
    def names_steps(self) -> bool:
        """Whether this names step checkpoints; otherwise it names epoch checkpoints."""
        return bool(self.fields & {"step", "kstep"})

    def rendered(self, values: Mapping[str, float]) -> str:
        """Return the file name for these values of `fields`."""
        return "".join(part.rendered(values) for part in self.parts)

    def __str__(self) -> str:
        return "".join(map(str, self.parts))


def reserved_names(task: TaskDescription) -> tuple[str, ...]:
    """Return how the names begin that a run's files have which are not the checkpoint of one epoch or step alone."""
    return task.best_checkpoint_name, task.best_weights_name, LAST_CHECKPOINT, FROZEN


def _parts(typed: str, figures: Sequence[str]) -> list[Part]:
    parts = []
    try:
        pieces = list(string.Formatter().parse(typed))
    except ValueError as error:
        _refuse(typed, f"cannot be read ({error}): write fields as {{step}} or {{val_loss:.4f}}")
    for literal, name, spec, conversion in pieces:
        parts += [Part(literal)] if literal else []
        if name is not None:
            _refuse_bad_field(typed, name, spec or "", conversion, figures)
            parts.append(Part(spec or "", name))
    return parts


def _refuse_bad_field(typed: str, name: str, spec: str, conversion: str | None, figures: Sequence[str]) -> None:
    known = (*COUNTERS, *figures, *TEXTS)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {{{near[0]}}}?" if near else f"the fields are {', '.join(known)}"
        _refuse(typed, f"has the unknown field {{{name}}}: {hint}")
    if conversion:
        _refuse(typed, f"has {{{name}!{conversion}}}: leave !{conversion} out, write {{{name}}}")
    allowed, example = _COUNTER_SPEC if name in COUNTERS else _TEXT_SPEC if name in TEXTS else _FIGURE_SPEC
    if not allowed.fullmatch(spec):
        instead = f"{{{name}}} or {{{name}:{example}}}" if example else f"{{{name}}}"
        _refuse(typed, f"has the bad format {{{name}:{spec}}}: write {instead}")


def _missing_suffix(typed: str, last: Part) -> list[Part]:
    """Return what is to be appended to a template without suffix; a dot in or before a field begins none."""
    if last.field or "." not in last.text:
        return [Part(CHECKPOINT_SUFFIXES[0])]
    suffix = last.text[last.text.rindex(".") :]
    if suffix not in CHECKPOINT_SUFFIXES:
        _refuse(
            typed, f"ends in {suffix}: end it in {', '.join(CHECKPOINT_SUFFIXES[:-1])} or {CHECKPOINT_SUFFIXES[-1]}"
        )
    return []


def _refuse_what_collides(typed: str, template: NameTemplate, save_interval: int) -> None:
    if not template.names_steps:
        if "epoch" not in template.fields:
            _refuse(typed, "gives every checkpoint the same name: add {step}, {kstep} or {epoch}")
        return
    if not save_interval:
        _refuse(typed, "names step checkpoints, and --save_interval 0 saves none: pass --save_interval 1000, say")
    if "step" not in template.fields and save_interval % 1000:
        multiple = -(-save_interval // 1000) * 1000
        _refuse(
            typed,
            f"counts thousands of steps, and with --save_interval {save_interval} names would collide: "
            f"pass --save_interval {multiple} or another multiple of 1000, or use {{step}}",
        )


def _refuse_fields_that_touch(typed: str, template: NameTemplate) -> None:
    """Step 1 with the figure 15 and step 11 with 5 would both be 115."""
    before, between = "", ""
    for part in template.parts:
        if not part.field:
            between += part.text
            continue
        if before and not between.strip(_DIGITS):
            _refuse(typed, f"has nothing between the numbers {{{before}}} and {{{part.field}}}: put a - or _ there")
        before, between = part.field, ""


def _refuse_missing_figures(typed: str, template: NameTemplate, save_interval: int, val_interval: int) -> None:
    if not template.names_steps or not template.figures:
        return  # every epoch is validated
    if val_interval == 0 or save_interval % val_interval:
        _refuse(
            typed,
            f"has {{{min(template.figures)}}}, and --val_interval {val_interval} does not validate at every step "
            f"that --save_interval {save_interval} saves: pass --val_interval {save_interval}",
        )


def _refuse_bad_names(typed: str, template: NameTemplate, reserved: Sequence[str]) -> None:
    """Refuse what cannot be a file's name, or would be taken for another file's; letter case may not matter on disk."""
    if any(c in "/\\" or not c.isprintable() for c in typed):
        _refuse(typed, "names a file in the run folder: no slash, backslash or line break")
    shown = str(template).casefold()
    if shown.startswith("."):
        _refuse(typed, "begins with a dot, which hides files: begin it with a letter")
    for prefix in reserved:
        if shown.startswith(prefix):
            _refuse(typed, f"begins with {prefix}, as other files of the run do: begin it with another word")
    for kind, names_steps in (("epoch", False), ("step", True)):
        as_the_default = re.compile(f"checkpoint_{kind}_" + r"\{" + kind + r"(:\w*)?\}[^0-9{].*")
        if shown.startswith(f"checkpoint_{kind}_") and not (
            as_the_default.fullmatch(shown) and template.names_steps is names_steps
        ):
            _refuse(
                typed,
                f"begins with checkpoint_{kind}_, as the default names of {kind} checkpoints do: go on with {{{kind}}} "
                f"and a word{'' if names_steps else ' but no {step} or {kstep}'}, or begin it with another word",
            )
    widest = {name: _LONGEST_COUNTER if name in COUNTERS else _LONGEST_FIGURE for name in template.fields}
    longest = len(template.rendered(widest).encode())
    if longest > _NAME_BYTES:
        _refuse(typed, f"makes names of up to {longest} bytes: at most {_NAME_BYTES} are possible, shorten it")


def _refuse(typed: str, complaint: str) -> NoReturn:
    raise UserError(f"--checkpoint_name {typed!r} {complaint}", EXIT_USAGE)
