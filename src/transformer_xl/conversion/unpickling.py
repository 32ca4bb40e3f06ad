"""What a pickle holds, without running it: the only place of this library that opens one.

A pickle is a program for a small stack machine, and two of its instructions are "look up this name" and "call that".
The machine here has the same instructions, but nothing to look up and nothing to call: a name that a file mentions
becomes a `StandIn`, an inert record, and so does everything that the file makes of it. A few plain containers are built
by functions of this module; they are found by name in a table, never by import. Memory and time stay in proportion to
the size of the file, and nothing recurses.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Builder", "Machine", "StandIn", "UnreadableError", "attributes", "class_name", "raw_bytes"]

HIGHEST_PROTOCOL = 5
MOST_INSTRUCTIONS = 50_000_000
LONGEST_NAME = 500
LONGEST_NUMBER = 256
MOST_KEY_PARTS = 8
LONGEST_KEY = 10_000
# Whole numbers up to here are their own hash, so that a file cannot choose keys that all collide.
LARGEST_KEY = 2**60

ESCAPED_TEXT = re.compile(rb"(?:[^\\]|\\[\\'\"abfnrtv0-7\n]|\\x[0-9a-fA-F]{2})*", re.DOTALL)
RECONSTRUCTORS = {
    (module, name) for module in ("copyreg", "copy_reg") for name in ("_reconstructor", "__newobj__", "__newobj_ex__")
}


class UnreadableError(ValueError):
    """The end of a sentence that begins with a file's name: what is wrong with it."""


@dataclass(slots=True, eq=False, repr=False)
class StandIn:
    """The record of something that a pickle names, or makes of something named.

    Attributes:
        module: Module of a name, as the file spells it; empty for what was made of something else.
        name: The name in it.
        origin: What this was made of: the stand-in of a class, or whatever else the file called.
        arguments: What the origin was called with.
        keywords: What it was called with by name.
        state: The state that was given to it, usually its attributes.
        items: What was appended to it.
        pairs: What was put into it under a key.
    """

    module: str = ""
    name: str = ""
    origin: Any = None
    arguments: tuple[Any, ...] | None = None
    keywords: Any = None
    state: Any = None
    items: list[Any] | None = None
    pairs: list[tuple[Any, Any]] | None = None

    def __repr__(self) -> str:
        return f"<stand-in for {class_name(self)}>"


Builder = Callable[["Machine", tuple[Any, ...]], Any]


def class_name(value: Any) -> str:
    """Return the name, with its module, of what a value stands for or is an instance of; empty if it has none."""
    if not isinstance(value, StandIn):
        return ""
    made_by = value.origin
    if isinstance(made_by, StandIn) and (made_by.module, made_by.name) in RECONSTRUCTORS and value.arguments:
        made_by = value.arguments[0]
    named = made_by if isinstance(made_by, StandIn) else value
    return f"{named.module}.{named.name}" if named.name else ""


def attributes(value: Any) -> dict[str, Any]:
    """Return the attributes of the object that a value stands for; none if it is not a stand-in."""
    if not isinstance(value, StandIn):
        return {}
    parts = value.state if isinstance(value.state, tuple) else (value.state,)
    return {name: each for part in parts if isinstance(part, dict) for name, each in part.items() if type(name) is str}


def raw_bytes(value: Any) -> bytes | None:
    """Return the bytes of a byte string, also of one that Python 2 wrote and that was read as text; else None."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return bytes(value) if isinstance(value, bytes | bytearray) else None


class Machine:
    """The stack machine of pickles, protocols 0 to 5, with nothing to look up or call.

    Args:
        data: A file's bytes.
        position: Where the pickle begins; after `run`, where it has ended.
        builders: What to build for calls of certain names (module, name), besides the plain containers. A builder
            returns NotImplemented if the arguments are not what it knows; then a stand-in is made.
        persistent: What to return for references to something outside the pickle; stand-ins if None.

    Example:
        >>> Machine(pickle.dumps({"a": 1})).run()
        {'a': 1}
    """

    def __init__(
        self,
        data: bytes,
        position: int = 0,
        builders: Mapping[tuple[str, str], Builder] | None = None,
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        self.data = data
        self.position = position
        self.builders = {**CONTAINERS, **(builders or {})}
        self.persistent = persistent or (lambda reference: StandIn(name="reference", arguments=(reference,)))
        self.allowance = 1000 + 4 * len(data)
        self.stack: list[Any] = []
        self.outer_stacks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Return what the pickle describes.

        Raises:
            UnreadableError: It is malformed, cut off, or asks for more work than its size allows.
        """
        instructions, data, executed = INSTRUCTIONS, self.data, 0
        while True:
            start = self.position
            if start >= len(data):
                raise UnreadableError("it is cut off: it ends before its last instruction")
            code = data[start]
            self.position = start + 1
            executed += 1
            if code not in instructions:
                raise UnreadableError(f"byte {start:,} is no instruction of a pickle")
            if executed > MOST_INSTRUCTIONS:
                raise UnreadableError(f"it has more than {MOST_INSTRUCTIONS:,} instructions, which no old file needs")
            try:
                instructions[code](self)
                if code == STOP:
                    return self.pop()
            except IndexError:
                raise UnreadableError(
                    f"the instruction at byte {start:,} takes something from an empty stack"
                ) from None
            except KeyError:
                raise UnreadableError(
                    f"the instruction at byte {start:,} recalls something that was never stored"
                ) from None
            except UnreadableError:
                raise
            except ValueError:
                raise UnreadableError(f"the instruction at byte {start:,} holds no valid text or number") from None

    # What instructions are made of.

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        stop = self.position + count
        if stop > len(self.data):
            raise UnreadableError(
                f"it is cut off or absurd: at byte {self.position:,} it announces {count:,} bytes, but only "
                f"{len(self.data) - self.position:,} follow"
            )
        taken = self.data[self.position : stop]
        self.position = stop
        return taken

    def take_number(self, size: int) -> int:
        """Return the next unsigned number of `size` bytes."""
        return int.from_bytes(self.take(size), "little")

    def take_line(self, longest: int | None = None) -> bytes:
        """Return the bytes up to the end of the line."""
        stop = self.data.find(b"\n", self.position)
        if stop < 0:
            raise UnreadableError(f"it is cut off: the line that begins at byte {self.position:,} has no end")
        if longest is not None and stop - self.position > longest:
            raise UnreadableError(f"the number or name at byte {self.position:,} is longer than {longest} characters")
        line = self.data[self.position : stop]
        self.position = stop + 1
        return line

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def pop(self) -> Any:
        """Take the last value from the stack."""
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        """Take all values since the last mark from the stack."""
        taken = self.stack
        self.stack = self.outer_stacks.pop()
        return taken

    def spend(self, amount: int) -> None:
        """Pay for work whose size the file's length does not bound, as copying something that was stored once.

        Raises:
            UnreadableError: The file has had more work done than its size allows.
        """
        self.allowance -= amount
        if self.allowance < 0:
            raise UnreadableError("it asks for far more work than its size allows, as only a hostile file does")

    def called(self, callee: Any, arguments: Any, keywords: Any = None) -> Any:
        """Return what stands for a call: a plain container of an allowed name, else a stand-in."""
        if type(arguments) is not tuple:
            raise UnreadableError("it calls something with arguments that are no tuple")
        if type(callee) is StandIn and callee.origin is None and not keywords:
            builder = self.builders.get((callee.module, callee.name))
            built = NotImplemented if builder is None else builder(self, arguments)
            if built is not NotImplemented:
                return built
        return StandIn(origin=callee, arguments=arguments, keywords=keywords)

    def name(self, module: Any, name: Any) -> StandIn:
        """Return the stand-in for a name."""
        if type(module) is not str or type(name) is not str or max(len(module), len(name)) > LONGEST_NAME:
            raise UnreadableError(f"it names something by other than a text of at most {LONGEST_NAME} characters")
        return StandIn(module, name)


def _key(value: Any) -> Any:
    """Return a key for a dictionary: the value if hashing it is cheap and safe, else a stand-in that holds it."""
    kind = type(value)
    if kind in (str, bytes):
        cheap = len(value) <= LONGEST_KEY
    elif kind is int:
        cheap = abs(value) < LARGEST_KEY
    elif kind is tuple:
        cheap = len(value) <= MOST_KEY_PARTS and all(type(part) is str and len(part) <= LONGEST_KEY for part in value)
    else:
        cheap = kind in (float, bool, StandIn) or value is None
    if cheap:
        return value
    return StandIn(name="key", arguments=(value,))


def _put(target: Any, pairs: Iterable[tuple[Any, Any]]) -> None:
    if type(target) is dict:
        for key, value in pairs:
            target[_key(key)] = value
    elif type(target) is StandIn:
        target.pairs = target.pairs or []
        target.pairs.extend(pairs)
    else:
        raise UnreadableError(f"it puts something under a key into a {type(target).__name__}")


def _append(target: Any, items: list[Any]) -> None:
    if type(target) is list:
        target.extend(items)
    elif type(target) is set:
        target.update(map(_key, items))
    elif type(target) is StandIn:
        target.items = target.items or []
        target.items.extend(items)
    else:
        raise UnreadableError(f"it appends something to a {type(target).__name__}")


# The containers that are built; each function gets the machine and the arguments of the call.


def _dictionary(machine: Machine, arguments: tuple[Any, ...]) -> Any:
    if not arguments:
        return {}
    if len(arguments) > 1:
        return NotImplemented
    source = arguments[0]
    if type(source) is dict:
        return source
    if type(source) is not list:
        return NotImplemented
    machine.spend(len(source))
    if not all(type(pair) in (list, tuple) and len(pair) == 2 for pair in source):
        return NotImplemented
    return {_key(key): value for key, value in source}


def _default_dictionary(machine: Machine, arguments: tuple[Any, ...]) -> Any:
    return {} if len(arguments) <= 1 else NotImplemented


def _set(kind: type) -> Builder:
    def build(machine: Machine, arguments: tuple[Any, ...]) -> Any:
        if not arguments:
            return kind()
        if len(arguments) > 1 or type(arguments[0]) not in (list, tuple):
            return NotImplemented
        machine.spend(len(arguments[0]))
        return kind(map(_key, arguments[0]))

    return build


def _encoded(machine: Machine, arguments: tuple[Any, ...]) -> Any:
    if len(arguments) != 2 or type(arguments[0]) is not str or arguments[1] not in ("latin1", "latin-1"):
        return NotImplemented
    machine.spend(len(arguments[0]))
    return arguments[0].encode("latin-1")


def _byte_string(machine: Machine, arguments: tuple[Any, ...]) -> Any:
    if not arguments:
        return b""
    if len(arguments) == 1 and type(arguments[0]) is bytes:
        return arguments[0]
    return _encoded(machine, arguments)


def _size(machine: Machine, arguments: tuple[Any, ...]) -> Any:
    return arguments[0] if len(arguments) == 1 and type(arguments[0]) is tuple else NotImplemented


BUILT_IN_MODULES = ("builtins", "__builtin__")
CONTAINERS: dict[tuple[str, str], Builder] = {
    ("collections", "OrderedDict"): _dictionary,
    ("collections", "Counter"): _dictionary,
    ("collections", "defaultdict"): _default_dictionary,
    ("_codecs", "encode"): _encoded,
    ("torch", "Size"): _size,
    **{(module, "set"): _set(set) for module in BUILT_IN_MODULES},
    **{(module, "frozenset"): _set(frozenset) for module in BUILT_IN_MODULES},
    **{(module, name): _byte_string for module in BUILT_IN_MODULES for name in ("bytes", "bytearray")},
}


# The instructions; each function gets the machine.


def _constant(value: Any) -> Callable[[Machine], None]:
    return lambda machine: machine.stack.append(value)


def _text(size: int) -> Callable[[Machine], None]:
    def run(machine: Machine) -> None:
        machine.push(str(machine.take(machine.take_number(size)), "utf-8", "surrogatepass"))

    return run


def _bytes(size: int) -> Callable[[Machine], None]:
    return lambda machine: machine.push(machine.take(machine.take_number(size)))


def _old_text(size: int) -> Callable[[Machine], None]:
    def run(machine: Machine) -> None:
        machine.push(str(machine.take(machine.take_number(size)), "utf-8", "surrogateescape"))

    return run


def _quoted_text(machine: Machine) -> None:
    line = machine.take_line()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"') or not ESCAPED_TEXT.fullmatch(line[1:-1]):
        raise UnreadableError(f"the text that ends at byte {machine.position:,} is not quoted as Python 2 quotes")
    machine.push(str(_unescaped(line[1:-1]), "utf-8", "surrogateescape"))


def _unescaped(text: bytes) -> bytes:
    simple = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v", b"\n": b""}

    def replace(match: re.Match[bytes]) -> bytes:
        code = match[1]
        if code[:1] == b"x":
            return bytes([int(code[1:], 16)])
        if code[:1].isdigit():
            return bytes([int(code, 8) & 255])
        return simple.get(code, code)

    return re.sub(rb"\\(x[0-9a-fA-F]{2}|[0-7]{1,3}|.)", replace, text, flags=re.DOTALL)


def _whole_number_line(machine: Machine) -> None:
    line = machine.take_line(LONGEST_NUMBER)
    machine.push({b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line))


def _long_line(machine: Machine) -> None:
    machine.push(int(machine.take_line(LONGEST_NUMBER).removesuffix(b"L")))


def _long(size: int) -> Callable[[Machine], None]:
    def run(machine: Machine) -> None:
        length = machine.take_number(size)
        if length > LONGEST_NUMBER:
            raise UnreadableError(f"at byte {machine.position:,} it announces a number of {length:,} bytes")
        machine.push(int.from_bytes(machine.take(length), "little", signed=True))

    return run


def _protocol(machine: Machine) -> None:
    protocol = machine.take_number(1)
    if protocol > HIGHEST_PROTOCOL:
        raise UnreadableError(f"it is a pickle of protocol {protocol}, but 0 to {HIGHEST_PROTOCOL} can be read")


def _frame(machine: Machine) -> None:
    length = machine.take_number(8)
    if length > len(machine.data) - machine.position:
        raise UnreadableError(f"it is cut off or absurd: at byte {machine.position:,} it announces {length:,} bytes")


def _mark(machine: Machine) -> None:
    machine.outer_stacks.append(machine.stack)
    machine.stack = []


def _discard(machine: Machine) -> None:
    if machine.stack:
        machine.pop()
    else:
        machine.pop_to_mark()


def _discard_to_mark(machine: Machine) -> None:
    machine.pop_to_mark()


def _duplicate(machine: Machine) -> None:
    machine.push(machine.stack[-1])


def _tuple_of(count: int) -> Callable[[Machine], None]:
    def run(machine: Machine) -> None:
        if len(machine.stack) < count:
            raise IndexError
        machine.stack[-count:] = [tuple(machine.stack[-count:])]

    return run


def _from_mark(kind: Callable[[list[Any]], Any]) -> Callable[[Machine], None]:
    def run(machine: Machine) -> None:
        items = machine.pop_to_mark()
        machine.push(kind(items))

    return run


def _dictionary_of(items: list[Any]) -> dict[Any, Any]:
    dictionary: dict[Any, Any] = {}
    _put(dictionary, _pairs(items))
    return dictionary


def _pairs(items: list[Any]) -> Iterable[tuple[Any, Any]]:
    if len(items) % 2:
        raise UnreadableError("it gives a key without a value")
    return zip(items[::2], items[1::2], strict=True)


def _append_one(machine: Machine) -> None:
    item = machine.pop()
    _append(machine.stack[-1], [item])


def _append_all(machine: Machine) -> None:
    items = machine.pop_to_mark()
    _append(machine.stack[-1], items)


def _put_one(machine: Machine) -> None:
    value, key = machine.pop(), machine.pop()
    _put(machine.stack[-1], [(key, value)])


def _put_all(machine: Machine) -> None:
    items = machine.pop_to_mark()
    _put(machine.stack[-1], _pairs(items))


def _store(size: int) -> Callable[[Machine], None]:
    def run(machine: Machine) -> None:
        machine.memo[machine.take_number(size)] = machine.stack[-1]

    return run


def _store_line(machine: Machine) -> None:
    machine.memo[_memo_number(machine)] = machine.stack[-1]


def _store_next(machine: Machine) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]


def _recall(size: int) -> Callable[[Machine], None]:
    def run(machine: Machine) -> None:
        machine.stack.append(machine.memo[machine.take_number(size)])

    return run


def _recall_line(machine: Machine) -> None:
    machine.push(machine.memo[_memo_number(machine)])


def _memo_number(machine: Machine) -> int:
    number = int(machine.take_line(LONGEST_NUMBER))
    if not 0 <= number < LARGEST_KEY:
        raise UnreadableError(f"it stores something under the number {number}")
    return number


def _name_lines(machine: Machine) -> None:
    module, name = (str(machine.take_line(LONGEST_NAME), "utf-8") for _ in range(2))
    machine.push(machine.name(module, name))


def _name_from_stack(machine: Machine) -> None:
    name, module = machine.pop(), machine.pop()
    machine.push(machine.name(module, name))


def _call(machine: Machine) -> None:
    arguments, callee = machine.pop(), machine.pop()
    machine.push(machine.called(callee, arguments))


def _call_with_keywords(machine: Machine) -> None:
    keywords, arguments, callee = machine.pop(), machine.pop(), machine.pop()
    machine.push(machine.called(callee, arguments, keywords))


def _call_of_name_lines(machine: Machine) -> None:
    _name_lines(machine)
    callee = machine.pop()
    arguments = tuple(machine.pop_to_mark())
    machine.push(machine.called(callee, arguments))


def _call_from_mark(machine: Machine) -> None:
    callee, *arguments = machine.pop_to_mark() or [None]
    machine.push(machine.called(callee, tuple(arguments)))


def _give_state(machine: Machine) -> None:
    state = machine.pop()
    # Containers keep no attributes, such as the version numbers that torch hangs on its ordered dictionaries.
    if type(machine.stack[-1]) is StandIn:
        machine.stack[-1].state = state


def _extension(size: int) -> Callable[[Machine], None]:
    return lambda machine: machine.push(StandIn(name=f"extension {machine.take_number(size)}"))


def _reference_line(machine: Machine) -> None:
    machine.push(machine.persistent(str(machine.take_line(), "utf-8")))


def _reference(machine: Machine) -> None:
    machine.push(machine.persistent(machine.pop()))


def _outside_buffer(machine: Machine) -> None:
    raise UnreadableError("it refers to a buffer that is not in the file")


def _stop(machine: Machine) -> None:
    """Nothing: `run` takes the result from the stack."""


STOP = ord(".")
INSTRUCTIONS: dict[int, Callable[[Machine], None]] = {
    code[0]: instruction
    for code, instruction in {
        b".": _stop,
        b"N": _constant(None),
        b"\x88": _constant(True),
        b"\x89": _constant(False),
        b")": _constant(()),
        b"]": lambda machine: machine.push([]),
        b"}": lambda machine: machine.push({}),
        b"\x8f": lambda machine: machine.push(set()),
        b"I": _whole_number_line,
        b"L": _long_line,
        b"F": lambda machine: machine.push(float(machine.take_line(LONGEST_NUMBER))),
        b"K": lambda machine: machine.push(machine.take_number(1)),
        b"M": lambda machine: machine.push(machine.take_number(2)),
        b"J": lambda machine: machine.push(int.from_bytes(machine.take(4), "little", signed=True)),
        b"\x8a": _long(1),
        b"\x8b": _long(4),
        b"G": lambda machine: machine.push(struct.unpack(">d", machine.take(8))[0]),
        b"V": lambda machine: machine.push(str(machine.take_line(), "raw-unicode-escape")),
        b"\x8c": _text(1),
        b"X": _text(4),
        b"\x8d": _text(8),
        b"S": _quoted_text,
        b"U": _old_text(1),
        b"T": _old_text(4),
        b"C": _bytes(1),
        b"B": _bytes(4),
        b"\x8e": _bytes(8),
        b"\x96": _bytes(8),
        b"\x80": _protocol,
        b"\x95": _frame,
        b"(": _mark,
        b"0": _discard,
        b"1": _discard_to_mark,
        b"2": _duplicate,
        b"\x85": _tuple_of(1),
        b"\x86": _tuple_of(2),
        b"\x87": _tuple_of(3),
        b"t": _from_mark(tuple),
        b"l": _from_mark(list),
        b"d": _from_mark(_dictionary_of),
        b"\x91": _from_mark(lambda items: frozenset(map(_key, items))),
        b"a": _append_one,
        b"e": _append_all,
        b"\x90": _append_all,
        b"s": _put_one,
        b"u": _put_all,
        b"p": _store_line,
        b"q": _store(1),
        b"r": _store(4),
        b"\x94": _store_next,
        b"g": _recall_line,
        b"h": _recall(1),
        b"j": _recall(4),
        b"c": _name_lines,
        b"\x93": _name_from_stack,
        b"R": _call,
        b"\x81": _call,
        b"\x92": _call_with_keywords,
        b"i": _call_of_name_lines,
        b"o": _call_from_mark,
        b"b": _give_state,
        b"\x82": _extension(1),
        b"\x83": _extension(2),
        b"\x84": _extension(4),
        b"P": _reference_line,
        b"Q": _reference,
        b"\x97": _outside_buffer,
        b"\x98": _outside_buffer,
    }.items()
}
