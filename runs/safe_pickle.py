"""Reads a pickle of plain arrays without executing it.

`pickle.Unpickler` with a `find_class` for the same stubs is not enough. Tried on the crafted files of the
tests, it dies of a key of nested tuples (C stack), takes a key twice, and fills the memory; behind a filter
of opcodes the first two remain. So this is a stack machine for the thirty opcodes that arrays need; globals
resolve to the constructors of `runs.stubs`, and nothing else is called. Work and memory are linear in the
size of the file.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable
from typing import Any

from secateur.runs.stubs import STUBS, Allowance, Array, Dtype, Refused, short

ZIP = b"PK\x03\x04"
MAX_OPCODES = 500_000  # the published ResNet-56 has 9,000


class _Machine:
    """The stack, the memo and the allowance of one file."""

    def __init__(self, size: int):
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: list[Any] = []
        self.allowance = Allowance(size)

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def above_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marked.pop()
        return items


def read_pickle(data: bytes) -> tuple[dict[str, Any], int]:
    """Return the entries of the pickled dictionary, arrays read-only, and the length up to and with STOP.

    Entries that are not arrays are strings, numbers or containers, as they were found.

    Raises:
        Refused: anything but a dictionary with string keys, made of allowed opcodes and globals.
    """
    if data.startswith(ZIP):
        raise Refused("it is a zip archive, such as a .keras model; the snapshot is the .pkl beside it")
    try:
        with warnings.catch_warnings(action="ignore"):  # pickletools warns of odd text, refused next
            top, end = _run(data)
    except Refused:
        raise
    except (ValueError, IndexError) as error:  # pickletools' words for a cut file, and an empty stack
        raise Refused(f"it is truncated or not a pickle ({str(error)[:60]})") from None
    if type(top) is not dict:
        raise Refused(f"it holds a {type(top).__name__.lower()}, not a dictionary of arrays")
    return {key: _finished(key, value) for key, value in top.items()}, end


def _run(data: bytes) -> tuple[Any, int]:
    machine = _Machine(len(data))
    for count, (opcode, argument, position) in enumerate(pickletools.genops(data)):
        if (opcode.name == "PROTO") != (count == 0) or count == 0 and argument not in (2, 3, 4, 5):
            raise Refused("it is not a pickle of protocol 2 to 5")
        if count > MAX_OPCODES:
            raise Refused(f"it has more than {MAX_OPCODES} instructions")
        if opcode.name == "STOP":
            if machine.marked or len(machine.stack) != 1:
                raise Refused("its stack is not empty at the end")
            return machine.stack[0], position + 1
        handler = _HANDLERS.get(opcode.name)
        if handler is None:
            raise Refused(f"it uses {opcode.name}, which no array needs")
        handler(machine, argument)
    raise Refused("it has no end")


def _finished(key: str, value: Any) -> Any:
    if isinstance(value, Array):
        if value.values is None:
            raise Refused(f"entry {key[:60]!a} is an array without content")
        return value.values
    return value


# --- opcodes -----------------------------------------------------------------------------------------------


def _new(make: Callable) -> Callable:
    return lambda machine, argument: machine.push(make())


def _mark(machine: _Machine, argument: Any) -> None:
    machine.marked.append(machine.stack)
    machine.stack = []


def _tuple_of(size: int) -> Callable:
    def build(machine: _Machine, argument: Any) -> None:
        items = [machine.stack.pop() for _ in range(size)]
        machine.push(tuple(reversed(items)))

    return build


def _set(machine: _Machine, items: list) -> None:
    target = machine.stack[-1]
    if type(target) is not dict or len(items) % 2:
        raise Refused("it fills something that is not a dictionary")
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Hashing anything but a string could recurse without end.
        if type(key) is not str or key in target:
            raise Refused(f"it has a key that is no text or occurs twice: {short(key)}")
        target[key] = value


def _set_one(machine: _Machine, argument: Any) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    _set(machine, [key, value])


def _extend(machine: _Machine, items: list) -> None:
    if type(machine.stack[-1]) is not list:
        raise Refused("it appends to something that is not a list")
    machine.stack[-1].extend(items)


def _resolve(machine: _Machine, module: Any, name: Any) -> None:
    if type(module) is not str or type(name) is not str or (module, name) not in STUBS:
        raise Refused(f"it names {short(module)} {short(name)}, which no array needs; nothing was executed")
    machine.push(STUBS[module, name])


def _stack_global(machine: _Machine, argument: Any) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    _resolve(machine, module, name)


def _reduce(machine: _Machine, argument: Any) -> None:
    arguments, stub = machine.stack.pop(), machine.stack.pop()
    if type(arguments) is not tuple or not any(stub is known for known in STUBS.values()):
        raise Refused("it calls something that is not a constructor of arrays")
    try:
        machine.push(stub(machine.allowance, *arguments))
    except TypeError:
        raise Refused("it calls a constructor of arrays with the wrong arguments") from None


def _build(machine: _Machine, argument: Any) -> None:
    state, target = machine.stack.pop(), machine.stack[-1]
    if type(state) is not tuple:
        raise Refused("it has a state that is not a tuple")
    if type(target) is Dtype:
        target.build(state)
    elif type(target) is Array:
        target.build(machine.allowance, state)
    else:
        raise Refused("it sets the state of something that is not an array")


def _put(machine: _Machine, index: int | None) -> None:
    # Every writer numbers its memo in order; a list and this test keep a huge index from costing anything.
    if index is not None and index != len(machine.memo):
        raise Refused("its memo is not in order")
    machine.memo.append(machine.stack[-1])


def _frame(machine: _Machine, size: int) -> None:
    if size > machine.allowance.left:
        raise Refused("it has a frame larger than the file")


_HANDLERS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, version: None,
    "FRAME": _frame,
    "MARK": _mark,
    "EMPTY_DICT": _new(dict),
    "EMPTY_LIST": _new(list),
    "EMPTY_TUPLE": _new(tuple),
    "NONE": _new(lambda: None),
    "NEWTRUE": _new(lambda: True),
    "NEWFALSE": _new(lambda: False),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.above_mark())),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "SETITEM": _set_one,
    "SETITEMS": lambda machine, _: _set(machine, machine.above_mark()),
    "APPEND": lambda machine, _: _extend(machine, [machine.stack.pop()]),
    "APPENDS": lambda machine, _: _extend(machine, machine.above_mark()),
    "GLOBAL": lambda machine, names: _resolve(machine, *names.split(" ", 1)),
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "BUILD": _build,
    **dict.fromkeys(["BINPUT", "LONG_BINPUT", "MEMOIZE"], _put),
    **dict.fromkeys(["BINGET", "LONG_BINGET"], lambda machine, index: machine.push(machine.memo[index])),
    **dict.fromkeys(["BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"], _Machine.push),
    **dict.fromkeys(["BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"], _Machine.push),
    **dict.fromkeys(["BININT", "BININT1", "BININT2", "BINFLOAT"], _Machine.push),
}
