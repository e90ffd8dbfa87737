"""Ids of writes: random, and given once."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from uuid import UUID

from streamapp.saga.write_ids import new_write_id


def test_none_is_given_twice() -> None:
    ids = {new_write_id() for _ in range(10_000)}
    assert len(ids) == 10_000
    assert all(each.version == 4 for each in ids)


def _send(to: Connection, count: int) -> None:
    to.send([new_write_id() for _ in range(count)])


def test_a_forked_process_gives_others_than_its_parent() -> None:
    new_write_id()  # from here on some are left over
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_send, args=(there, 300))
    child.start()
    theirs: list[UUID] = here.recv()
    child.join()
    ours = {new_write_id() for _ in range(300)}
    assert len(theirs) == 300
    assert not ours & set(theirs)
