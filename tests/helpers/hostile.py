"""Crafted pickles: each does something that no array needs. `cases(marker)` names and builds them.

A call is `os.system("touch marker")`, so an unpickler that executes anything leaves the marker file behind.
"""

import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np

PROTO, STOP = b"\x80\x04", b"."
HUGE = 2**40


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def in_dict(value: bytes, key: bytes | None = None) -> bytes:
    """A dictionary with one good array and one entry under test."""
    return PROTO + b"}" + text("good") + array() + b"s" + (key or text("bad")) + value + b"s" + STOP


def signed(pickled: bytes) -> bytes:
    """The same as a file of our own format with a right digest: hashing is no secret."""
    head = text("__secateur__") + text('{"format": "secateur/1", "spec": null, "plan": null, "facts": {}}')
    assert pickled.startswith(PROTO + b"}")
    data = PROTO + b"}" + head + b"s" + pickled[len(PROTO) + 1 :]
    return data + b"\nsha256:" + hashlib.sha256(data).hexdigest().encode()


DTYPE = b"cnumpy\ndtype\n"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
PLAIN_STATE = b"(K\x03" + text("<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
NO = b"\x89"


def dtype(code: str = "f4", state: bytes = PLAIN_STATE) -> bytes:
    return DTYPE + text(code) + b"\x89\x88\x87R" + state


def array(
    shape: bytes = b"K\x01\x85",
    kind: bytes | None = None,
    data: bytes = b"C\x04abcd",
    fortran: bytes = NO,
    start: bytes = ARRAY,
) -> bytes:
    return start + b"(K\x01" + shape + (kind or dtype()) + fortran + data + b"tb"


def integer(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def calls(marker: Path) -> dict[str, bytes]:
    """Values that run a command under `pickle.loads`."""
    command = text(f"touch {marker}")
    line = f"touch {marker}\n".encode()
    evaluate = text(f"__import__('os').system('touch {marker}')")
    return {
        "GLOBAL os.system, REDUCE": b"cos\nsystem\n" + command + b"\x85R",
        "GLOBAL posix.system, REDUCE": b"cposix\nsystem\n" + command + b"\x85R",
        "GLOBAL builtins.eval, REDUCE": b"cbuiltins\neval\n" + evaluate + b"\x85R",
        "GLOBAL with a dotted name": b"cnumpy\nf2py.os.system\n" + command + b"\x85R",
        "STACK_GLOBAL, REDUCE": text("os") + text("system") + b"\x93" + command + b"\x85R",
        "STACK_GLOBAL with a dotted name": text("shutil") + text("os.system") + b"\x93" + command + b"\x85R",
        "INST": b"(" + command + b"ios\nsystem\n",
        "INST with a text argument": b"(S'" + line[:-1] + b"'\nios\nsystem\n",
        "OBJ": b"(cos\nsystem\n" + command + b"o",
        "the name through the memo": text("os")
        + b"\x94"
        + text("system")
        + b"\x940h\x00h\x01\x93"
        + command
        + b"\x85R",
        "inside a list": b"](cos\nsystem\n" + command + b"\x85Re",
        "inside the state of an array": ARRAY + b"(cos\nsystem\n" + command + b"\x85RK\x01\x85tb",
        "as the shape of an array": array(shape=b"cos\nsystem\n" + command + b"\x85R"),
        "popped before the end": b"cos\nsystem\n" + command + b"\x85R0N",
    }


def refused_calls(marker: Path) -> dict[str, bytes]:
    """Values that reach for a call by rarer roads."""
    command = text(f"touch {marker}")
    return {
        "NEWOBJ": b"csubprocess\nPopen\n" + text("touch") + text(str(marker)) + b"\x86\x85\x81",
        "numpy.load's helper": b"cnumpy.testing._private.utils\nrunstring\n" + text("1") + b"}\x86R",
        "NEWOBJ_EX": b"csubprocess\nPopen\n" + text("touch") + text(str(marker)) + b"\x86\x85}\x92",
        "BUILD with a function as setstate": b"cos\nsystem\n}" + text("__setstate__") + b"cos\nsystem\nsbb",
        "BUILD on a stub": b"cnumpy\nndarray\n}" + text("__call__") + b"cos\nsystem\nsb",
        "BUILD of an array with a dictionary": ARRAY + b"}" + text("values") + command + b"sb",
        "EXT1": b"\x82\x01",
        "EXT2": b"\x83\x01\x00",
        "EXT4": b"\x84\x01\x00\x00\x00",
        "PERSID": b"Pos.system\n",
        "BINPERSID": command + b"Q",
        "getattr": b"cbuiltins\ngetattr\ncos\nsystem\n\x85R",
        "REDUCE of a text": text("os.system") + command + b"\x85R",
        "REDUCE of an array": array() + command + b"\x85R",
        "numpy.ndarray called": b"cnumpy\nndarray\n(" + integer(2**31 - 1) + b"\x85tR",
        "numpy.load": b"cnumpy\nload\n" + command + b"\x85R",
        "numpy.memmap": b"cnumpy\nmemmap\n" + text(str(marker)) + b"\x85R",
        "an array of another class": ARRAY.replace(b"ndarray", b"memmap"),
        "_codecs.encode with another codec": b"c_codecs\nencode\n" + command + text("rot13") + b"\x86R",
    }


def bad_arrays() -> dict[str, bytes]:
    """Values that lie about themselves."""
    side, most = integer(2**31 - 1), b"\x8a\x08" + struct.pack("<q", 2**62)
    record = (
        b"(K\x03"
        + text("|")
        + b"N("
        + text("x")
        + b"t}"
        + text("x")
        + dtype()
        + b"K\x00\x86sK\x08K\x01K\x00tb"
    )
    return {
        "shape of 4 GiB": array(shape=b"(" + integer(2**15) * 2 + b"t"),
        "shape of 1 TiB": array(shape=b"(" + integer(2**19) * 2 + b"t"),
        "shape with a product of 2**64": array(shape=b"(" + integer(2**16) * 4 + b"t", data=b"C\x00"),
        "shape of eight huge sides": array(shape=b"(" + side * 8 + b"t"),
        "shape with a zero and seven huge sides": array(shape=b"(K\x00" + side * 7 + b"t", data=b"C\x00"),
        "shape with a long": array(shape=most + b"\x85"),
        "shape of 9 dimensions": array(shape=b"(" + b"K\x01" * 9 + b"t"),
        "shape of 64 dimensions": array(shape=b"(" + b"K\x01" * 64 + b"t"),
        "negative side": array(shape=integer(-1) + b"\x85"),
        "two negative sides": array(shape=integer(-1) * 2 + b"\x86"),
        "side that is a float": array(shape=b"G" + struct.pack(">d", 1.0) + b"\x85"),
        "side that is NaN": array(shape=b"G" + struct.pack(">d", float("nan")) + b"\x85"),
        "side that is True": array(shape=b"\x88\x85"),
        "side that is a tuple": array(shape=b"K\x01\x85\x85"),
        "shape that is a list": array(shape=b"]K\x01a"),
        "too few bytes": array(data=b"C\x03abc"),
        "too many bytes": array(data=b"C\x05abcde"),
        "bytes that are text": array(data=text("abcd")),
        "bytes that are a list of objects": array(data=b"]K\x01a"),
        "object dtype": array(kind=dtype("O8"), data=b"]K\x01a"),
        "object dtype with bytes as pointers": array(
            kind=dtype("O"), shape=b"K\x01\x85", data=b"C\x08AAAAAAAA"
        ),
        "void dtype": array(kind=dtype("V4")),
        "text dtype": array(kind=dtype("U1")),
        "bytes dtype": array(kind=dtype("S4")),
        "time dtype": array(kind=dtype("M8[ns]"), data=b"C\x08abcdefgh"),
        "complex dtype": array(kind=dtype("c8"), data=b"C\x08abcdefgh"),
        "dtype with a repeat": array(kind=dtype("(1000000,)f4")),
        "dtype with fields": array(kind=dtype("V8", record)),
        "dtype of numbers with fields": array(kind=dtype("f4", record)),
        "dtype that is a list": array(kind=DTYPE + b"]" + b"\x89\x88\x87R"),
        "dtype without item size": array(kind=dtype("f0"), data=b"C\x00"),
        "dtype of unknown byte order": array(kind=dtype("f4", PLAIN_STATE.replace(b"<", b"?"))),
        "dtype with metadata": array(kind=dtype("f4", PLAIN_STATE[:-2] + b"}tb")),
        "dtype built twice": array(kind=dtype() + PLAIN_STATE),
        "dtype that is an array": array(kind=array()),
        "dtype as an entry": dtype(),
        "truth value 7": array(kind=dtype("b1"), data=b"C\x01\x07"),
        "array built twice": array() + b"(K\x01K\x01\x85" + dtype() + NO + b"C\x04abcdtb",
        "array never built": ARRAY,
        "array built with four parts": ARRAY + b"(K\x01\x85" + dtype() + NO + b"C\x04abcdtb",
        "array in its own state": ARRAY + b"\x94(K\x01h\x00" + dtype() + NO + b"C\x04abcdtb",
        "constructor with too many arguments": b"cnumpy.core.multiarray\n_reconstruct\n("
        + b"K\x00" * 50
        + b"tR",
        "constructor without arguments": DTYPE + b")R",
        "constructor with a dictionary": DTYPE + b"}R",
        "constructor as an entry": b"cnumpy\nndarray\n",
    }


def sizes() -> dict[str, bytes]:
    """Values that promise, share or nest more than the file has."""
    shared = b"B" + struct.pack("<I", 2**20) + bytes(2**20) + b"\x94"
    megabyte = b"K\x01" + integer(2**20) + b"\x85" + dtype("u1") + NO
    views = b"](" + (ARRAY + b"(" + megabyte + b"h\x00tb") * 100 + b"e"
    nested = b"]\x94" + b"".join(b"](" + bytes([104, i]) * 10 + b"e\x94" for i in range(30))
    latin = b"X" + struct.pack("<I", 2**20) + b"a" * 2**20 + b"\x94"
    encode = (b"c_codecs\nencode\nh\x00" + text("latin1") + b"\x86R") * 200
    return {
        "LONG_BINPUT 2**31": b"Nr\xff\xff\xff\x7f",
        "LONG_BINPUT 2**32 - 1": b"Nr\xff\xff\xff\xff",
        "LONG_BINGET out of range": b"j\xff\xff\xff\x7f",
        "BINGET out of range": b"h\x07",
        "PUT of a text index": b"Np99999999999\n",
        "BINBYTES8 of an exabyte": b"\x8e" + struct.pack("<Q", 2**60) + b"a",
        "BINBYTES8 of 2**64 - 1": b"\x8e" + b"\xff" * 8,
        "BINBYTES of 4 GiB": b"B" + b"\xff" * 4,
        "BINUNICODE8 of a terabyte": b"\x8d" + struct.pack("<Q", HUGE) + b"a",
        "BYTEARRAY8 of a terabyte": b"\x96" + struct.pack("<Q", HUGE) + b"a",
        "FRAME of a terabyte": b"\x95" + struct.pack("<Q", HUGE) + b"N",
        "FRAME of 2**64 - 1": b"\x95" + b"\xff" * 8 + b"N",
        "LONG4 of 2 GiB": b"\x8b\xff\xff\xff\x7f\x01",
        "INT of 5,000 digits": b"I" + b"9" * 5000 + b"\n",
        "one megabyte shared by 100 arrays": in_tuple(shared, views),
        "one text encoded 200 times": in_tuple(latin, b"](" + encode + b"e"),
        "ten to the thirtieth by sharing": in_tuple(nested),
        "150,000 nested tuples": b")" + b"\x85" * 150_000,
        "150,000 nested lists": b"](" * 150_000 + b"e" * 150_000,
        "400,000 marks": b"(" * 400_000,
        "a million empty dictionaries": b"](" + b"}" * 1_000_000 + b"e",
        "POP": b"NN0",
        "DUP": b"N2",
    }


def in_tuple(*values: bytes) -> bytes:
    return b"(" + b"".join(values) + b"t"


def shapes_of_files(marker: Path) -> dict[str, bytes]:
    """Whole files that are no dictionary of arrays, or that go on after their end."""
    good, tuples = in_dict(array()), b")" + b"\x85" * 400_000
    out_of_band: list[pickle.PickleBuffer] = []
    outside = pickle.dumps({"a": np.ones(3)}, 5, buffer_callback=out_of_band.append)
    return {
        "empty": b"",
        "one byte": b"\x80",
        "only a header": PROTO,
        "only STOP": b".",
        "all zero": bytes(100),
        "text": b"BasicBlock0.0/conv1/kernel:0 1 2 3\n",
        "a zip file": b"PK\x03\x04" + bytes(60),
        "two STOPs": good + STOP,
        "something after STOP": good + b"garbage",
        "a second pickle after STOP": good + PROTO + calls(marker)["GLOBAL os.system, REDUCE"] + STOP,
        "half a trailer": good + b"\nsha256:" + b"0" * 32,
        "a trailer with a wrong digest": good + b"\nsha256:" + b"0" * 64,
        "a right trailer without a description": good
        + b"\nsha256:"
        + hashlib.sha256(good).hexdigest().encode(),
        "two PROTOs": PROTO + good,
        "protocol 9": b"\x80\x09" + good[2:],
        "protocol 0": pickle.dumps({"a": 1.0}, 0),
        "a number": PROTO + b"K\x01.",
        "a list": PROTO + b"](" + array() + b"e.",
        "an array": PROTO + array() + b".",
        "nothing on the stack": PROTO + STOP,
        "two things on the stack": PROTO + b"}}" + STOP,
        "an open mark": PROTO + b"}(" + STOP,
        "STOP inside a mark": PROTO + b"(}" + STOP,
        "no entries": PROTO + b"}" + STOP,
        "set": PROTO + b"\x8f.",
        "frozenset": PROTO + b"(\x91.",
        "the dictionary in itself": PROTO + b"}\x94" + text("a") + b"h\x00s.",
        "the list in itself": in_dict(b"]\x94h\x00a"),
        "a number as a key": in_dict(array(), key=b"K\x01"),
        "an array as a key": in_dict(array(), key=array()),
        "bytes as a key": in_dict(array(), key=b"C\x01a"),
        "400,000 nested tuples as a key": in_dict(array(), key=tuples),
        "the same key twice": in_dict(array(), key=text("good")),
        "an odd number of items": PROTO + b"}(" + text("a") + b"u.",
        "SETITEM without items": PROTO + b"}s.",
        "SETITEMS without a mark": PROTO + b"}u.",
        "APPEND to a dictionary": PROTO + b"}Na.",
        "a number as an entry": in_dict(b"K\x01"),
        "text as an entry": in_dict(text("a")),
        "None as an entry": in_dict(b"N"),
        "a dictionary as an entry": in_dict(b"}" + text("a") + array() + b"s"),
        "NEXT_BUFFER": outside,
        "READONLY_BUFFER": in_dict(b"\x97\x98"),
        "text that is not UTF-8": PROTO + b"}X\x01\x00\x00\x00\xff" + array() + b"s.",
        "a description that is not JSON": resigned(b"{"),
        "a description of another format": resigned(b'{"format": "secateur/99", "facts": {}}'),
        "a description that is a list": resigned(b"[]"),
        "a description nested a million deep": resigned(b"[" * 1_000_000),
        "a description with a list as facts": resigned(b'{"format": "secateur/1", "facts": [1]}'),
    }


def resigned(head: bytes) -> bytes:
    data = PROTO + b"}" + text("__secateur__") + text(head.decode()) + b"s" + STOP
    return data + b"\nsha256:" + hashlib.sha256(data).hexdigest().encode()


def cases(marker: Path) -> dict[str, bytes]:
    """All crafted files by name; every value is there as a foreign file and as one with our digest."""
    values = {**calls(marker), **refused_calls(marker), **bad_arrays(), **sizes()}
    foreign = {name: in_dict(value) for name, value in values.items()}
    ours = {f"{name}, signed": signed(data) for name, data in foreign.items()}
    return {**foreign, **ours, **shapes_of_files(marker)}
