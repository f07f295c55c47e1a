"""The one exception for what a user can fix: it becomes one sentence and an exit code, never a traceback."""

from __future__ import annotations

from typing import Any

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class UserError(Exception):
    """Something the user can fix; the message says what was wrong, what was found and what to do.

    `exit_code` is 1 for a failed run and 2 for flags that contradict each other.

    >>> raise UserError("--lr must be above 0, found -1.0: pass a learning rate such as 1e-6", exit_code=EXIT_USAGE)
    Traceback (most recent call last):
    ...
    utils.errors.UserError: --lr must be above 0, found -1.0: pass a learning rate such as 1e-6
    """

    def __init__(self, message: str, exit_code: int = EXIT_FAILURE) -> None:
        super().__init__(message)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by content: what another process of the run raised is raised here, of the same kind."""
        return _made_again, (type(self), self.args, self.__dict__)


def _made_again(kind: type[UserError], args: tuple[Any, ...], content: dict[str, Any]) -> UserError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(content)
    return error
