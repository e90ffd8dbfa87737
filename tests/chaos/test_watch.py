"""Who made progress: told from owners and committed offsets."""

from __future__ import annotations

import time

from streamapp.settings import load
from tests.chaos.watch import Watch

ONE, OTHER = (1, "host:11"), (2, "host:22")


def new_watch() -> Watch:
    return Watch(load({}), time.monotonic)


def test_a_commit_is_its_owners_progress() -> None:
    watch = new_watch()
    watch.look(1.0, {0: ONE, 1: OTHER}, {0: 5, 1: 7})
    watch.look(2.0, {0: ONE, 1: OTHER}, {0: 6, 1: 7})
    assert watch.progressed(11, since=1.0)
    assert not watch.progressed(22, since=0.0)
    assert watch.anybody_progressed(since=1.0)
    assert watch.committed == 13


def test_what_was_committed_before_is_no_progress_after_a_return() -> None:
    watch = new_watch()
    watch.look(1.0, {0: ONE}, {0: 5})
    watch.look(2.0, {0: ONE}, {0: 6})
    assert not watch.progressed(11, since=1.5), "it may have been before the return"
    assert not watch.anybody_progressed(since=1.5)
    watch.look(3.0, {0: ONE}, {0: 7})
    assert watch.progressed(11, since=1.5)


def test_a_partition_that_changed_hands_tells_nothing() -> None:
    watch = new_watch()
    watch.look(1.0, {0: ONE}, {0: 5})
    watch.look(2.0, {0: OTHER}, {0: 6})
    watch.look(3.0, {0: (3, "host:11")}, {0: 7})
    assert not watch.progressed(11, since=0.0)
    assert not watch.progressed(22, since=0.0)


def test_the_first_commit_of_a_partition_counts() -> None:
    watch = new_watch()
    watch.look(1.0, {0: ONE}, {})
    watch.look(2.0, {0: ONE}, {0: 1})
    assert watch.progressed(11, since=1.0)
