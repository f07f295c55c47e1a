"""The text in the file of a table: of a regular file, within a limit, in UTF-8 or UTF-16, whatever ends its lines.

A byte that is not UTF-8 stays what it is (surrogateescape), since it may belong to the name of a file on disk.
"""

from __future__ import annotations

import codecs
import os
from pathlib import Path

from utils.errors import UserError
from utils.regular_files import open_regular
from utils.terminal_text import bytes_text

MOST_BYTES = 512 * 1024 * 1024
"""The largest table that is read: ten times the largest one of the field, the 611,829 trials of ASVspoof 2021 DF."""
_HEAD_BYTES = 4096


def read_table_bytes(path: Path, noun: str, advice: str) -> bytes:
    """Return the content of a file of text; `noun` names its kind in messages, `advice` says what to do.

    Raises UserError for what cannot be read, is no regular file, is no text by its beginning, or is too large to be a
    table, of which no more than its beginning is read.
    """
    try:
        with open_regular(path) as file:
            is_too_large = os.fstat(file.fileno()).st_size > MOST_BYTES
            head = file.read(_HEAD_BYTES)
            if encoding_of(head) == "utf-8-sig":
                _refuse_zeros(head.decode(errors="replace"), path, noun)
            content = head if is_too_large else head + file.read(MOST_BYTES + 1 - len(head))
    except OSError as error:
        raise UserError(f"{path}: the {noun} file cannot be read ({error.strerror}): {advice}") from error
    if is_too_large or len(content) > MOST_BYTES:
        raise UserError(
            f"{path}: a {noun} file has at most {bytes_text(MOST_BYTES)}, found more: pass the {noun} (.txt), not "
            "audio or an archive"
        )
    return content


def head_lines(path: Path) -> tuple[list[str], bool]:
    """Return the first lines of a file, whole ones where it has more than one, and whether it is UTF-8.

    [] where it cannot be read. Whether it is text is not asked: what is wrong with it is said when it is read.
    """
    try:
        with open_regular(path) as file:
            head = file.read(_HEAD_BYTES)
    except (OSError, ValueError):
        return [], True
    encoding = encoding_of(head)
    lines = split_lines(head.decode(encoding, "surrogateescape" if encoding == "utf-8-sig" else "replace"))
    is_cut = len(head) == _HEAD_BYTES and len(lines) > 1
    return (lines[:-1] if is_cut else lines), encoding == "utf-8-sig"


def decode(content: bytes, path: Path, noun: str) -> str:
    """Return the text of a table's content; raises UserError with the line where it is none."""
    encoding = encoding_of(content[:_HEAD_BYTES])
    try:
        text = content.decode(encoding, "surrogateescape" if encoding == "utf-8-sig" else "strict")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: a {noun} is a text file; it begins as UTF-16, and its byte {error.start:,} does not fit "
            "that: save it as UTF-8"
        ) from error
    _refuse_zeros(text, path, noun)
    return text


def _refuse_zeros(text: str, path: Path, noun: str) -> None:
    if "\0" in text:
        line_number = len(split_lines(text[: text.index("\0")]))
        raise UserError(
            f"{path}, line {line_number}: a {noun} is a text file, found a zero byte: "
            f"the file is damaged or not a {noun}; pass the {noun} (.txt), not audio or an archive"
        )


def bytes_on_disk(text: str) -> bytes:
    r"""Return the bytes of a text that was decoded here, or that names files: those that are not UTF-8 are as on disk.

    >>> bytes_on_disk("caf\udce9.wav")
    b'caf\xe9.wav'
    """
    return text.encode(errors="surrogateescape")


def encoding_of(head: bytes) -> str:
    """Return the encoding of a text by its first bytes: UTF-16 by its mark or its zeros, else UTF-8.

    >>> encoding_of("path,label".encode("utf-16")), encoding_of("path,label".encode("utf-16-be")), encoding_of(b"path")
    ('utf-16', 'utf-16-be', 'utf-8-sig')
    """
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    zeros = head[::2].count(0), head[1::2].count(0)
    if not any(zeros) or all(zeros) or 4 * max(zeros) < len(head):
        return "utf-8-sig"
    return "utf-16-be" if zeros[0] else "utf-16-le"


def split_lines(text: str) -> list[str]:
    """Return the lines of a text that ends them by LF, CRLF or, as old Macs do, CR.

    Not splitlines(), which divides at a dozen characters more.

    >>> split_lines("a b\\r\\nc d\\re f\\n")
    ['a b', 'c d', 'e f', '']
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.split("\n")
