from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionkeeper import InvalidSessionId, SessionStore
from sessionkeeper.layout import (
    MAX_STEM_BYTES,
    belongs,
    check_session_id,
    hashed_stem,
    plain_stem,
)

if TYPE_CHECKING:
    from pathlib import Path

REFUSED = [
    "../x",
    "..",
    ".",
    "a/../b",
    "a/b",
    "a\\b",
    "/etc/passwd",
    "\\\\host\\share",
    "a\0b",
    "abc\n",
    "a\x1fb",
    "a\x7fb",
    "a\x85b",
    "",
    " ",
    " a",
    "a ",
    ".hidden",
    "a.",
    "CON",
    "nul",
    "Com1",
    "LPT¹",
    "aux.txt",
    "con .x",
    "\ud800",
    "a\udc80",
    "x" * 5000,
    "\u3000a",
]

ACCEPTED = {
    "s1": "s1",
    "Abc": "Abc",
    "index": "index",
    "config": "config",
    "job_2": "job_2",
    "x.json": "x.json",
    "a.tmp": "a.tmp",
    "a:b": "a%3Ab",
    "C:x": "C%3Ax",
    "a@b.c": "a%40b.c",
    "-rf": "%2Drf",
    "a b": "a%20b",
    "100%": "100%25",
    "%2e%2e%2f": "%252e%252e%252f",
    "~": "%7E",
    "café": "caf%C3%A9",
    "cafe\u0301": "cafe%CC%81",
    "\uff11": "%EF%BC%91",
    "a\u202eb": "a%E2%80%AEb",
    "console": "console",
    "_": "_",
}


@pytest.mark.parametrize("session_id", REFUSED)
def test_an_id_that_is_not_safe_is_refused_everywhere_before_anything_is_touched(
    session_id: str,
    store: SessionStore,
    folder: Path,
    tmp_path: Path,
) -> None:

    def there() -> list[Path]:
        # The index comes when it comes.
        return sorted(path for path in tmp_path.rglob("*") if "index.db" not in path.name)

    before = there()
    for call in (
        lambda: store.save_session(session_id, []),
        lambda: store.create_session(session_id),
        lambda: store.append(session_id, [1]),
        lambda: store.load_session(session_id),
        lambda: store.delete_session(session_id),
        lambda: store.undelete_session(session_id),
        lambda: session_id in store,
        lambda: store.update(session_id, lambda s: s.replace()),
    ):
        with pytest.raises(InvalidSessionId):
            call()
    assert there() == before


@pytest.mark.parametrize("value", [3, None, b"x", True, 1.5, ["a"]])
def test_an_id_that_is_no_str_is_a_type_error(value: Any, store: SessionStore) -> None:
    with pytest.raises(TypeError, match="session_id must be a str"):
        store.save_session(value, [])


@pytest.mark.parametrize(("session_id", "stem"), ACCEPTED.items())
def test_an_id_gets_a_name_that_is_safe_everywhere(
    session_id: str,
    stem: str,
    folder: Path,
) -> None:
    assert plain_stem(session_id) == stem
    with SessionStore.open(folder, watch=False) as store:
        store.save_session(session_id, [session_id])
        assert (folder / f"{stem}.json").is_file()
    with SessionStore.open(folder, watch=False) as store:
        assert store.load_session(session_id).messages == [session_id]
        assert [info.session_id for info in store.list_sessions()] == [session_id]


@pytest.mark.parametrize("session_id", ["字" * 85, "x" * 300, "x" * 4096, "字" * 4000])
def test_long_ids_are_hashed_and_come_back(session_id: str, folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session(session_id, [1])
        store.save_session(session_id + "y" if len(session_id) < 4000 else "other", [2])
    with SessionStore.open(folder, watch=False) as store:
        assert store.load_session(session_id).messages == [1]


@given(st.text(min_size=1, max_size=400), st.text(min_size=1, max_size=400))
def test_names_are_injective_ascii_and_short(one: str, other: str) -> None:
    for text in (one, other):
        try:
            check_session_id(text)
        except InvalidSessionId:
            return
        for stem in (plain_stem(text), hashed_stem(text)):
            assert stem.isascii()
            assert len(stem) <= MAX_STEM_BYTES
            assert not stem.startswith((".", "-"))
            assert not set(stem) & set('/\\:*?"<>| \0')
            assert belongs(stem, text)
    assert (plain_stem(one) == plain_stem(other)) == (one == other)
    assert (hashed_stem(one) == hashed_stem(other)) == (one == other)


def test_case_twins_lie_in_files_that_differ_in_more_than_case(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        for twin in ("Abc", "abc", "ABC"):
            store.save_session(twin, [twin])
        names = [path.name.casefold() for path in folder.glob("*.json")]
        assert len(names) == len(set(names)) == 3
    with SessionStore.open(folder, watch=False) as store:
        for twin in ("Abc", "abc", "ABC"):
            assert store.load_session(twin).messages == [twin]
        store.delete_session("Abc")
        store.append("abc", [2])
        assert store.load_session("abc").messages == ["abc", 2]


def test_a_str_subclass_that_lies_is_copied() -> None:
    class Liar(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "../../etc/passwd"

        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = str.__hash__

    checked = check_session_id(Liar("honest"))
    assert type(checked) is str
    assert checked.encode() == b"honest"
