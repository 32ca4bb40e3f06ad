"""Files of every packing are read, and broken ones are refused by one sentence that names them."""

from __future__ import annotations

import contextlib
import functools
import io
import pickle
import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transformer_xl.conversion.legacy_files import array_of, read_legacy_file, token_ids
from transformer_xl.conversion.legacy_vocabulary import read_corpus, read_vocabulary
from transformer_xl.conversion.unpickling import attributes, class_name

from .hostile_files import archive, call, mutated, name, old_torch, one_sentence_about, plain, text_1

TYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]
LAYOUTS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])


def saved(value: Any, zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def read(folder: Path, data: bytes) -> Any:
    path = folder / "file.pt"
    path.write_bytes(data)
    return read_legacy_file(path)


def refusal(folder: Path, data: bytes) -> str:
    """The sentence that refuses a file."""
    match = r"file\.pt' cannot be read: "
    with pytest.raises(ValueError, match=match) as caught, one_sentence_about(folder / "file.pt"):
        read(folder, data)
    return str(caught.value)


@LAYOUTS
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_tensors_of_all_types_come_as_they_are(tmp_path: Path, dtype: torch.dtype, zipped: bool) -> None:
    whole = torch.arange(24).reshape(2, 3, 4).to(dtype)
    tensors = {
        "whole": whole,
        "turned": whole.transpose(0, 2),
        "part": whole[1, ::2],
        "none": whole[:0],
        "one": whole[1, 2, 3],
    }
    result = read(tmp_path, saved(tensors, zipped))
    for key, tensor in tensors.items():
        assert result[key].dtype == dtype
        assert torch.equal(result[key], tensor), key


@LAYOUTS
def test_shared_weights_stay_shared(tmp_path: Path, zipped: bool) -> None:
    tied = torch.nn.Parameter(torch.randn(3))
    result = read(tmp_path, saved({"a": tied, "b": tied}, zipped))
    assert result["a"].data_ptr() == result["b"].data_ptr()


@LAYOUTS
def test_whole_modules_are_records_of_their_parameters(tmp_path: Path, zipped: bool) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Dropout(0.25))
    result = read(tmp_path, saved(module, zipped))
    assert class_name(result) == "torch.nn.modules.container.Sequential"
    linear, dropout = attributes(result)["_modules"].values()
    assert torch.equal(attributes(linear)["_parameters"]["weight"], module[0].weight)
    assert attributes(dropout)["p"] == 0.25


def test_numbers_of_a_machine_of_the_other_byte_order_are_read(tmp_path: Path) -> None:
    reference = b"(" + text_1("storage") + name("torch", "FloatStorage") + text_1("0") + text_1("cpu") + b"K\x02tQ"
    tensor = call(
        name("torch._utils", "_rebuild_tensor_v2"), reference, b"K\x00", b"K\x02\x85", b"K\x01\x85", b"\x89", b"}"
    )
    numbers = struct.pack(">2f", 1.5, -2)
    buffer = io.BytesIO(archive(plain(tensor), {"0": numbers}))
    with zipfile.ZipFile(buffer, "a") as file:
        file.writestr("archive/byteorder", "big")
    assert read(tmp_path, buffer.getvalue()).tolist() == [1.5, -2]
    # The old format records the order of the machine, but always writes the lowest byte first.
    numbers = struct.pack("<q2f", 2, 1.5, -2)
    assert read(tmp_path, old_torch(plain(tensor), ["0"], numbers, little=False)).tolist() == [1.5, -2]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_tensors_in_plain_pickles_are_read(tmp_path: Path, protocol: int) -> None:
    value = {
        "rows": np.arange(6, dtype=np.int32).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "swapped": np.arange(3, dtype=">i8"),
        "tensor": torch.arange(4),
    }
    result = read(tmp_path, pickle.dumps(value, protocol))
    for key in ("rows", "columns", "swapped"):
        np.testing.assert_array_equal(array_of(result[key]), value[key])
    assert torch.equal(result["tensor"], value["tensor"])
    assert token_ids([result["rows"], result["tensor"]]).tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3]
    assert token_ids(result["columns"]) is None


def test_arrays_of_python_2_keep_their_bytes(tmp_path: Path) -> None:
    """Python 2 wrote the bytes of an array as an 8-bit text, and the texts of its type likewise."""
    kind = (
        call(name("numpy", "dtype"), b"U\x02i8", b"K\x00", b"K\x01")
        + b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    array = call(name("numpy.core.multiarray", "_reconstruct"), name("numpy", "ndarray"), b"K\x00\x85", b"U\x01b")
    numbers = np.array([200, -1, 2**40], np.int64)
    state = b"(K\x01K\x03\x85" + kind + b"\x89U\x18" + numbers.tobytes() + b"tb"
    assert array_of(read(tmp_path, plain(array + state))).tolist() == numbers.tolist()


def tensor_of(
    count: bytes = b"K\x04", start: bytes = b"K\x00", shape: bytes = b"K\x04\x85", strides: bytes = b"K\x01\x85"
) -> bytes:
    """A tensor of four numbers, with something else in the place of one of its measures."""
    reference = b"(" + text_1("storage") + name("torch", "FloatStorage") + text_1("0") + text_1("cpu") + count + b"tQ"
    return plain(call(name("torch._utils", "_rebuild_tensor_v2"), reference, start, shape, strides, b"\x89", b"}"))


HUGE = b"\x8a\x08" + struct.pack("<q", 2**61)
ABSURD_TENSORS = {
    "beyond its storage": tensor_of(shape=b"K\x05\x85"),
    "beyond its storage by its start": tensor_of(start=b"K\x01"),
    "beyond its storage by its stride": tensor_of(strides=b"K\x02\x85"),
    "a number repeated without end": tensor_of(shape=b"J\xff\xff\xff\x0f\x85", strides=b"K\x00\x85"),
    "huge storage": tensor_of(count=HUGE),
    "huge shape": tensor_of(shape=HUGE + b"\x85"),
    "huge shape of nothing": tensor_of(shape=b"K\x00" + HUGE + b"\x86", strides=b"K\x01K\x01\x86"),
    "huge stride": tensor_of(shape=b"K\x01\x85", strides=HUGE + b"\x85"),
    "negative start": tensor_of(start=b"J\xff\xff\xff\xff"),
    "negative count": tensor_of(count=b"J\xff\xff\xff\xff"),
    "count of another size": tensor_of(count=b"K\x03", shape=b"K\x03\x85"),
    "text as count": tensor_of(count=text_1("4")),
    "texts as shape": tensor_of(shape=text_1("4") + b"\x85"),
    "list as shape": tensor_of(shape=b"]"),
    "one stride too many": tensor_of(strides=b"K\x01K\x01\x86"),
}


@pytest.mark.parametrize("case", ABSURD_TENSORS)
def test_absurd_tensors_are_refused(tmp_path: Path, case: str) -> None:
    numbers = struct.pack("<4f", 1, 2, 3, 4)
    assert read(tmp_path, archive(tensor_of(), {"0": numbers})).tolist() == [1, 2, 3, 4]
    assert read(tmp_path, old_torch(tensor_of(), ["0"], struct.pack("<q", 4) + numbers)).tolist() == [1, 2, 3, 4]
    refusal(tmp_path, archive(ABSURD_TENSORS[case], {"0": numbers}))
    refusal(tmp_path, old_torch(ABSURD_TENSORS[case], ["0"], struct.pack("<q", 4) + numbers))


def test_a_part_of_a_storage_must_lie_in_it(tmp_path: Path) -> None:
    def view(start: int, count: int) -> bytes:
        part = b"(" + text_1("view") + bytes([ord("K"), start, ord("K"), count]) + b"t"
        reference = (
            b"("
            + text_1("storage")
            + name("torch", "FloatStorage")
            + text_1("0")
            + text_1("cpu")
            + b"K\x04"
            + part
            + b"tQ"
        )
        return plain(call(name("torch._utils", "_rebuild_tensor"), reference, b"K\x00", b"K\x02\x85", b"K\x01\x85"))

    numbers = struct.pack("<q4f", 4, 1, 2, 3, 4)
    assert read(tmp_path, old_torch(view(1, 2), ["0"], numbers)).tolist() == [2, 3]
    assert "lies outside" in refusal(tmp_path, old_torch(view(3, 2), ["0"], numbers))


def test_storages_must_be_those_that_are_listed(tmp_path: Path) -> None:
    numbers = struct.pack("<q4f", 4, 1, 2, 3, 4)
    assert "does not hold" in refusal(tmp_path, old_torch(tensor_of(), [], b""))
    assert "nothing refers to" in refusal(tmp_path, old_torch(tensor_of(), ["0", "1"], numbers * 2))
    assert "malformed" in refusal(tmp_path, old_torch(tensor_of(), ["0", "0"], numbers * 2))
    assert "two sizes" in refusal(tmp_path, old_torch(tensor_of(), ["0"], struct.pack("<q4f", 3, 1, 2, 3, 4)))
    assert "cut off" in refusal(tmp_path, old_torch(tensor_of(), ["0"], numbers[:-1]))
    assert "does not hold" in refusal(tmp_path, archive(tensor_of()))


def records(*entries: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for entry, data in entries:
            file.writestr(entry, data)
    return buffer.getvalue()


def overlapping(count: int) -> bytes:
    """An archive whose directory gives one record many names."""
    data = records(("a/data.pkl", plain(b"N")), ("a/data/0", bytes(100_000)))
    start = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    stop = data.index(b"PK\x05\x06")
    entry = data[start:stop]
    entries = b"".join(entry.replace(b"a/data/0", f"a/dat/{i:02}".encode()) for i in range(count))
    total = 2 + count
    size = stop - data.index(b"PK\x01\x02") + len(entries)
    end = data[stop : stop + 8] + struct.pack("<HHI", total, total, size) + data[stop + 16 :]
    return data[:stop] + entries + end


ARCHIVES = {
    "not of torch": (records(("word/document.xml", b"")), "not one of torch"),
    "two objects": (records(("a/data.pkl", plain(b"N")), ("b/data.pkl", plain(b"N"))), "not one of torch"),
    "a program": (records(("a/data.pkl", plain(b"N")), ("a/constants.pkl", b"")), "TorchScript"),
    "compressed": (
        records(("a/data.pkl", plain(b"0N" * 10**6)), compression=zipfile.ZIP_DEFLATED),
        "torch did not write",
    ),
    "byte order": (records(("a/data.pkl", plain(b"N")), ("a/byteorder", b"middle")), "byte order"),
    "one record under many names": (overlapping(50), "larger than the file"),
    "cut off": (records(("a/data.pkl", plain(b"N")))[:-10], "broken or cut off"),
    "damaged": (records(("a/data.pkl", plain(b"N"))).replace(b"\x80\x02N.", b"\x80\x02K."), "broken or cut off"),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_archives_that_torch_did_not_write_are_refused(tmp_path: Path, case: str) -> None:
    data, expected = ARCHIVES[case]
    assert expected in refusal(tmp_path, data)


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    assert "empty" in refusal(tmp_path, b"")
    assert "git lfs pull" in refusal(tmp_path, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    refusal(tmp_path, b"<!DOCTYPE html><html></html>\n")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pkl"):
        read_legacy_file(tmp_path / "nowhere.pkl")
    with pytest.raises(FileNotFoundError, match="give a file"):
        read_legacy_file(tmp_path)


@LAYOUTS
def test_a_file_that_is_cut_off_anywhere_is_refused(tmp_path: Path, zipped: bool) -> None:
    whole = saved({"weight": torch.randn(3), "names": ["a", "b"]}, zipped)
    for length in range(0, len(whole), 3):
        refusal(tmp_path, whole[:length])


def zip_around(data: bytes) -> bytes:
    """A mutated pickle in a sound archive: otherwise its checksum would protect it from being read at all."""
    return archive(data, {"0": bytes(12), "1": bytes(24)})


GOLDEN = sorted((Path(__file__).parents[1] / "golden" / "conversion").glob("*.[pb][kit]*"))


@functools.cache
def seeds() -> list[bytes]:
    value = {
        "weight": torch.randn(3),
        "t": torch.arange(3),
        "names": ["a", {"b": (1, 2.5, None)}],
        "array": np.arange(3),
    }
    with zipfile.ZipFile(io.BytesIO(saved(value, True))) as file:
        inner = file.read("archive/data.pkl")
    plain_files = [pickle.dumps(value, protocol) for protocol in range(6)]
    return [saved(value, True), saved(value, False), inner, *plain_files, *(path.read_bytes() for path in GOLDEN)]


@pytest.mark.slow
@settings(max_examples=20_000, suppress_health_check=list(HealthCheck))
@given(data=st.data(), packed=st.booleans())
def test_mutated_files_are_read_or_refused_but_never_crash_or_hang(
    data: Any, packed: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = mutated(data.draw(st.sampled_from(seeds())), data.draw)
    path = tmp_path_factory.getbasetemp() / "file.pt"
    path.write_bytes(zip_around(content) if packed else content)
    start = time.process_time()
    for reader in (read_legacy_file, read_vocabulary, read_corpus):
        with contextlib.suppress(ValueError), one_sentence_about(path):
            reader(path)
    assert time.process_time() - start < 5
