"""What a command line asks for, as the request of the verb that a test is about."""

from __future__ import annotations

from typing import TypeVar

from training.settings.command_line import read_command
from training.settings.requests import Request, Train

_Kind = TypeVar("_Kind", bound=Request)


def asked(kind: type[_Kind], *typed: object) -> _Kind:
    """Return what these words ask for, which must be a request of this kind."""
    request = read_command([*map(str, typed)])
    assert isinstance(request, kind), request
    return request


def asked_training(*typed: object) -> Train:
    """Return the training that these words ask for."""
    request = read_command([*map(str, typed)])
    assert isinstance(request, Train), request
    return request
