"""Reads TensorFlow's checkpoints without TensorFlow: `PREFIX.index` and `PREFIX.data-00000-of-00001`.

The index is a sorted table of the format of LevelDB, whose values are protocol buffers that say where each variable
lies in the data (tensorflow/core/util/tensor_bundle/tensor_bundle.h, tensorflow/core/protobuf/tensor_bundle.proto).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["TensorBundle", "Variable"]

FOOTER_SIZE, BLOCK_TRAILER_SIZE = 48, 5
TABLE_MAGIC_NUMBER = 0xDB4775248B80FB57
LONGEST_NAME = 1000
# Types of tensorflow/core/framework/types.proto that hold weights or steps.
NUMBER_TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}


class Variable(NamedTuple):
    """Where a variable lies.

    Attributes:
        dtype: Kind of its numbers, by TensorFlow's count.
        shape: Its shape.
        shard: Number of the data file.
        start: First byte.
        size: Number of bytes.
        in_parts: Whether it was saved in several parts, which cannot be read.
    """

    dtype: int
    shape: tuple[int, ...]
    shard: int
    start: int
    size: int
    in_parts: bool


class TensorBundle:
    """The variables of a checkpoint.

    Args:
        prefix: The path of the checkpoint without `.index`.

    Attributes:
        variables: Where each variable lies, by its name.

    Raises:
        FileNotFoundError: There is no such checkpoint, or a data file of it is missing.
        ValueError: It is broken or cut off; the sentence names the file.

    Example:
        >>> TensorBundle("model.ckpt-0").read("transformer/r_w_bias").shape
        (18, 16, 64)
    """

    def __init__(self, prefix: str | Path) -> None:
        self.prefix = str(prefix)
        self.index = Path(f"{self.prefix}.index")
        if not self.index.is_file():
            raise FileNotFoundError(f"there is no checkpoint {self.prefix!r}: {str(self.index)!r} is missing")
        try:
            entries = dict(_table(self.index.read_bytes()))
            header = _fields(entries.pop(b""))
            self.num_shards = _number(header, 1)
            self.variables = {str(name, "utf-8"): _variable(entry) for name, entry in entries.items()}
        except (ValueError, KeyError, IndexError) as error:
            raise ValueError(f"{str(self.index)!r} is no index of a TensorFlow checkpoint, or is cut off") from error
        if _number(header, 2):
            raise ValueError(f"{str(self.index)!r} was written by a machine of the other byte order")
        shards = [self._shard(number) for number in sorted({each.shard for each in self.variables.values()})]
        if sum(each.size for each in self.variables.values()) > sum(shard.stat().st_size for shard in shards):
            raise ValueError(f"{self.prefix!r} is cut off: its data files are smaller than its variables")

    def _shard(self, number: int) -> Path:
        file = Path(f"{self.prefix}.data-{number:05}-of-{self.num_shards:05}")
        if not file.is_file():
            raise FileNotFoundError(f"there is no file {str(file)!r}, which holds variables of the checkpoint")
        return file

    def read(self, name: str) -> npt.NDArray[Any]:
        """Return the numbers of a variable.

        Raises:
            ValueError: The variable lies outside its data file, or is of a kind that no weight has.
        """
        variable = self.variables[name]
        file = self._shard(variable.shard)
        if variable.dtype not in NUMBER_TYPES or variable.in_parts:
            raise ValueError(f"{str(self.index)!r} has the variable {name!r} of an unknown kind, or in several parts")
        dtype = np.dtype(NUMBER_TYPES[variable.dtype])
        count = math.prod(variable.shape)
        if count * dtype.itemsize != variable.size or variable.start + variable.size > file.stat().st_size:
            raise ValueError(f"{str(file)!r} is cut off: the variable {name!r} reaches beyond it")
        return np.fromfile(file, dtype, count, offset=variable.start).reshape(variable.shape)


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Return the keys and values of a table of LevelDB's format."""
    footer = data[-FOOTER_SIZE:]
    if len(footer) < FOOTER_SIZE or int.from_bytes(footer[-8:], "little") != TABLE_MAGIC_NUMBER:
        raise ValueError("no table")
    _, _, position = _handle(footer, 0)
    start, size, _ = _handle(footer, position)
    last = 0
    for _, block in _block(data, start, size):
        start, size, _ = _handle(block, 0)
        # Blocks follow each other; a table that names one block many times would never end.
        if start < last:
            raise ValueError("overlapping blocks")
        last = start + size
        yield from _block(data, start, size)


def _handle(data: bytes, position: int) -> tuple[int, int, int]:
    start, position = _varint(data, position)
    size, position = _varint(data, position)
    return start, size, position


def _block(data: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Return the entries of a block; each key repeats the beginning of the one before."""
    block = data[start : start + size + BLOCK_TRAILER_SIZE]
    if len(block) < size + BLOCK_TRAILER_SIZE or block[size]:
        raise ValueError("cut off or compressed block")
    num_restarts = int.from_bytes(block[size - 4 : size], "little")
    stop = size - 4 - 4 * num_restarts
    position, key = 0, b""
    while position < stop:
        num_shared, position = _varint(block, position)
        num_new, position = _varint(block, position)
        value_size, position = _varint(block, position)
        if num_shared + num_new > LONGEST_NAME or num_shared > len(key):
            raise ValueError("absurd key")
        key = key[:num_shared] + _slice(block, position, num_new)
        position += num_new
        yield key, _slice(block, position, value_size)
        position += value_size


def _slice(data: bytes, start: int, size: int) -> bytes:
    if start + size > len(data):
        raise ValueError("cut off")
    return data[start : start + size]


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return a number of seven bits to the byte, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError("absurd number")


def _fields(message: bytes) -> dict[int, list[Any]]:
    """Return the fields of a protocol buffer: numbers, or bytes, in the order in which they come."""
    fields: dict[int, list[Any]] = {}
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        value: int | bytes
        if kind == 0:
            value, position = _varint(message, position)
        elif kind in (1, 2, 5):
            size, position = _varint(message, position) if kind == 2 else ({1: 8, 5: 4}[kind], position)
            value = _slice(message, position, size)
            position += size
        else:
            raise ValueError("unknown kind of field")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _number(fields: dict[int, list[Any]], which: int) -> int:
    value = fields.get(which, [0])[-1]
    if not isinstance(value, int):
        raise ValueError("no number")
    return value


def _variable(entry: bytes) -> Variable:
    fields = _fields(entry)
    shape_fields = _fields(fields.get(2, [b""])[-1])
    shape = tuple(_number(_fields(length), 1) for length in shape_fields.get(2, []))
    return Variable(
        dtype=_number(fields, 1),
        shape=shape,
        shard=_number(fields, 3),
        start=_number(fields, 4),
        size=_number(fields, 5),
        in_parts=7 in fields,
    )
