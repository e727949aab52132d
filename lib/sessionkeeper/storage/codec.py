"""Values to JSON bytes and back, losing nothing in silence.

Two decoders: what carries our own checksum is read with orjson; whatever else lies in a file is
read with `decode_strict`, which refuses all that the two would understand differently.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NoReturn
from uuid import UUID

import orjson

from sessionkeeper.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Callable

# orjson writes 254 levels; a document adds two around a message.
MAX_DEPTH = 250
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1

# What JSON gives back as it was, by its exact type: a subclass may compare as it likes.
_UNCHANGED: Final = frozenset([str, int, bool, type(None)])
_FEW: Final = 16

# Above this a copy costs more than the memory is worth.
_COPIED: Final = 64 * 1024

# Without these orjson would write datetimes and dataclasses as something else in silence.
_STRICT = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS


def encode(value: Any, *, where: str = "value") -> bytes:
    """Encode one value as compact UTF-8 JSON on one line.

    A value is accepted if JSON gives it back equal. That is tried, not guessed: the bytes are
    decoded again and compared, which costs less than walking the value in Python.

    Args:
        value: A JSON value.
        where: What the value is, for the error.

    Raises:
        InvalidValue: It would not come back equal; the text names the path to the culprit.
    """
    try:
        encoded = orjson.dumps(value, option=_STRICT)
    except (orjson.JSONEncodeError, RecursionError, ValueError) as error:
        raise InvalidValue(_culprit(value, where) or f"{where}: {error}") from error
    if not _is_plain(value) and not _same(orjson.loads(encoded), value):
        raise InvalidValue(_culprit(value, where) or f"{where} would not come back equal")
    return _fitted(encoded)


def encode_own(value: Any) -> bytes:
    """Encode what the store itself has made or checked, on one line, to be made part of more.

    It may hold more memory than it needs (see `_fitted`), so it is not for keeping.
    """
    return orjson.dumps(value)


def _fitted(encoded: bytes) -> bytes:
    """The same bytes in as much memory as they need.

    orjson keeps the whole buffer it wrote into: `{}` would hold 4 KiB as long as it is in a
    record or in the cache, whose bound counts the bytes.
    """
    return memoryview(encoded).tobytes() if len(encoded) <= _COPIED else encoded


def _is_plain(value: Any) -> bool:
    """Whether it is small and holds nothing that JSON could change, so that trying it is no use.

    Encoding has refused numbers of more than 64 bits, lone surrogates and keys that are no str.
    """
    if type(value) is dict and _UNCHANGED.issuperset(map(type, value.values())):
        return True  # most messages are: no loop of ours
    stack = [value]
    while stack:
        item = stack.pop()
        kind = type(item)
        if kind in _UNCHANGED:
            continue
        if kind is dict:
            stack += item.values()
        elif kind is list:
            stack += item
        elif kind is not float or not math.isfinite(item):
            return False
        if len(stack) > _FEW:
            return False  # trying it is faster than walking it
    return True


def _same(decoded: Any, value: Any) -> bool:
    try:
        return bool(decoded == value)
    except RecursionError:
        return False


def _culprit(value: Any, where: str) -> str | None:
    """The first thing JSON cannot carry, with its path; None if the walk finds nothing.

    Iterative, so that neither depth nor a cycle can hurt.
    """
    stack: list[tuple[Any, str, int]] = [(value, where, 0)]
    open_containers: set[int] = set()
    while stack:
        item, path, depth = stack.pop()
        problem = _problem_of(item)
        if problem:
            return f"{path}: {problem}"
        if isinstance(item, dict | list):
            if depth >= MAX_DEPTH or id(item) in open_containers:
                return f"{path[:200]}: nested deeper than {MAX_DEPTH} levels, or in itself"
            pairs = item.items() if isinstance(item, dict) else enumerate(item)
            for key, child in reversed(list(pairs)):
                if isinstance(item, dict) and not isinstance(key, str):
                    return f"{path}: the key {key!r} is not a str"
                if isinstance(key, str) and _lone_surrogate(key):
                    return f"{path}: a key holds a lone surrogate"
                stack.append((child, f"{path}[{key!r}]", depth + 1))
    return None


def _problem_of(item: Any) -> str | None:
    match item:
        case None | bool() | dict() | list():
            return None
        case str():
            return "the text holds a lone surrogate" if _lone_surrogate(item) else None
        case int():
            return None if _INT_MIN <= item <= _INT_MAX else "an integer of more than 64 bits"
        case float():
            return None if math.isfinite(item) else f"{item} has no JSON form"
        case tuple():
            return "a tuple would come back as a list"
        case _:
            return f"{type(item).__name__} has no JSON form"


# --- values that JSON does not know -------------------------------------------------------

_TYPE: Final = "$type"
_VALUE: Final = "$value"
_DICT: Final = "dict"


def _bytes_of(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


# How each type is written as a text, and read again.
_TAGS: Final[dict[type, tuple[str, Callable[[Any], str], Callable[[str], Any]]]] = {
    datetime: ("datetime", datetime.isoformat, datetime.fromisoformat),
    UUID: ("uuid", str, UUID),
    Decimal: ("decimal", str, Decimal),
    bytes: ("bytes", lambda value: base64.b64encode(value).decode("ascii"), _bytes_of),
}
_READERS: Final = {name: read for name, _, read in _TAGS.values()}

TAGGED: Final = frozenset(_TAGS)
"""The types that `tag` keeps; no subclasses, for nothing would tell them from these."""


def tag(value: Any, depth: int = 0) -> Any:
    """Put values of the types in `TAGGED` into mappings that say what they are.

    A mapping that could be taken for one of those is put into one itself. Whatever else is no
    JSON stays as it is, for `encode` to refuse.

    Raises:
        InvalidValue: A value that would not come back equal.
    """
    kind = type(value)
    if kind in _UNCHANGED or kind is float:
        return value
    if depth > MAX_DEPTH:
        raise InvalidValue(f"nested deeper than {MAX_DEPTH} levels, or in itself")
    if isinstance(value, dict):
        tagged = {key: tag(item, depth + 1) for key, item in value.items()}
        return {_TYPE: _DICT, _VALUE: tagged} if _TYPE in tagged else tagged
    if isinstance(value, list):
        return [tag(item, depth + 1) for item in value]
    return _tagged(value) if kind in _TAGS else value


def _tagged(value: Any) -> dict[str, str]:
    if isinstance(value, datetime) and value.tzinfo is None:
        raise InvalidValue(f"{value!r} has no time zone")
    if isinstance(value, Decimal) and value.is_nan():
        raise InvalidValue(f"{value!r} is equal to nothing")
    name, write, read = _TAGS[type(value)]
    text = write(value)
    if read(text) != value:
        raise InvalidValue(f"{value!r} would not come back equal")
    return {_TYPE: name, _VALUE: text}


def untag(value: Any) -> Any:
    """What `tag` was given. A mapping that it did not make stays as it is."""
    if isinstance(value, list):
        return [untag(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {_TYPE, _VALUE}:
        name, content = value[_TYPE], value[_VALUE]
        if name == _DICT and isinstance(content, dict):
            return {key: untag(item) for key, item in content.items()}
        if isinstance(name, str) and isinstance(content, str) and name in _READERS:
            # Edited by hand it may be anything, and is then what it looks like.
            with contextlib.suppress(ValueError, ArithmeticError):
                return _READERS[name](content)
    return {key: untag(item) for key, item in value.items()}


def _lone_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def decode(encoded: bytes) -> Any:
    """Decode bytes that this library wrote and whose checksum was verified."""
    return orjson.loads(encoded)


class StrictError(ValueError):
    """Bytes that `decode_strict` refuses.

    Attributes:
        offset: The byte at which they go wrong, if known.
    """

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message)
        self.offset = offset


def decode_strict(encoded: bytes) -> Any:
    """Decode bytes from outside: strict UTF-8, no BOM, no doubtful JSON.

    Raises:
        StrictError: Empty, not UTF-8, not JSON, a key twice, NaN or infinity, a number that is
            not exact, lone surrogates, or nesting beyond `MAX_DEPTH`.
    """
    if not encoded.strip(b" \t\r\n\x00"):
        raise StrictError("the file is empty" if not encoded else "the file holds no data", 0)
    try:
        text = encoded.decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        raise StrictError(f"not UTF-8: {error.reason}", error.start) from error
    if text.startswith("\ufeff"):
        raise StrictError("the file starts with a byte order mark", 0)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_pairs,
            parse_constant=_no_constant,
            parse_float=_finite_float,
            parse_int=_exact_int,
        )
    except json.JSONDecodeError as error:
        offset = len(text[: error.pos].encode("utf-8", "surrogatepass"))
        raise StrictError(f"not JSON: {error.msg}", offset) from error
    except RecursionError as error:
        raise StrictError(f"nested deeper than {MAX_DEPTH} levels") from error
    culprit = _culprit(value, "document")
    if culprit:
        raise StrictError(culprit)
    return value


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        seen: set[str] = set()
        double = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise StrictError(f"the key {double!r} stands twice in one object")
    return mapping


def _no_constant(text: str) -> NoReturn:
    raise StrictError(f"{text} is not JSON")


def _finite_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise StrictError(f"the number {text[:40]} is out of range")
    return number


def _exact_int(text: str) -> int:
    if len(text) > len(str(_INT_MIN)) or not _INT_MIN <= int(text) <= _INT_MAX:
        raise StrictError(f"the integer {text[:40]} has more than 64 bits")
    return int(text)
