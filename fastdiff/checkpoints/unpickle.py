"""Reading pickles without executing anything in them: a small machine of our own for the opcodes, with inert values only.

Python's own unpickler calls what a pickle names. This one looks names up in a table of builders that the caller wrote; whatever
else a pickle names is refused by name. Nothing is imported, no attribute of a live object is read, and every size is limited by
what the file really holds.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NoReturn

MAX_OPERATIONS = 5_000_000  #: opcodes and copied elements of one file; a network of 300 M parameters has some 300,000
MAX_INTEGER_BYTES = 32
_INTEGER = 2**63  #: larger integers as keys can be made to collide


class UntrustedPickle(ValueError):
    """A pickle that names something other than tensors and plain containers, or that is damaged."""


class Budget:
    """What one file may still cost, its nested files included.

    Args:
        file: name for messages; size: bytes of the file, which bound the bytes of all its tensors.
    """

    def __init__(self, file: str, size: int):
        self.file = file
        self.bytes = size
        self.operations = MAX_OPERATIONS

    def spend(self, operations: int = 1) -> None:
        """Count operations."""
        self.operations -= operations
        if self.operations < 0:
            raise UntrustedPickle(f"checkpoint: expected at most {MAX_OPERATIONS} operations, got more in {self.file}")

    def allocate(self, size: int) -> None:
        """Count bytes of tensors."""
        if not 0 <= size <= self.bytes:
            raise UntrustedPickle(
                f"checkpoint: expected tensors no larger than the file, got {size} bytes with {self.bytes} left in {self.file}"
            )
        self.bytes -= size


@dataclass(eq=False)
class Global:
    """A name in a pickle, and how to build what it stands for; None where it only appears as an argument."""

    name: str
    build: Callable[..., Any] | None = None


@dataclass(eq=False)
class Record:
    """An instance of a class that is not loaded: its name and its attributes."""

    class_name: str
    state: dict[str, Any] = field(default_factory=dict)


class Settable:
    """A value that a pickle completes after making it."""

    def set_state(self, state: Any) -> None:
        """Take the rest."""
        raise NotImplementedError


Resolve = Callable[[str], "Global | Any | None"]


def unpickle(stream: io.BytesIO, budget: Budget, resolve: Resolve, persistent: Callable[[Any], Any] | None = None) -> Any:
    """The value of the pickle that starts at the stream's position; afterwards the stream is behind it.

    Args:
        stream: bytes of the file; budget: what the file may cost.
        resolve: gives a Global, or an inert value, for a dotted name, and None for one that is refused.
        persistent: gives the value of a persistent id; None refuses them.

    Raises:
        UntrustedPickle: a refused name, which the message says, or a pickle that is damaged or too large.
    """
    start = stream.tell()
    try:
        return _Machine(budget, resolve, persistent).run(stream)
    except UntrustedPickle:
        raise
    except Exception as error:  # whatever fails here, bytes of the file made it fail
        reason = f"{type(error).__name__}: {error}"[:200]
        raise UntrustedPickle(
            f"checkpoint: expected a whole pickle at byte {start}, got a damaged one in {budget.file} ({reason})"
        ) from error


class _Machine:
    """The stack, the marks and the memo of one pickle."""

    def __init__(self, budget: Budget, resolve: Resolve, persistent: Callable[[Any], Any] | None):
        self.budget = budget
        self.resolve = resolve
        self.persistent = persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: io.BytesIO) -> Any:
        for opcode, argument, _ in pickletools.genops(stream):
            self.budget.spend()
            name = opcode.name
            number: Any = argument
            if name in _VALUES:
                self.stack.append(_value(argument))
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name]())
            elif name in _PUTS:
                self.memo[len(self.memo) if argument is None else int(number)] = self.stack[-1]
            elif name in _GETS:
                self.stack.append(self.memo[int(number)])
            elif name == "STOP":
                (value,) = self.stack
                return value
            elif name not in _IGNORED:
                method = getattr(self, f"op_{name.lower()}", None)
                if method is None:
                    self._refuse(f"the opcode {name}")
                method(*([] if argument is None else [argument]))
        raise EOFError("no end")

    def _refuse(self, what: str) -> NoReturn:
        raise UntrustedPickle(f"checkpoint: expected tensors and plain containers, got {what} in {self.budget.file}")

    def _pop_mark(self) -> list[Any]:
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def _pop(self) -> Any:
        if self.marks and self.marks[-1] >= len(self.stack):
            raise ValueError("a value below a mark is taken")
        return self.stack.pop()

    def op_mark(self) -> None:
        self.marks.append(len(self.stack))

    def op_pop(self) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def op_pop_mark(self) -> None:
        self._pop_mark()

    def op_dup(self) -> None:
        self.stack.append(self.stack[-1])

    def op_tuple(self) -> None:
        self.stack.append(tuple(self._pop_mark()))

    def op_tuple1(self) -> None:
        self.stack[-1:] = [(self.stack[-1],)]

    def op_tuple2(self) -> None:
        second, first = self._pop(), self._pop()
        self.stack.append((first, second))

    def op_tuple3(self) -> None:
        third, second, first = self._pop(), self._pop(), self._pop()
        self.stack.append((first, second, third))

    def op_list(self) -> None:
        self.stack.append(self._pop_mark())

    def op_append(self) -> None:
        value = self._pop()
        _expect(self.stack[-1], list).append(value)

    def op_appends(self) -> None:
        values = self._pop_mark()
        _expect(self.stack[-1], list).extend(values)

    def op_dict(self) -> None:
        self.stack.append(mapping(_pairs(self._pop_mark())))

    def op_setitem(self) -> None:
        value, key = self._pop(), self._pop()
        _expect(self.stack[-1], dict)[plain_key(key)] = value

    def op_setitems(self) -> None:
        values = self._pop_mark()
        _expect(self.stack[-1], dict).update(mapping(_pairs(values)))

    def op_additems(self) -> None:
        values = self._pop_mark()
        _expect(self.stack[-1], set).update(map(plain_key, values))

    def op_frozenset(self) -> None:
        self.stack.append(frozenset(map(plain_key, self._pop_mark())))

    def op_global(self, text: str) -> None:
        module, name = text.split(" ", 1)
        self._push_global(module, name)

    def op_stack_global(self) -> None:
        name, module = _expect(self._pop(), str), _expect(self._pop(), str)
        self._push_global(module, name)

    def op_inst(self, text: str) -> None:
        module, name = text.split(" ", 1)
        arguments = tuple(self._pop_mark())
        self._push_global(module, name)
        self._call(self._pop(), arguments)

    def op_obj(self) -> None:
        function, *arguments = self._pop_mark()
        self._call(function, tuple(arguments))

    def op_reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        self._call(function, _expect(arguments, tuple))

    op_newobj = op_reduce

    def op_newobj_ex(self) -> None:
        keywords = self._pop()
        if keywords:
            self._refuse("an object made with keywords")
        self.op_reduce()

    def op_build(self) -> None:
        state = self._pop()
        target = self.stack[-1]
        if isinstance(target, Record):
            if isinstance(state, tuple):  # (attributes, slots)
                state = state[0] if len(state) == 2 and not state[1] else None
            self.budget.spend(len(_expect(state, dict)))
            target.state.update(state)
        elif isinstance(target, Settable):
            target.set_state(state)
        else:
            _expect(target, dict)  # attributes of an OrderedDict, such as state_dict's _metadata: nothing that is needed

    def op_binpersid(self) -> None:
        identity = self._pop()
        if self.persistent is None:
            self._refuse("a persistent id")
        else:
            self.stack.append(self.persistent(identity))

    def _push_global(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        found = self.resolve(full)
        if found is None:
            self._refuse(f"the global {full[:200]}")
        self.stack.append(found)

    def _call(self, function: Any, arguments: tuple[Any, ...]) -> None:
        if not isinstance(function, Global):
            self._refuse(f"a call of a value ({type(function).__name__})")
        if function.build is None:
            self._refuse(f"a call of {function.name}")
        self.stack.append(function.build(*arguments))


_VALUES = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
})  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict, "EMPTY_SET": set,
}  # fmt: skip
_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
_IGNORED = frozenset({"PROTO", "FRAME"})


def _value(argument: Any) -> Any:
    if isinstance(argument, int) and argument.bit_length() > 8 * MAX_INTEGER_BYTES:
        raise ValueError(f"an integer of {argument.bit_length()} bits")
    return argument


def _expect(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value


def plain_key(key: Any) -> Any:
    """A key whose hash costs nothing: text or a number, no nested tuple."""
    if type(key) not in (str, bytes, int, float, bool, type(None)) or (type(key) is int and not -_INTEGER <= key < _INTEGER):
        raise TypeError(f"expected text or numbers as keys, got {type(key).__name__}")
    return key


def mapping(pairs: Iterable[Any]) -> dict[Any, Any]:
    """A dict of pairs with plain keys."""
    return {plain_key(key): value for key, value in pairs}


def _pairs(values: list[Any]) -> Iterable[tuple[Any, Any]]:
    if len(values) % 2:
        raise ValueError("a key without a value")
    return zip(values[::2], values[1::2], strict=True)
