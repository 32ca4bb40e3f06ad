"""Opens the pickled files of seven years, whatever they are packed in: plain, or in either format of `torch.save`.

Tensors are read from the bytes of the file; everything else is what `unpickling` gives.
"""

from __future__ import annotations

import math
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from transformer_xl.conversion.unpickling import Builder, Machine, StandIn, UnreadableError, class_name, raw_bytes

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["array_of", "read_legacy_file", "token_ids"]

ZIP_BEGINNING = b"PK\x03\x04"
TORCH_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
TORCH_PROTOCOL = 1001
MOST_DIMENSIONS = 32
LARGEST_MEASURE = 2**60

# The kinds of storage that torch writes, and the kind of number in them.
STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
}


def read_legacy_file(path: str | Path) -> Any:
    """Return what a pickled file holds, without running it.

    Plain containers, numbers, texts and tensors come as they are. Whatever else the file names comes as a stand-in.

    Args:
        path: A plain pickle of any protocol, or a file of `torch.save` in the format of torch 1.6 and later (a zip
            archive) or in the one before.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is cut off, malformed, absurd or hostile; the sentence names the file and says what is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}: give a file that exists")
    try:
        with path.open("rb") as file:
            zipped = file.read(len(ZIP_BEGINNING)) == ZIP_BEGINNING
        return _read_archive(path) if zipped else _read_stream(path.read_bytes())
    except UnreadableError as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error}") from error


def _read_stream(data: bytes) -> Any:
    """Return the object of a plain pickle, or of a file of torch before 1.6: several pickles, and then numbers."""
    if not data:
        raise UnreadableError("it is empty")
    if data.startswith(b"version https://git-lfs"):
        raise UnreadableError("it is a pointer of Git LFS instead of the file; get the file itself by `git lfs pull`")
    machine = Machine(data, builders={("torch.storage", "_load_from_bytes"): _storage_in_bytes, **TENSORS})
    value = machine.run()
    return _read_old_torch(data, machine.position) if type(value) is int and value == TORCH_MAGIC_NUMBER else value


def _read_old_torch(data: bytes, position: int) -> Any:
    protocol, position = _next_pickle(data, position)
    system, position = _next_pickle(data, position)
    # The machine's own order is recorded, but the numbers are always written with the lowest byte first.
    if protocol != TORCH_PROTOCOL or type(system) is not dict or type(system.get("little_endian")) is not bool:
        raise UnreadableError(
            f"it begins like a file of torch, but not with protocol {TORCH_PROTOCOL} and a byte order"
        )
    storages = _Storages(len(data), lambda key, size: None)
    machine = Machine(data, position, TENSORS, storages.reference)
    value = machine.run()
    keys, position = _next_pickle(data, machine.position)
    if type(keys) is not list or any(type(key) is not str for key in keys) or len(set(keys)) != len(keys):
        raise UnreadableError("the list of its storages is malformed")
    for key in keys:
        position = storages.fill(key, data, position)
    storages.refuse_missing(keys)
    return value


def _next_pickle(data: bytes, position: int) -> tuple[Any, int]:
    machine = Machine(data, position)
    return machine.run(), machine.position


def _read_archive(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_records(archive, path.stat().st_size)
    except UnreadableError:
        raise
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
        EOFError,
        struct.error,
        ValueError,
        OSError,
    ) as error:
        raise UnreadableError("it begins as a zip archive, but is a broken or cut off one") from error


def _read_records(archive: zipfile.ZipFile, file_size: int) -> Any:
    records = {record.filename: record for record in archive.infolist()}
    stored = all(
        record.compress_type == zipfile.ZIP_STORED and record.compress_size == record.file_size
        for record in records.values()
    )
    if len(records) != len(archive.infolist()) or not stored:
        raise UnreadableError(
            "it is a zip archive that torch did not write: torch compresses nothing and repeats no name"
        )
    if sum(record.file_size for record in records.values()) > file_size:
        raise UnreadableError("its records together are larger than the file")
    folders = [name.removesuffix("data.pkl") for name in records if re.fullmatch(r"[^/]+/data\.pkl", name)]
    if len(folders) != 1:
        raise UnreadableError("it is a zip archive, but not one of torch, which holds one data.pkl in a folder")
    if f"{folders[0]}constants.pkl" in records:
        raise UnreadableError("it is a TorchScript program, which holds code; save its state_dict() instead")
    order = archive.read(f"{folders[0]}byteorder") if f"{folders[0]}byteorder" in records else b"little"
    if order not in (b"little", b"big"):
        raise UnreadableError("its byte order is neither little nor big")

    def bytes_of_storage(key: str, item_size: int) -> bytes:
        name = f"{folders[0]}data/{key}"
        if name not in records:
            raise UnreadableError(f"it refers to the storage {key[:40]!r}, which it does not hold")
        data = archive.read(name)
        return data if order == b"little" or item_size == 1 else _swapped(data, item_size)

    storages = _Storages(file_size, bytes_of_storage)
    return Machine(archive.read(f"{folders[0]}data.pkl"), 0, TENSORS, storages.reference).run()


def _swapped(data: bytes, item_size: int) -> bytes:
    if len(data) % item_size:
        raise UnreadableError("one of its storages ends in the middle of a number")
    return np.frombuffer(data, f">u{item_size}").astype(f"<u{item_size}").tobytes()


class _Storages:
    """The numbers of a file of torch, which its pickle refers to by keys.

    Args:
        most_bytes: How many bytes all storages together can have.
        bytes_of: Gives the bytes of a storage for its key and size of a number; None if they come later, by `fill`.
    """

    def __init__(self, most_bytes: int, bytes_of: Callable[[str, int], bytes | None]) -> None:
        self.most_bytes = most_bytes
        self.bytes_of = bytes_of
        self.loaded: dict[str, Tensor] = {}
        self.item_sizes: dict[str, int] = {}

    def reference(self, reference: Any) -> Any:
        """Return what a reference in the pickle stands for: a one-dimensional tensor, or the class of a module."""
        kind, *rest = reference if type(reference) is tuple else (None,)
        if kind == "module" and len(rest) == 3 and type(rest[0]) is StandIn:
            # Torch before 1.6 wrote the source code of modules beside their class; nobody reads it.
            return rest[0]
        if kind != "storage" or len(rest) not in (4, 5) or type(rest[0]) is not StandIn:
            raise UnreadableError("it refers to something that is neither a storage nor the class of a module")
        number_type = STORAGES.get(rest[0].name)
        key, _, count = rest[1:4]
        if number_type is None or type(key) is not str or type(count) is not int or count < 0:
            raise UnreadableError(f"it refers to a malformed storage, or one of the unknown kind {rest[0].name[:40]!r}")
        numbers = self._numbers(key, number_type, count)
        return numbers if len(rest) == 4 or rest[4] is None else self._part(numbers, rest[4])

    def _numbers(self, key: str, number_type: str, count: int) -> Tensor:
        import torch

        dtype = getattr(torch, number_type)
        if key not in self.loaded:
            self.most_bytes -= count * dtype.itemsize
            if self.most_bytes < 0:
                raise UnreadableError("its storages together are larger than the file")
            data = self.bytes_of(key, dtype.itemsize)
            size = count * dtype.itemsize
            if data is not None and len(data) != size:
                raise UnreadableError(f"the storage {key[:40]!r} has {len(data):,} bytes instead of {size:,}")
            self.loaded[key] = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else _empty(size)
            self.item_sizes[key] = dtype.itemsize
        loaded = self.loaded[key]
        if loaded.numel() != count * dtype.itemsize:
            raise UnreadableError(f"it gives the storage {key[:40]!r} two sizes")
        return loaded.view(dtype)

    @staticmethod
    def _part(numbers: Tensor, part: Any) -> Tensor:
        _, start, count = part if type(part) is tuple and len(part) == 3 else (None, None, None)
        if type(start) is not int or type(count) is not int or not 0 <= start <= start + count <= numbers.numel():
            raise UnreadableError("a part of one of its storages lies outside it")
        return numbers[start : start + count]

    def fill(self, key: str, data: bytes, position: int) -> int:
        """Read a storage from a file of torch before 1.6, and return where it ends."""
        if key not in self.loaded:
            raise UnreadableError(f"it lists the storage {key[:40]!r}, which nothing refers to")
        storage = self.loaded[key]
        start = position + 8
        if start + storage.numel() > len(data):
            raise UnreadableError("it is cut off in the middle of its storages")
        if int.from_bytes(data[position:start], "little") * self.item_sizes[key] != storage.numel():
            raise UnreadableError(f"it gives the storage {key[:40]!r} two sizes")
        storage.numpy()[:] = np.frombuffer(data, np.uint8, storage.numel(), start)
        return start + storage.numel()

    def refuse_missing(self, keys: list[str]) -> None:
        """Raise UnreadableError if a storage that is referred to is not among the keys."""
        missing = sorted(self.loaded.keys() - set(keys))
        if missing:
            raise UnreadableError(f"it refers to the storage {missing[0][:40]!r}, which it does not hold")


def _empty(size: int) -> Tensor:
    import torch

    return torch.zeros(size, dtype=torch.uint8)


def _tensor(machine: Machine, arguments: tuple[Any, ...]) -> Any:
    import torch

    if len(arguments) < 4 or not isinstance(arguments[0], torch.Tensor):
        return NotImplemented
    numbers, start, shape, strides = arguments[:4]
    measures = (start, *shape, *strides) if type(shape) is type(strides) is tuple else ()
    if not measures or any(type(measure) is not int or not 0 <= measure < LARGEST_MEASURE for measure in measures):
        raise UnreadableError("it describes a tensor by other than whole numbers")
    most = math.prod(max(length, 1) for length in shape)
    if len(shape) != len(strides) or len(shape) > MOST_DIMENSIONS or most >= LARGEST_MEASURE:
        raise UnreadableError("it describes a tensor of contradictory dimensions")
    machine.spend(8)
    size = math.prod(shape)
    last = start + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    if size and (last >= numbers.numel() or size > numbers.numel()):
        raise UnreadableError("one of its tensors reaches beyond its storage")
    return (
        torch.as_strided(numbers, shape, strides, numbers.storage_offset() + start)
        if size
        else numbers.new_empty(shape)
    )


def _first_argument(machine: Machine, arguments: tuple[Any, ...]) -> Any:
    return arguments[0] if arguments else NotImplemented


def _tensor_with_attributes(machine: Machine, arguments: tuple[Any, ...]) -> Any:
    if len(arguments) != 4 or type(arguments[0]) is not StandIn or type(arguments[2]) is not tuple:
        return NotImplemented
    builder = TENSORS.get((arguments[0].module, arguments[0].name))
    return NotImplemented if builder in (None, _tensor_with_attributes) else builder(machine, arguments[2])


TENSORS: dict[tuple[str, str], Builder] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _first_argument,
    ("torch._utils", "_rebuild_parameter_with_state"): _first_argument,
    ("torch._tensor", "_rebuild_from_type_v2"): _tensor_with_attributes,
}


def _storage_in_bytes(machine: Machine, arguments: tuple[Any, ...]) -> Any:
    """Return the storage that a plain pickle of a tensor holds as the bytes of a whole file of torch."""
    import torch

    if len(arguments) != 1 or type(arguments[0]) is not bytes:
        return NotImplemented
    machine.spend(len(arguments[0]))
    inner = Machine(arguments[0])
    beginning = inner.run()
    if type(beginning) is not int or beginning != TORCH_MAGIC_NUMBER:
        raise UnreadableError("it holds a tensor whose bytes are no file of torch")
    storage = _read_old_torch(arguments[0], inner.position)
    return storage if isinstance(storage, torch.Tensor) else NotImplemented


def array_of(value: Any) -> npt.NDArray[Any] | None:
    """Return the numbers of a tensor, or of the stand-in for a NumPy array; None if the value is neither.

    Raises:
        ValueError: The array contradicts itself.
    """
    if isinstance(value, StandIn):
        return _numpy_array(value)
    return cast("npt.NDArray[Any]", value.numpy()) if hasattr(value, "numpy") else None


def _numpy_array(value: StandIn) -> npt.NDArray[Any] | None:
    made_by = class_name(value)
    if re.fullmatch(r"numpy\.(core|_core)\.multiarray\._reconstruct", made_by) and type(value.state) is tuple:
        _, shape, kind, by_columns, data = value.state if len(value.state) == 5 else (None, (), None, None, None)
    elif re.fullmatch(r"numpy\.(core|_core)\.numeric\._frombuffer", made_by) and len(value.arguments or ()) == 4:
        data, kind, shape, order = value.arguments or ()
        by_columns = order == "F"
    else:
        return None
    dtype, numbers = _numpy_dtype(kind), raw_bytes(data)
    lengths_known = isinstance(shape, tuple) and all(
        type(length) is int and 0 <= length < LARGEST_MEASURE for length in shape
    )
    if dtype is None or numbers is None or not lengths_known or len(shape) > MOST_DIMENSIONS:
        raise ValueError("it holds a NumPy array of something else than numbers")
    if math.prod(shape) * dtype.itemsize != len(numbers):
        raise ValueError(f"it holds a NumPy array of shape {shape} with {len(numbers):,} bytes")
    return np.frombuffer(numbers, dtype).reshape(shape, order="F" if by_columns else "C")


def _numpy_dtype(value: Any) -> np.dtype[Any] | None:
    if class_name(value) != "numpy.dtype" or not value.arguments or type(value.arguments[0]) is not str:
        return None
    order = value.state[1] if type(value.state) is tuple and len(value.state) > 1 else "|"
    if not re.fullmatch(r"[iu][1248]|f[248]|b1", value.arguments[0]) or order not in ("<", ">", "|", "="):
        return None
    return np.dtype(f"{order}{value.arguments[0]}")


def token_ids(value: Any) -> npt.NDArray[np.int64] | None:
    """Return a corpus's ids as one row [N], whether they are an array, a tensor or one of these for each line.

    None if the value is something else, as the list of file names that stands for the training text of lm1b.
    """
    lines = value if type(value) is list else [value]
    arrays = [np.asarray(line) if type(line) is int else array_of(line) for line in lines]
    if any(array is None or array.dtype.kind not in "iu" for array in arrays):
        return None
    rows = [array.reshape(-1).astype(np.int64) for array in arrays if array is not None]
    return np.concatenate(rows) if rows else np.zeros(0, np.int64)
