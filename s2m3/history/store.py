"""The history's SQLite file, or the same in memory: answers, their pictures and embeddings, within bytes and age."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from s2m3.history.cipher import Cipher
from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.history import HistoryEntry, HistoryWanted

__all__ = ["HistoryStore"]

_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, task TEXT NOT NULL, source TEXT NOT NULL, words TEXT NOT NULL,
    entry TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS answers_of_task ON answers (task, id);
CREATE INDEX IF NOT EXISTS answers_by_age ON answers (at_ms);
CREATE TABLE IF NOT EXISTS pictures (id INTEGER PRIMARY KEY, file BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS embeddings (id INTEGER PRIMARY KEY, space TEXT NOT NULL, vector BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS sealed (sample BLOB NOT NULL);
"""
#: The text that an encrypted history holds encrypted, to check a key with.
_SAMPLE = b"s2m3 history"
_VERSION = 1
#: Most bytes of the log of changes (WAL) beside the file, for which the limit leaves room.
_LOG_BYTES = 1_000_000
_ROOM_BYTES = 3 * _LOG_BYTES
#: When the limit is reached, the oldest of all answers are deleted at once: one part of this many.
_AT_ONCE = 50
_BATCH = 1_000


class HistoryStore:
    """The history, newest answers last. All methods run in one thread: the one that opened it.

    Deleted data is overwritten with zeros (`secure_delete`).

    Args:
        path: The file, made readable for its owner alone; None keeps everything in memory.
        limit_bytes: Most bytes of the file and of its log of changes; the oldest answers go first.
        limit_s: Longest time that an answer is kept, seconds.
        cipher: Encrypts answers, pictures and embeddings; tasks, times and sizes stay readable. None: nothing is.
        clears: Whether the store is opened only to delete everything, which needs no key.

    Raises:
        S2M3Error: The file cannot be opened, is not a history, or is encrypted with another key or not at all.
    """

    def __init__(
        self,
        path: Path | None,
        limit_bytes: int,
        limit_s: float,
        cipher: Cipher | None = None,
        *,
        clears: bool = False,
    ) -> None:
        self._cipher = cipher
        self._limit_bytes = limit_bytes - (_ROOM_BYTES if path else 0)
        self._limit_ms = int(limit_s * 1000)
        try:
            if path is not None:
                path.touch(mode=0o600)
            self._db = sqlite3.connect(path or ":memory:", isolation_level=None)
            self._prepare()
            if not clears:
                self._check_key()
        except (sqlite3.Error, OSError) as error:
            raise S2M3Error(f"the history {path} cannot be opened: {error}") from error

    def _prepare(self) -> None:
        db = self._db
        db.execute("PRAGMA secure_delete = ON")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
        db.execute("PRAGMA wal_autocheckpoint = 100")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _VERSION):
            raise sqlite3.DatabaseError(f"its version is {version}, and this release reads {_VERSION}")
        db.executescript(_TABLES)
        db.execute(f"PRAGMA user_version = {_VERSION}")
        if self._pages("page_count") > self._limit_bytes:  # the limit was lowered
            self._shrink()
            self._compact()

    def _check_key(self) -> None:
        """Checks that the kept data can be read with the key; an empty history takes any key, or none."""
        db, cipher = self._db, self._cipher
        db.create_function("opened", 3, self._opened_text, deterministic=True)
        sample = db.execute("SELECT sample FROM sealed").fetchone()
        if not self.count():
            db.execute("DELETE FROM sealed")
            if cipher is not None:
                db.execute("INSERT INTO sealed VALUES (?)", (cipher.sealed(_SAMPLE, "sample"),))
        elif (sample is None) != (cipher is None):
            how = "not encrypted, and a key is given" if sample is None else "encrypted: give its key"
            raise sqlite3.DatabaseError(f"it is {how}; or delete all of it: s2m3 history clear --file")
        elif cipher is not None:
            try:
                cipher.opened(sample[0], "sample")
            except S2M3Error as error:
                raise sqlite3.DatabaseError(error.detail) from error

    def _sealed(self, value: bytes, column: str, entry: int) -> bytes:
        return value if self._cipher is None else self._cipher.sealed(value, f"{column} {entry}")

    def _opened(self, value: bytes, column: str, entry: int) -> bytes:
        return value if self._cipher is None else self._cipher.opened(value, f"{column} {entry}")

    def _sealed_text(self, value: str, column: str, entry: int) -> str | bytes:
        return value if self._cipher is None else self._sealed(value.encode(), column, entry)

    def _opened_text(self, value: str | bytes, column: str, entry: int) -> str:
        return value if isinstance(value, str) else self._opened(value, column, entry).decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; its log of changes is written into it and removed."""
        self._db.close()

    def last_id(self) -> int:
        """Returns the largest id; 0 if nothing is kept."""
        return int(self._db.execute("SELECT coalesce(max(id), 0) FROM answers").fetchone()[0])

    def count(self) -> int:
        """Returns how many answers are kept."""
        return int(self._db.execute("SELECT count(*) FROM answers").fetchone()[0])

    def used_bytes(self) -> int:
        """Returns the bytes of the kept data."""
        return self._pages("page_count") - self._pages("freelist_count")

    def _pages(self, pragma: str) -> int:
        size: int = self._db.execute("PRAGMA page_size").fetchone()[0]
        return size * int(self._db.execute(f"PRAGMA {pragma}").fetchone()[0])

    def add(self, entry: HistoryEntry, picture: bytes | None = None) -> None:
        """Keeps an answer, and deletes the oldest ones beyond the limits.

        Raises:
            S2M3Error: The answer cannot be written, e.g. because the disk is full.
        """
        texts = {"source": _source(entry), "words": _words(entry), "entry": entry.model_dump_json()}
        row = (entry.id, entry.at_ms, entry.task, *(self._sealed_text(t, c, entry.id) for c, t in texts.items()))
        try:
            if picture is not None:
                file = self._sealed(picture, "file", entry.id)
                self._db.execute("INSERT INTO pictures VALUES (?, ?)", (entry.id, file))
            self._db.execute("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?)", row)
            self.expire(entry.at_ms)
            self._shrink()
        except sqlite3.Error as error:
            raise S2M3Error(f"the history cannot be written: {error}") from error

    def embed(self, entry: int, space: str, vector: bytes) -> None:
        """Keeps the embedding of an answer's picture.

        Args:
            entry: The answer's id; nothing is kept if the answer is gone.
            space: Name of the encoder: only embeddings of one space can be compared.
            vector: The unit vector, little-endian float16.
        """
        self._db.execute(
            "INSERT OR REPLACE INTO embeddings SELECT id, ?, ? FROM answers WHERE id = ?",
            (space, self._sealed(vector, "vector", entry), entry),
        )

    def expire(self, now_ms: int) -> None:
        """Deletes answers that are older than the longest time."""
        self._delete("at_ms < ?", now_ms - self._limit_ms)

    def _shrink(self) -> None:
        while self.used_bytes() > self._limit_bytes and (count := self.count()):
            oldest = self._db.execute(
                "SELECT id FROM answers ORDER BY id LIMIT 1 OFFSET ?", (min(count - 1, count // _AT_ONCE),)
            ).fetchone()[0]
            self._delete("id <= ?", oldest)

    def _delete(self, condition: str, value: int) -> None:
        for table in ("pictures", "embeddings"):
            self._db.execute(f"DELETE FROM {table} WHERE id IN (SELECT id FROM answers WHERE {condition})", (value,))  # noqa: S608  # our own words
        self._db.execute(f"DELETE FROM answers WHERE {condition}", (value,))  # noqa: S608  # our own words

    def clear(self) -> None:
        """Deletes everything: afterwards neither the file nor its log of changes holds anything of it."""
        for table in ("pictures", "embeddings", "answers"):
            self._db.execute(f"DELETE FROM {table}")  # noqa: S608  # our own words
        self._compact()

    def _compact(self) -> None:
        """Returns empty pages to the file system, and empties the log of changes."""
        self._db.execute("VACUUM")
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def query(self, wanted: HistoryWanted) -> tuple[list[HistoryEntry], bool]:
        """Returns the newest answers that fit a query, newest first, and whether there are older ones."""
        conditions, values = _conditions(wanted)
        rows = self._db.execute(
            f"SELECT id, entry FROM answers WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT ?",  # noqa: S608
            (*values, wanted.limit + 1),
        ).fetchall()
        found = [self._entry(*row) for row in rows[: wanted.limit]]
        return found, len(rows) > wanted.limit

    def entries(self, ids: list[int]) -> list[HistoryEntry]:
        """Returns answers by their ids, in that order, without those that are gone."""
        found = (self._db.execute("SELECT id, entry FROM answers WHERE id = ?", (one,)).fetchone() for one in ids)
        return [self._entry(*row) for row in found if row is not None]

    def _entry(self, entry: int, text: str | bytes) -> HistoryEntry:
        return HistoryEntry.model_validate_json(self._opened_text(text, "entry", entry))

    def picture(self, entry: int) -> tuple[str, bytes] | None:
        """Returns the task and the picture of an answer; None if there is none."""
        found = self._db.execute(
            "SELECT task, file FROM pictures JOIN answers USING (id) WHERE id = ?", (entry,)
        ).fetchone()
        return None if found is None else (found[0], self._opened(found[1], "file", entry))

    def vector(self, entry: int, space: str) -> bytes | None:
        """Returns the embedding of an answer's picture, as it was given; None if there is none in this space."""
        found = self._db.execute("SELECT vector FROM embeddings WHERE id = ? AND space = ?", (entry, space)).fetchone()
        return None if found is None else self._opened(found[0], "vector", entry)

    def lacking(self, wanted: HistoryWanted, space: str, most: int) -> list[int]:
        """Returns the ids of answers that fit a query and whose picture has no embedding of this space, newest first.

        Of a search by a picture, the answer with that picture comes first.
        """
        conditions, values = _conditions(wanted)
        rows = self._db.execute(
            f"SELECT id FROM answers WHERE ({' AND '.join(conditions)} OR id = ?) "  # noqa: S608  # our own words
            "AND NOT EXISTS (SELECT 1 FROM embeddings WHERE embeddings.id = answers.id AND space = ?) "
            "AND EXISTS (SELECT 1 FROM pictures WHERE pictures.id = answers.id) "
            "ORDER BY id = ? DESC, id DESC LIMIT ?",
            (*values, wanted.like, space, wanted.like, most),
        )
        return [row[0] for row in rows]

    def vectors(self, wanted: HistoryWanted, space: str) -> Iterator[list[tuple[int, bytes]]]:
        """Yields (id, embedding) of the answers that fit a query, some at a time, newest first."""
        conditions, values = _conditions(wanted)
        rows = self._db.execute(
            "SELECT id, vector FROM embeddings JOIN answers USING (id) "  # noqa: S608  # our own words
            f"WHERE space = ? AND {' AND '.join(conditions)} ORDER BY id DESC",
            (space, *values),
        )
        while found := rows.fetchmany(_BATCH):
            yield [(entry, self._opened(vector, "vector", entry)) for entry, vector in found]


def _source(entry: HistoryEntry) -> str:
    return " ".join(filter(None, (entry.answer.source, entry.answer.topic))).casefold()


def _words(entry: HistoryEntry) -> str:
    answer = entry.answer
    error = f"{answer.error.code} {answer.error.detail}" if answer.error else None
    return " ".join(
        filter(None, (answer.state, *answer.detected, answer.question, *entry.asked.values(), error))
    ).casefold()


def _conditions(wanted: HistoryWanted) -> tuple[list[str], list[object]]:
    conditions: list[str] = ["1"]
    values: list[object] = []
    if wanted.tasks:
        conditions.append(f"task IN ({', '.join('?' * len(wanted.tasks))})")
        values += wanted.tasks
    for column, part in (("source", wanted.source), ("words", wanted.words)):
        if part.strip():
            conditions.append(f"instr(opened({column}, '{column}', id), ?) > 0")
            values.append(part.strip().casefold())
    for condition, bound in (
        ("at_ms >= ?", wanted.since_ms),
        ("at_ms <= ?", wanted.until_ms),
        ("id < ?", wanted.before),
    ):
        if bound is not None:
            conditions.append(condition)
            values.append(bound)
    return conditions, values
