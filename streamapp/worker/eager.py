"""Faust's wait for room in a stream's buffer, at no cost while there is room.

Faust hands each record over in a task of its own, beside three more that wait for the flow's end
and the service's: four tasks a record, of which nearly all have nothing to wait for.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any

from mode.services import WaitResults

WaitFirst = Callable[..., Coroutine[Any, Any, WaitResults]]


def eager(wait_first: WaitFirst) -> WaitFirst:
    """``Service.wait_first`` that begins with its first wait at once, and makes tasks only if that
    is not over then. The original makes the same first step, in a task."""

    async def first(*waits: Any, timeout: Any = None) -> WaitResults:
        begun, *others = waits
        if not isinstance(begun, Coroutine):
            return await wait_first(*waits, timeout=timeout)
        try:
            waiting = begun.send(None)
        except StopIteration as done:
            _drop(others)
            return WaitResults([begun], [done.value], False)
        except BaseException:
            _drop(others)
            raise
        return await wait_first(_go_on(begun, waiting), *others, timeout=timeout)

    return first


def _drop(waits: list[Any]) -> None:
    for wait in waits:
        if isinstance(wait, Coroutine):
            wait.close()  # never awaited, which Python would tell of


async def _go_on(begun: Coroutine[Any, Any, Any], waiting: Any) -> Any:
    return await _rest(begun, waiting)


@types.coroutine
def _rest(begun: Coroutine[Any, Any, Any], waiting: Any) -> Generator[Any, Any, Any]:
    """The rest of a coroutine of which the first step gave ``waiting``."""
    step: Callable[[], Any]
    while True:
        try:
            sent = yield waiting
        except BaseException as error:
            step = partial(begun.throw, error)
        else:
            step = partial(begun.send, sent)
        try:
            waiting = step()
        except StopIteration as done:
            return done.value
