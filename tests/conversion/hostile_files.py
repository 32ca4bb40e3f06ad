"""Builds pickles that execute something in Python's own unpickler, and packs them as old files are packed."""

from __future__ import annotations

import contextlib
import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

CANARY = "hostile_canary"
CANARY_SOURCE = """
import os
from pathlib import Path


def sing(*arguments, **keywords):
    Path(__file__).with_name("executed").touch()
    os.environ["HOSTILE_CANARY"] = "executed"


class Singer:
    def __init__(self, *arguments, **keywords):
        sing()

    def __new__(cls, *arguments, **keywords):
        sing()
        return object.__new__(cls)

    def __setstate__(self, state):
        sing()

    append = extend = add = __setitem__ = sing


sing()
"""
EXTENSION_CODES = {1: b"\x82\x07", 2: b"\x83\x07\x01", 4: b"\x84\x07\x01\x01\x00"}
EXTENSIONS = {7: "one byte", 0x107: "two bytes", 0x10107: "four bytes"}


def text(value: str) -> bytes:
    """Pushes a text; protocol 4."""
    encoded = value.encode()
    return b"\x8c" + bytes([len(encoded)]) + encoded


def text_1(value: str) -> bytes:
    """Pushes a text; protocol 1."""
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def name(module: str, attribute: str) -> bytes:
    """Pushes what a name stands for; all protocols."""
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def name_4(module: str, attribute: str) -> bytes:
    """Pushes what a name stands for; protocol 4."""
    return text(module) + text(attribute) + b"\x93"


def call(callee: bytes, *arguments: bytes) -> bytes:
    """Pushes the result of a call; all protocols."""
    return callee + b"(" + b"".join(arguments) + b"tR"


SING, SINGER = name(CANARY, "sing"), name(CANARY, "Singer")
WORD = text_1("word")

# Each pushes one value, and looks up or calls something while doing so.
CALLS: dict[str, bytes] = {
    "look up": SING,
    "look up from stack": name_4(CANARY, "sing"),
    "look up an attribute of an attribute": name_4(CANARY, "Singer.__init__"),
    "call": call(SING),
    "call with arguments": call(SING, WORD, b"K\x05", b"N"),
    "call from stack": call(name_4(CANARY, "sing"), WORD),
    "call by lines": b"(" + WORD + f"i{CANARY}\nsing\n".encode(),
    "call by lines without arguments": b"(" + f"i{CANARY}\nSinger\n".encode(),
    "call from mark": b"(" + SING + WORD + b"o",
    "call from mark without arguments": b"(" + SINGER + b"o",
    "new object": SINGER + b")\x81",
    "new object with keywords": SINGER + b")}" + text_1("key") + WORD + b"s\x92",
    "old object": call(name("copy_reg", "_reconstructor"), SINGER, name("__builtin__", "object"), b"N"),
    "state": SINGER + b")\x81}" + WORD + b"K\x01sb",
    "state of two parts": SINGER + b")\x81N}" + WORD + b"K\x01s\x86b",
    "state of a call": call(SINGER) + b"}b",
    "state of a class": SINGER + b"}" + text_1("sing") + WORD + b"sb",
    "append": SINGER + b")\x81" + WORD + b"a",
    "append all": SINGER + b")\x81(" + WORD + WORD + b"e",
    "add all": SINGER + b")\x81(" + WORD + b"\x90",
    "put": SINGER + b")\x81" + WORD + WORD + b"s",
    "put all": SINGER + b")\x81(" + WORD + WORD + b"u",
    **{f"extension of {size}": code for size, code in EXTENSION_CODES.items()},
    **{f"call of extension of {size}": call(code) for size, code in EXTENSION_CODES.items()},
    "system": call(name("os", "system"), text_1("touch executed")),
    "posix": call(name("posix", "system"), text_1("touch executed")),
    "import": call(name("importlib", "import_module"), text_1(CANARY)),
    "built-in import": call(name("builtins", "__import__"), text_1(CANARY)),
    "eval": call(name("builtins", "eval"), text_1(f"__import__({CANARY!r})")),
    "exec": call(name("builtins", "exec"), text_1(f"import {CANARY}")),
    "exec of Python 2": call(name("__builtin__", "eval"), text_1(f"__import__({CANARY!r})")),
    "attribute": call(
        call(name("builtins", "getattr"), name("os", "system"), text_1("__call__")), text_1("touch executed")
    ),
    "run": call(name("runpy", "run_module"), text_1(CANARY)),
    "subprocess": call(name("subprocess", "call"), b"(" + text_1("touch") + text_1("executed") + b"l"),
    "nested pickle": call(name("pickle", "loads"), b"C" + bytes([len(call(SING)) + 1]) + call(SING) + b"."),
    "default of dictionary": call(name("collections", "defaultdict"), call(SINGER)),
    "ordered dictionary": call(name("collections", "OrderedDict"), call(SINGER)),
    "counter": call(name("collections", "Counter"), call(SING)),
    "set": call(name("builtins", "set"), b"(" + call(SINGER) + b"l"),
    "frozen set": b"(" + call(SINGER) + b"\x91",
    "key": b"}" + call(SINGER) + WORD + b"s",
    "encode": call(name("_codecs", "encode"), WORD, call(SING)),
    "memory": call(SING) + b"q\x00" + b"0h\x00",
    "memory of protocol 0": call(SING) + b"p0\n" + b"0g0\n",
    "memory of protocol 4": call(SING) + b"\x94" + b"0h\x00",
    "reference": call(SING) + b"Q",
    "parameter": call(name("torch._utils", "_rebuild_parameter"), call(SING), b"\x89", b"}"),
    "tensor": call(name("torch._utils", "_rebuild_tensor_v2"), call(SING), b"K\x00", b")", b")", b"\x89", b"N"),
    "tensor with attributes": call(
        name("torch._tensor", "_rebuild_from_type_v2"), SING, name("torch", "Tensor"), b")", b"}"
    ),
    "storage in bytes": call(
        name("torch.storage", "_load_from_bytes"), b"C" + bytes([len(call(SING)) + 1]) + call(SING) + b"."
    ),
    "array": call(name("numpy.core.multiarray", "_reconstruct"), SINGER, b"(K\x00t", b"C\x01b") + b"}b",
}

# Each refers to something outside the pickle, which a careless reader would go and get.
REFERENCES = {
    "reference by line": b"Pos.system\n",
    "reference": text_1("os.system") + b"Q",
    "reference to a name": SING + b"Q",
    "storage of a name": b"(" + text_1("storage") + SING + text_1("0") + text_1("cpu") + b"K\x01tQ",
    "source of a module": b"(" + text_1("module") + SING + text_1("file") + text_1("import os") + b"tQ",
    "buffer": b"\x97",
    "read-only buffer": b"\x97\x98",
}

WRAPPINGS: dict[str, Callable[[bytes], bytes]] = {
    "alone": lambda hostile: hostile,
    "in a list": lambda hostile: b"(" + hostile + hostile + b"l",
    "in a dictionary": lambda hostile: b"}" + text_1("sym2idx") + hostile + b"s",
    "in a tuple": lambda hostile: b"(" + WORD + hostile + b"t",
    "in the state of an object": lambda hostile: (
        call(name("copy_reg", "_reconstructor"), name("mem_transformer", "MemTransformerLM"), b"N", b"N")
        + b"}"
        + text_1("_modules")
        + hostile
        + b"sb"
    ),
    "in arguments": lambda hostile: call(name("collections", "OrderedDict"), b"(" + hostile + b"l"),
}


def plain(pickled: bytes, protocol: int = 2) -> bytes:
    """A whole pickle of what the instructions push."""
    return (b"\x80" + bytes([protocol]) if protocol >= 2 else b"") + pickled + b"."


def archive(whole_pickle: bytes, storages: dict[str, bytes] | None = None) -> bytes:
    """The same as `torch.save` has written it since 1.6."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", whole_pickle)
        file.writestr("archive/version", "3\n")
        for key, data in (storages or {}).items():
            file.writestr(f"archive/data/{key}", data)
    return buffer.getvalue()


def old_torch(whole_pickle: bytes, keys: list[str] | None = None, storages: bytes = b"", little: bool = True) -> bytes:
    """The same as `torch.save` wrote it before 1.6."""
    system = {"protocol_version": 1001, "little_endian": little, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, system)]
    return b"".join([*parts, whole_pickle, pickle.dumps(keys or [], 2), storages])


PACKINGS: dict[str, Callable[[bytes], bytes]] = {"plain": bytes, "zip": archive, "old torch": old_torch}


def hostile_files(instructions: bytes) -> Iterator[tuple[str, bytes]]:
    """The same instructions in every wrapping and packing, and by themselves with the header of every protocol."""
    for packing, pack in PACKINGS.items():
        for wrapping, wrap in WRAPPINGS.items():
            yield f"{wrapping}, {packing}", pack(plain(wrap(instructions)))
        for protocol in (0, 1, 3, 4, 5):
            yield f"protocol {protocol}, {packing}", pack(plain(instructions, protocol))


@contextlib.contextmanager
def one_sentence_about(path: Path) -> Iterator[None]:
    """Fails if a ValueError comes out that is more than one sentence, or does not name the file."""
    try:
        yield
    except ValueError as error:
        message = str(error)
        if str(path) not in message or "\n" in message or len(message) > 500:
            raise AssertionError(f"not one sentence that names the file: {message!r}") from error
        raise


def write_canary(folder: Path) -> None:
    """Writes the module that tells when it is imported or called."""
    (folder / f"{CANARY}.py").write_text(CANARY_SOURCE, encoding="utf-8")


def mutated(data: bytes, draw: Any) -> bytes:
    """The bytes with some of them changed, removed, repeated or moved."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, max(0, len(changed) - 1)))
        stop = min(len(changed), start + draw(st.integers(1, 12)))
        kind = draw(st.sampled_from(["change", "remove", "repeat", "move", "cut off"]))
        if kind == "change":
            changed[start:stop] = draw(st.binary(min_size=stop - start, max_size=stop - start))
        elif kind == "remove":
            del changed[start:stop]
        elif kind == "repeat":
            changed[start:start] = changed[start:stop] * draw(st.integers(1, 3))
        elif kind == "move":
            part = changed[start:stop]
            del changed[start:stop]
            place = draw(st.integers(0, len(changed)))
            changed[place:place] = part
        else:
            del changed[stop:]
    return bytes(changed)
