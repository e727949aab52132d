"""Times as other programs write them: ISO 8601, or milliseconds since 1970."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sessionkeeper.transfer.template import FieldError, lookup

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def times_of(item: Any, paths: Mapping[str, str]) -> dict[str, str | None]:
    """Times of an item as ISO 8601 in UTC, with microseconds and `Z`; null stays null.

    Args:
        item: The item.
        paths: The dotted paths of its times, by the key that the time gets.

    Raises:
        FieldError: A field is missing, or no time, or one without a time zone.
    """
    return {key: _iso(lookup(item, path), path) for key, path in paths.items()}


def _iso(value: Any, path: str) -> str | None:
    if value is None:
        return None
    try:
        moment = _moment(value, path)
    except (ValueError, OverflowError) as error:
        if isinstance(error, FieldError):
            raise
        raise FieldError(f"the field `{path}` is no time: {str(value)[:80]!r}") from error
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _moment(value: Any, path: str) -> datetime:
    match value:
        case bool():
            raise FieldError(f"the field `{path}` is bool, which is no time")
        case int() | float():
            return _UNIX_EPOCH + timedelta(milliseconds=value)
        case str():
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is None:
                raise FieldError(f"the field `{path}` has no time zone: {value[:80]!r}")
            return moment.astimezone(UTC)
    raise FieldError(f"the field `{path}` is {type(value).__name__}, which is no time")
