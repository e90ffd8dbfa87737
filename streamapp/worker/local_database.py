"""A RocksDB database that is only a copy, and so may fail without anything being lost.

What it holds comes back from its changelog, and PostgreSQL knows it meanwhile. So no call here
raises because of the disk: a database that is damaged is deleted and begun anew; one that cannot
be used just now (a full disk, a missing permission) knows nothing and forgets what it is told,
until it can be opened again.

Faust restores a table from the offset that it keeps in it. As long as changes are missing, that
offset stands still, so that the next assignment of the partition restores all of them.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from faust.stores.rocksdb import Store

log = logging.getLogger("streamapp.table")

OFFSET_KEY: bytes = Store.offset_key
FROM_THE_START = b"-1"  # the offset that makes Faust restore the whole changelog

RETRY_AFTER = 10.0  # seconds until a database that cannot be used is opened again

_UNUSABLE = tuple(
    os.strerror(code)
    for code in (
        errno.ENOSPC,
        errno.EFBIG,
        errno.EDQUOT,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
    )
)

Trouble = Literal["damaged", "unusable"]
Clock = Callable[[], float]


def locked(error: BaseException) -> bool:
    """Whether RocksDB says that somebody else has the database open."""
    return "/LOCK: " in str(error)


def trouble_of(error: BaseException) -> Trouble:
    """What a failure says about the database. RocksDB's errors differ by their text alone."""
    text = str(error)
    return "unusable" if locked(error) or any(each in text for each in _UNUSABLE) else "damaged"


class LocalDatabase:
    """The database in the directory ``path``, opened by ``open_path``.

    Raises only where it is opened for the first time and somebody else has it open. ``report``
    is told of each trouble once, not of each call that meets it. ``clock`` is monotonic.
    """

    def __init__(
        self,
        path: Path,
        open_path: Callable[[Path], Any],
        report: Callable[[Trouble], None],
        clock: Clock = time.monotonic,
    ) -> None:
        self._path = path
        self._open_path = open_path
        self._report = report
        self._clock = clock
        self._database: Any = None
        self._retry_at = clock()
        self._incomplete = False
        self._told = False
        try:
            self._database = self._open()
        except Exception as error:
            if locked(error):
                raise  # Faust waits for it
            self._failed(error)

    # What it holds. Without a database: nothing, and nothing more.

    def get(self, key: bytes) -> bytes | None:
        """The value of ``key``; None where it is not known, for whatever reason."""
        value: bytes | None = self._call("get", key)
        if key != OFFSET_KEY:
            return value
        # Asked when a restore is about to begin at this offset: it fills all gaps.
        self._incomplete = self._database is None
        # Without an offset Faust would go on from one that it remembers.
        return FROM_THE_START if value is None else value

    def put(self, key: bytes, value: bytes) -> None:
        if key != OFFSET_KEY or not self._incomplete:
            self._call("put", key, value)

    def delete(self, key: bytes) -> None:
        self._call("delete", key)

    def write(self, batch: Any) -> None:
        self._call("write", batch)

    def delete_range(self, begin: bytes, end: bytes) -> None:
        """Delete the keys from ``begin`` up to, and without, ``end``."""
        self._call("delete_range", begin, end)

    def __getattr__(self, name: str) -> Any:
        """What only views of the table use: as the database has it, errors included."""
        if self._database is None:
            raise OSError(f"the database in {self._path} cannot be used")
        return getattr(self._database, name)

    # Failing and coming back

    def _call(self, name: str, *arguments: Any) -> Any:
        if self._database is None and not self._opened_again():
            self._incomplete = True
            return None
        try:
            return getattr(self._database, name)(*arguments)
        except Exception as error:
            self._failed(error)
            return None

    def _opened_again(self) -> bool:
        if self._clock() < self._retry_at:
            return False
        try:
            self._database = self._open()
        except Exception as error:
            self._failed(error)
        return self._database is not None

    def _open(self) -> Any:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        database = self._open_path(self._path)
        if self._told:
            log.warning("%s can be used again", self._path)
            self._told = False
        return database

    def _failed(self, error: Exception) -> None:
        """Give the database up as it is; a damaged one is replaced by an empty one."""
        self._incomplete = True
        self._close()
        if trouble_of(error) == "damaged":
            log.error(
                "%s is damaged and deleted (%s): the changelog has what it held, and PostgreSQL "
                "finds duplicates meanwhile",
                self._path,
                error,
            )
            self._report("damaged")
            try:
                _remove(self._path)
                self._database = self._open()
                return
            except Exception as cause:
                error = cause
        self._retry_at = self._clock() + RETRY_AFTER
        if not self._told:
            self._told = True
            log.error(
                "%s cannot be used (%s): PostgreSQL alone finds duplicates until it can",
                self._path,
                error,
            )
            self._report("unusable")

    def _close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            try:
                database.close()
            except Exception as error:
                # It writes what it has in memory, to the disk that just failed.
                log.info("closing %s: %s", self._path, error)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
