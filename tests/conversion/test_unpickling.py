"""The machine reads what Python's own unpickler reads, and a file cannot make it work out of proportion."""

from __future__ import annotations

import collections
import contextlib
import pickle
import pickletools
import struct
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer_xl.conversion.unpickling import (
    INSTRUCTIONS,
    Machine,
    UnreadableError,
    attributes,
    class_name,
    raw_bytes,
)

from .hostile_files import call, name, plain, text_1

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)

numbers = st.integers(-(2**200), 2**200) | st.floats(allow_nan=False) | st.booleans() | st.none()
texts = st.text() | st.binary()
keys = st.text() | st.integers(-(2**59), 2**59) | st.binary()
values = st.recursive(
    numbers | texts | st.sets(keys) | st.frozensets(keys) | st.binary().map(bytearray),
    lambda parts: (
        st.lists(parts)
        | st.dictionaries(keys, parts)
        | st.lists(parts).map(tuple)
        | st.dictionaries(keys, parts).map(collections.OrderedDict)
    ),
    max_leaves=10,
)


@given(values, st.sampled_from(PROTOCOLS))
def test_plain_values_are_those_of_python(value: Any, protocol: int) -> None:
    assert Machine(pickle.dumps(value, protocol)).run() == value


def test_every_instruction_of_python_is_known() -> None:
    assert {ord(opcode.code) for opcode in pickletools.opcodes} == set(INSTRUCTIONS)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_counters_and_shared_lists_are_plain(protocol: int) -> None:
    shared = ["a"]
    value = {"counter": collections.Counter("aab"), "default": collections.defaultdict(list), "twice": [shared, shared]}
    read = Machine(pickle.dumps(value, protocol)).run()
    assert read == {"counter": {"a": 2, "b": 1}, "default": {}, "twice": [["a"], ["a"]]}
    assert read["twice"][0] is read["twice"][1]


class Vocab:
    """Stands for a class of old code."""

    def __init__(self) -> None:
        self.symbols = ["a", "b"]


class Slotted:
    """Keeps its attributes in slots."""

    __slots__ = ("content",)

    def __init__(self) -> None:
        self.content = "<unk>"


class Words(list):  # type: ignore[type-arg]
    """A list that is more than a list."""


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_objects_become_records_with_name_and_attributes(protocol: int) -> None:
    read = Machine(pickle.dumps(Vocab(), protocol)).run()
    assert class_name(read) == f"{__name__}.Vocab"
    assert attributes(read) == {"symbols": ["a", "b"]}


@pytest.mark.parametrize("protocol", PROTOCOLS[2:])
def test_slots_are_attributes(protocol: int) -> None:
    assert attributes(Machine(pickle.dumps(Slotted(), protocol)).run()) == {"content": "<unk>"}


@pytest.mark.parametrize("protocol", PROTOCOLS[2:])
def test_what_was_appended_to_a_record_is_kept(protocol: int) -> None:
    assert Machine(pickle.dumps(Words(["a", "b"]), protocol)).run().items == ["a", "b"]


def test_a_record_keeps_arguments_keywords_and_pairs() -> None:
    named = name("argparse", "Namespace")
    read = Machine(plain(named + b"(K\x01t}" + text_1("key") + b"Ns\x92" + b"(K\x02K\x03u")).run()
    assert (read.arguments, read.keywords, read.pairs) == ((1,), {"key": None}, [(2, 3)])
    assert repr(read) == "<stand-in for argparse.Namespace>"


def test_byte_strings_of_python_2_are_text_in_utf_8_and_keep_their_bytes() -> None:
    """`repr` of a str in protocol 0, its bytes in protocols 1 and 2."""
    encoded = "Zoë\n'\\".encode()
    for pickled in (b"S'Zo\\xc3\\xab\\n\\'\\\\'\n.", b"U" + bytes([len(encoded)]) + encoded + b"."):
        assert Machine(pickled).run() == "Zoë\n'\\"
    latin = Machine(b"U\x02\xe9\xff.").run()
    assert raw_bytes(latin) == b"\xe9\xff"


def test_a_pickle_may_begin_anywhere_and_tells_where_it_ends() -> None:
    data = b"xx" + pickle.dumps([1, 2]) + b"yy"
    machine = Machine(data, position=2)
    assert machine.run() == [1, 2]
    assert data[machine.position :] == b"yy"


# What a hostile file may do to memory or time: each is small, and would be enormous if it were believed.
HUGE = struct.pack("<Q", 2**62)
ITEMS = b"(" + b"K\x01" * 50_000 + b"lq\x000"
PAIRS = b"(" + b"](K\x01K\x02e" * 20_000 + b"lq\x000"
BOMBS: dict[str, bytes] = {
    "tuples in tuples twice": b"K\x01" + b"\x85q\x000" + b"h\x00h\x00\x86q\x000" * 20_000 + b"h\x00",
    "lists in lists": b"]" * 100_000 + b"a" * 99_999,
    "tuples in tuples": b")" + b"\x85" * 200_000,
    "marks": b"(" * 200_000,
    "a deep tuple as key": b"})" + b"\x85" * 100_000 + b"Ns",
    "tuples in tuples twice as key": b"}K\x01q\x000" + b"h\x00h\x00\x86q\x000" * 5_000 + b"h\x00Ns",
    "text": b"\x8d" + HUGE + b"a",
    "bytes": b"\x8e" + HUGE + b"a",
    "byte array": b"\x96" + HUGE + b"a",
    "short text": b"X\xff\xff\xff\xffa",
    "old text": b"T\xff\xff\xff\xffa",
    "frame": b"\x95" + HUGE,
    "number": b"\x8b\xff\xff\xff\x7f",
    "negative number": b"\x8b\xff\xff\xff\xff",
    "digits": b"I" + b"9" * 1_000_000 + b"\n",
    "long digits": b"L" + b"9" * 1_000_000 + b"L\n",
    "memory far away": b"Nr\xff\xff\xff\xff",
    "memory by a long number": b"Np" + b"9" * 100_000 + b"\n",
    "a long name": b"c" + b"a" * 100_000 + b"\nb\n",
    "a long name from the stack": text_1("a" * 100_000) + b"q\x00" + b"h\x00h\x00\x930" * 50_000 + b"N",
    "copies of a dictionary": PAIRS + (name("collections", "OrderedDict") + b"h\x00\x85R0") * 5_000 + b"N",
    "copies of a set": ITEMS + (name("builtins", "set") + b"h\x00\x85R0") * 20_000 + b"N",
    "copies of bytes": text_1("a" * 100_000)
    + b"q\x000"
    + (call(name("_codecs", "encode"), b"h\x00", text_1("latin1")) + b"0") * 20_000
    + b"N",
    "keys of one hash": b"}("
    + b"".join(b"\x8a\x0b" + (k * (2**61 - 1)).to_bytes(11, "little") + b"N" for k in range(60_000))
    + b"u",
    "long keys": b"}q\x00"
    + (text_1("a" * 500_000) + b"q\x010" + text_1("a" * 500_000) + b"q\x020")
    + b"h\x00h\x01Nsh\x00h\x02Ns" * 20_000,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_work_stays_in_proportion_to_the_file(bomb: str) -> None:
    data = plain(BOMBS[bomb])
    start = time.process_time()
    tracemalloc.start()
    try:
        with contextlib.suppress(UnreadableError):
            Machine(data).run()
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 300 * len(data) + 1_000_000
    assert time.process_time() - start < 10


BROKEN: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "cut off"),
    "no end": (b"N", "cut off"),
    "text without its end": (text_1("abc")[:-1], "announces"),
    "line without its end": (b"I12", "no end"),
    "unknown instruction": (b"\xff.", "byte 0 is no instruction"),
    "future protocol": (b"\x80\x06N.", "protocol 6"),
    "empty stack": (b".", "empty stack"),
    "empty stack below": (b"R.", "empty stack"),
    "no mark": (b"t.", "empty stack"),
    "a tuple of too few": (b"N\x86.", "empty stack"),
    "memory of nothing": (b"h\x05.", "never stored"),
    "no number": (b"Iabc\n.", "no valid text or number"),
    "no text": (b"X\x02\x00\x00\x00\xff\xff.", "no valid text or number"),
    "no quotes": (b"Sabc\n.", "not quoted"),
    "bad escape": (b"S'\\xzz'\n.", "not quoted"),
    "key without value": (b"}(Nu.", "without a value"),
    "append to a number": (b"K\x01Na.", "appends something to a int"),
    "put into a number": (b"K\x01NNs.", "into a int"),
    "arguments that are no tuple": (name("os", "system") + b"NR.", "no tuple"),
    "name that is no text": (b"NN\x93.", "names something"),
    "negative memory": (b"Np-1\n.", "under the number -1"),
    "buffer": (b"\x97.", "buffer"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_pickle_is_refused_with_what_is_wrong(case: str) -> None:
    data, expected = BROKEN[case]
    with pytest.raises(UnreadableError, match=expected):
        Machine(data).run()


def test_arguments_that_a_container_does_not_know_make_a_record() -> None:
    for arguments in (b"K\x01", b"K\x01K\x02K\x03", b"(K\x01l", text_1("word") + text_1("word")):
        for container in ("OrderedDict", "Counter"):
            read = Machine(plain(call(name("collections", container), arguments))).run()
            assert class_name(read) == f"collections.{container}"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("make", [lambda: Vocab(), lambda: {"a": [1, 2.5, b"x", "é"]}])
def test_a_pickle_that_is_cut_off_anywhere_is_refused(protocol: int, make: Callable[[], Any]) -> None:
    whole = pickle.dumps(make(), protocol)
    for length in range(len(whole)):
        with pytest.raises(UnreadableError):
            Machine(whole[:length]).run()
