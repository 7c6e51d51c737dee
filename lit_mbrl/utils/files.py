"""Files that are on the disk when we say so, and that are found out when their content has changed since."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path

_CHUNK = 1 << 20


def is_file(path: Path) -> bool:
    """Returns whether there is such a file; False for a name that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # longer than names may be, or with a null byte
        return False


def is_number(text: str) -> bool:
    """Returns whether a text is one number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def unused_name(path: Path) -> Path:
    """A name beside a file that no file has: `metrics-1.csv` for `metrics.csv`."""
    count = 1
    while os.path.lexists(name := path.with_name(f"{path.stem}-{count}{path.suffix}")):
        count += 1
    return name


def flush(path: Path) -> None:
    """Waits until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum(path: Path) -> int:
    """CRC-32 of a file's content, at gigabytes per second."""
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            value = zlib.crc32(chunk, value)
    return value


def damaged_record(path: Path) -> str | None:
    """The first record of a `torch.save` file whose content is not what was written; `torch.load` does not look.

    Raises:
        zipfile.BadZipFile: if it is another kind of file, or torn.
    """
    with zipfile.ZipFile(path) as file:  # which has a CRC-32 for every record
        return file.testzip()
