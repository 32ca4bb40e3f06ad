"""The files of a corpus: there when they are whole and on the disk, and opened without being read."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from transformer_xl.data.manifest import MANIFEST_FILE

BYTES_AT_ONCE = 1 << 24


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """A hidden folder beside `folder`, which gets its name at the end if no error came; otherwise nothing is left.

    What processes of this machine left there when they were killed is removed.

    Raises:
        FileExistsError: The folder is there and not empty.
    """
    path = Path(folder).absolute()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{str(folder)!r} is there already: give another name for the corpus or remove it first")
    prefix = f".{path.name}.{socket.gethostname()}."
    for leftover in path.parent.glob(f"{prefix}*.partial"):
        if not _is_alive(leftover.name.removeprefix(prefix).removesuffix(".partial")):
            shutil.rmtree(leftover, ignore_errors=True)
    unfinished = path.with_name(f"{prefix}{os.getpid()}.partial")
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        for file in (*unfinished.iterdir(), unfinished):
            _sync(file)
        if path.exists():
            path.rmdir()
        unfinished.rename(path)
        _sync(path.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


class ArrayFile:
    """A `.npy` file of one dimension, written piece by piece."""

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        self.path = path
        self.length = 0
        self._dtype = dtype.newbyteorder("<")
        self._hash = hashlib.sha256()
        self._file = path.open("wb")
        self._write_header()
        self._header_length = self._file.tell()

    def __enter__(self) -> ArrayFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def append(self, array: npt.NDArray[Any]) -> None:
        """Write the next numbers."""
        content = np.ascontiguousarray(array, self._dtype).data
        self._file.write(content)
        self._hash.update(content)
        self.length += len(array)

    def finish(self) -> str:
        """The checksum of the numbers, all of which are written."""
        self._file.seek(0)
        # NumPy leaves room in the header for any length.
        self._write_header()
        assert self._file.tell() == self._header_length
        return self._hash.hexdigest()

    def _write_header(self) -> None:
        description = {"descr": self._dtype.str, "fortran_order": False, "shape": (self.length,)}
        np.lib.format.write_array_header_1_0(self._file, description)


def open_array(path: Path, dtype: str, length: int) -> npt.NDArray[Any]:
    """The numbers of a file, which stay on disk until they are looked at."""
    try:
        # What is empty cannot be mapped.
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r" if length else None, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{str(path)!r} cannot be opened ({error}): encode the text again") from error
    if array.dtype != np.dtype(dtype) or array.shape != (length,):
        raise ValueError(
            f"{str(path)!r} holds {array.dtype} of shape {list(array.shape)}, but the manifest says {dtype} of shape "
            f"{[length]}: encode the text again"
        )
    return array


def checksum_of_array(array: npt.NDArray[Any]) -> str:
    """The checksum that `ArrayFile.finish` returned when the array was written."""
    digest = hashlib.sha256()
    at_once = BYTES_AT_ONCE // array.itemsize
    for start in range(0, len(array), at_once):
        digest.update(np.ascontiguousarray(array[start : start + at_once]).data)
    return digest.hexdigest()


def checksum_of_tokenizer(folder: Path) -> str:
    """One checksum of all files of the tokenizer in a corpus."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".txt") and path.name != MANIFEST_FILE:
            content = path.read_bytes()
            digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True
