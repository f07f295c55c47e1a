"""Which bytes of a checkpoint hold tensors that are not wanted: who wants a detector needs no optimizer's moments.

They are two thirds of a file, were verified with all others, and need not be read into memory a second time.
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection

from training.checkpoints.last_entry import Readable
from training.checkpoints.tensor_table import table_of_zip
from training.checkpoints.zip_directory import open_zip

_LOCAL_BYTES = 30
_LENGTHS_AT = 26  # of the name and of what follows it, in a local header (PKWARE APPNOTE 6.3.3, section 4.3.7)


def places_of(keys: Collection[str], file: Readable) -> dict[int, int]:
    """Return where values lie that only these top-level keys of an archive of torch need: offsets and sizes, in bytes.

    What is compressed has no such place. Raises BadCheckpointFileError and what zipfile does for a damaged file.
    """
    with open_zip(file) as archive:
        tensors = table_of_zip(archive).tensors
        unwanted = {t.storage for t in tensors if t.key in keys} - {t.storage for t in tensors if t.key not in keys}
        entries = [entry for entry in archive.infolist() if entry.compress_type == zipfile.ZIP_STORED]
    top = entries[0].filename.split("/", 1)[0] if entries else ""
    names = {f"{top}/data/{storage}" for storage in unwanted}
    return {_content_of(entry, file): entry.file_size for entry in entries if entry.filename in names}


def _content_of(entry: zipfile.ZipInfo, file: Readable) -> int:
    file.seek(entry.header_offset + _LENGTHS_AT)
    lengths = file.read(_LOCAL_BYTES - _LENGTHS_AT)
    return entry.header_offset + _LOCAL_BYTES + sum(int.from_bytes(lengths[at : at + 2], "little") for at in (0, 2))
