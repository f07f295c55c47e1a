"""The one exception for what a user can fix: it becomes one sentence and an exit code, never a traceback."""

from __future__ import annotations

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
