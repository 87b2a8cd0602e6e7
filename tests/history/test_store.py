"""The history's file: what it finds, what it forgets, how large it gets, and that what is deleted is gone from it."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from s2m3.history.cipher import Cipher, read_key
from s2m3.history.store import HistoryStore
from s2m3.schemas.errors import BadInputError, S2M3Error
from s2m3.schemas.history import HistoryWanted
from tests.history.kept import START_MS, entry

DAY_S = 86_400.0
MB = 1_000_000


@pytest.fixture
def store() -> Iterator[HistoryStore]:
    with HistoryStore(None, 8 * MB, DAY_S) as opened:
        yield opened


def _ids(store: HistoryStore, **wanted: object) -> list[int]:
    return [(one.id - START_MS) // 1000 for one in store.query(HistoryWanted.model_validate(wanted))[0]]


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_answers_come_newest_first_and_page_by_page(store: HistoryStore) -> None:
    for number in range(5):
        store.add(entry(number))
    found, more = store.query(HistoryWanted(limit=2))
    assert [one.id for one in found] == [entry(4).id, entry(3).id]
    assert more
    assert _ids(store, limit=10, before=found[-1].id) == [2, 1, 0]


def test_a_query_is_by_task_source_words_and_time(store: HistoryStore) -> None:
    store.add(entry(0, state="Ein Päckchen"))
    store.add(entry(1, task="hall", topic="cam/hall"))
    store.add(entry(2, state="100%"))
    assert _ids(store, tasks=["hall"]) == [1]
    assert _ids(store, source="CAM/P") == [2, 0]
    assert _ids(store, words="PÄCK") == [0], "whatever the case, also of letters beyond ASCII"
    assert _ids(store, words="%") == [2], "a sign of SQL is a letter like any other"
    assert _ids(store, words="a dog") == [2, 1, 0], "what was asked counts, too"
    assert _ids(store, since_ms=START_MS + 500, until_ms=START_MS + 1_500) == [1]


def test_an_answer_older_than_the_limit_goes_with_its_picture() -> None:
    with HistoryStore(None, 8 * MB, 10.0) as store:
        store.add(entry(0), b"picture")
        store.add(entry(11))
        assert _ids(store) == [11]
        assert store.picture(entry(0).id) is None


def test_a_file_stays_under_its_limit_and_the_newest_answers_stay(tmp_path: Path) -> None:
    """The same with 100 MB: `pytest tests/history --long`."""
    _fill(tmp_path, limit_mb=10, pictures=400)


@pytest.mark.long
def test_a_file_of_100_mb_stays_under_100_mb(tmp_path: Path) -> None:
    _fill(tmp_path, limit_mb=100, pictures=3_000)


def _fill(folder: Path, limit_mb: int, pictures: int) -> None:
    picture, largest = os.urandom(50_000), 0
    with HistoryStore(folder / "history.db", limit_mb * MB, DAY_S) as store:
        for number in range(pictures):
            store.add(entry(number), picture)
            largest = max(largest, _bytes_of(folder))
        assert largest <= limit_mb * MB
        assert largest > 0.6 * limit_mb * MB, "the limit is used"
        assert store.picture(entry(pictures - 1).id) == ("porch", picture)
        assert store.picture(entry(0).id) is None
        assert _ids(store, limit=3) == [pictures - 1, pictures - 2, pictures - 3]


def test_a_lower_limit_makes_the_file_smaller(tmp_path: Path) -> None:
    with HistoryStore(tmp_path / "history.db", 40 * MB, DAY_S) as store:
        for number in range(400):
            store.add(entry(number), os.urandom(50_000))
    assert _bytes_of(tmp_path) > 15 * MB
    with HistoryStore(tmp_path / "history.db", 10 * MB, DAY_S) as store:
        assert _bytes_of(tmp_path) <= 10 * MB
        assert _ids(store, limit=1) == [399]


@pytest.mark.parametrize("is_open", [True, False])
def test_what_is_deleted_is_gone_from_the_file(tmp_path: Path, *, is_open: bool) -> None:
    secret, picture = "nobody must read this", b"JPEG of nobody's business" * 400
    file = tmp_path / "history.db"
    with HistoryStore(file, 10 * MB, DAY_S) as store:
        for number in range(40):
            store.add(entry(number, state=secret), picture)
        store.embed(entry(1).id, "clip", b"vector of nobody's business" * 30)
        assert any(secret.encode() in path.read_bytes() for path in tmp_path.iterdir()), "else the test sees nothing"
        if is_open:
            store.clear()
            left = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    if not is_open:
        with HistoryStore(file, 10 * MB, DAY_S) as store:
            store.clear()
        left = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"nobody" not in left
    assert b"cam/porch" not in left
    assert len(left) < 100_000


def test_what_the_limits_delete_is_overwritten(tmp_path: Path) -> None:
    with HistoryStore(tmp_path / "history.db", 10 * MB, 10.0) as store:
        store.add(entry(0, state="nobody must read this"), b"nobody's picture" * 1_000)
        store.add(entry(60))
    assert b"nobody" not in (tmp_path / "history.db").read_bytes()


def test_the_file_outlives_the_process_and_is_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "history.db"
    with HistoryStore(file, 10 * MB, DAY_S) as store:
        store.add(entry(3), b"picture")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with HistoryStore(file, 10 * MB, DAY_S) as store:
        assert _ids(store) == [3]
        assert store.last_id() == entry(3).id
        assert store.picture(entry(3).id) == ("porch", b"picture")


@pytest.mark.parametrize("content", [b"not a database, but long enough to be read as one" * 50, b""])
def test_a_file_that_is_no_history_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "history.db"
    file.write_bytes(content)
    if not content:
        HistoryStore(file, 10 * MB, DAY_S).close()  # an empty file becomes one
        return
    with pytest.raises(S2M3Error, match=r"history\.db cannot be opened"):
        HistoryStore(file, 10 * MB, DAY_S)
    assert file.read_bytes() == content


def test_an_encrypted_history_finds_the_same_and_its_file_says_nothing(tmp_path: Path) -> None:
    file, cipher = tmp_path / "history.db", Cipher(os.urandom(32))
    with HistoryStore(file, 10 * MB, DAY_S, cipher) as store:
        for number in range(20):
            store.add(entry(number, state=f"nobody's parcel {number}"), b"nobody's picture" * 100)
        store.embed(entry(1).id, "clip", b"nobody's vector")
        left = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert _ids(store, words="PARCEL 7") == [7]
        assert _ids(store, source="cam/p", limit=2) == [19, 18]
    with HistoryStore(file, 10 * MB, DAY_S, cipher) as store:
        left += b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert store.picture(entry(3).id) == ("porch", b"nobody's picture" * 100)
        assert store.vector(entry(1).id, "clip") == b"nobody's vector"
        assert list(store.vectors(HistoryWanted(words="parcel 1"), "clip")) == [[(entry(1).id, b"nobody's vector")]]
    assert b"nobody" not in left
    assert b"cam/porch" not in left
    assert b"a cat, a dog" not in left


def test_a_history_is_opened_with_its_own_key_alone_and_deleted_without_any(tmp_path: Path) -> None:
    file, cipher = tmp_path / "history.db", Cipher(os.urandom(32))
    with HistoryStore(file, 10 * MB, DAY_S, cipher) as store:
        store.add(entry(1))
    for wrong, why in ((None, "encrypted: give its key"), (Cipher(os.urandom(32)), "with another key")):
        with pytest.raises(S2M3Error, match=why):
            HistoryStore(file, 10 * MB, DAY_S, wrong)
    with HistoryStore(file, 10 * MB, DAY_S, clears=True) as store:
        store.clear()
    with HistoryStore(file, 10 * MB, DAY_S) as store:
        store.add(entry(2))
    with pytest.raises(S2M3Error, match="not encrypted, and a key is given"):
        HistoryStore(file, 10 * MB, DAY_S, cipher)


def test_a_key_is_made_once_for_its_owner_alone_and_refused_where_others_can_read_it(tmp_path: Path) -> None:
    file = tmp_path / "key"
    key = read_key(file)
    assert (len(key), stat.S_IMODE(file.stat().st_mode)) == (32, 0o600)
    assert read_key(file) == key
    file.chmod(0o640)
    with pytest.raises(BadInputError, match="chmod 600"):
        read_key(file)
    file.chmod(0o600)
    for content in ("too short", "abcd"):
        file.write_text(content)
        with pytest.raises(BadInputError, match=r"cannot be read|is not 32 bytes"):
            read_key(file)


def test_pictures_without_an_embedding_are_found_the_newest_first(store: HistoryStore) -> None:
    for number in range(5):
        store.add(entry(number, task="hall" if number == 2 else "porch"), None if number == 3 else b"picture")
    store.embed(entry(4).id, "clip", b"vector")
    assert store.lacking(HistoryWanted(), "clip", 10) == [entry(n).id for n in (2, 1, 0)]
    assert store.lacking(HistoryWanted(), "other", 2) == [entry(n).id for n in (4, 2)]
    assert store.lacking(HistoryWanted(tasks=["hall"], like=entry(0).id), "clip", 10) == [entry(0).id, entry(2).id]
