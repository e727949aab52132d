"""What becomes of the application's values on their way into the store, and back."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Literal

from sessionkeeper.errors import InvalidConfig, InvalidValue
from sessionkeeper.storage.codec import MAX_DEPTH, TAGGED, tag, untag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CodecName = Literal["json", "tagged"]


@dataclass(frozen=True, slots=True)
class Values:
    """How values are written and read; the default takes them as they are.

    Attributes:
        on_write: What each message goes through before it is encoded, one after the other.
        to_json: What becomes of values that are not JSON; None: they are refused.
        tagged: Whether datetimes, UUIDs, Decimals and bytes are kept as what they are.
    """

    on_write: tuple[Callable[[Any], Any], ...] = ()
    to_json: Callable[[Any], Any] | None = None
    tagged: bool = False

    @classmethod
    def of(
        cls,
        on_write: Iterable[Callable[[Any], Any]],
        to_json: Callable[[Any], Any] | Literal["auto"] | None,
        codec: CodecName,
    ) -> Values:
        """Check what a caller asks for.

        Raises:
            InvalidConfig: Something that cannot be called, or an unknown codec.
        """
        steps = (on_write,) if callable(on_write) else tuple(on_write)
        for step in steps:
            if not callable(step):
                raise InvalidConfig(f"on_write holds {step!r}, which cannot be called")
        convert = plain_fields if to_json == "auto" else to_json
        if convert is not None and not callable(convert):
            raise InvalidConfig(f"to_json must be 'auto' or a function, not {to_json!r}")
        if codec not in ("json", "tagged"):
            raise InvalidConfig(f"codec must be 'json' or 'tagged', not {codec!r}")
        return cls(steps, convert, codec == "tagged")

    @property
    def revive(self) -> Callable[[Any], Any] | None:
        """What makes decoded values what they were; None if they are that already."""
        return untag if self.tagged else None

    def message(self, message: Any) -> Any:
        """A message as it is to be encoded."""
        if not self.on_write:
            return self.value(message)
        # A copy, so that what a step does to it does not reach the caller's own object.
        changed = self._plain(message, 0)
        for step in self.on_write:
            changed = step(changed)
        return self.value(changed)

    def value(self, value: Any) -> Any:
        """Any other value as it is to be encoded."""
        if self.to_json is not None:
            value = self._plain(value, 0)
        return tag(value) if self.tagged else value

    def _plain(self, value: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise InvalidValue(f"nested deeper than {MAX_DEPTH} levels, or in itself")
        if isinstance(value, dict):
            return {key: self._plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [self._plain(item, depth + 1) for item in value]
        if value is None or isinstance(value, str | int | float) or self.to_json is None:
            return value
        if self.tagged and type(value) in TAGGED:
            return value
        converted = self.to_json(value)
        return value if converted is value else self._plain(converted, depth + 1)


def plain_fields(value: Any) -> Any:
    """What `to_json="auto"` makes of a value: a mapping of a dataclass, or of a pydantic model.

    Whatever else it is comes back as it is, and is refused if it is not JSON.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        return dump(mode="json")
    return value
