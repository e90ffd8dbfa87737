"""The resumer: stuck sagas and orphans are taken up once, by their owner, in their lead's lane."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from streamapp.saga.model import CarriedOut, Fenced, SagaStatus
from streamapp.storage import health
from streamapp.storage.health import DatabaseHealth
from streamapp.storage.requests import Request, RequestKind
from streamapp.worker.membership import Standing
from streamapp.worker.ownership import PartitionLease
from streamapp.worker.resumer import LIMIT, Resumer
from tests.worker.fakes import eventually, settled
from tests.worker.intake_bench import Bench as IntakeBench

STUCK, RUNNING = SagaStatus.STUCK, SagaStatus.RUNNING


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "FIRST_BACKOFF", 0.0)
    monkeypatch.setattr(health, "MAX_BACKOFF", 0.0)


class Bench:
    """A resumer on a real intake; the table of sagas is a dict."""

    def __init__(self) -> None:
        self.worker = IntakeBench()
        self.sagas: dict[str, tuple[SagaStatus, int, bytes]] = {}  # status, partition, key
        self.calls: list[tuple[str, str, int, bool | None]] = []
        self.requests: dict[str, list[Request]] = {}
        self.carried_out: list[tuple[str, CarriedOut]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.away: BaseException | None = None
        self.asked: list[tuple[str, Any]] = []
        self.orphaned = 0
        self.loaded = 0
        self.health = DatabaseHealth()
        self.resumer = Resumer(
            sagas=self,  # type: ignore[arg-type]
            journal=self,  # type: ignore[arg-type]
            unfinished=self,  # type: ignore[arg-type]
            requests=self,  # type: ignore[arg-type]
            worker="worker-1",
            intake=self.worker.intake,
            health=self.health,
            interval=0.0,
            on_orphan=self._count,
        )

    def _count(self) -> None:
        self.orphaned += 1

    async def own(self, *partitions: int, committed: int | None = 100) -> None:
        """Own partitions, whose committed offset was that when they were assigned."""
        self.worker.intake.assigned([("ai-results", number) for number in partitions])
        await eventually(lambda: len(self.worker.intake.epochs()) == len(partitions))
        for lease in self.worker.intake.leases.values():
            lease.committed = committed

    def lease(self, partition: int = 0) -> PartitionLease:
        return self.worker.intake.leases["ai-results", partition]

    # The journal, the executor and the look-ups

    async def load(self, processing_id: str) -> Any:
        await asyncio.sleep(0)
        self.loaded += 1
        if processing_id not in self.sagas:
            return None
        message = SimpleNamespace(processing_id=processing_id)
        return SimpleNamespace(message=message, status=self.sagas[processing_id][0])

    async def resume(
        self, saga: Any, epoch: int, parking: Any, request: CarriedOut | None = None
    ) -> None:
        await self._work("resume", saga, epoch, None, request)

    async def resolve(self, saga: Any, epoch: int, request: CarriedOut) -> None:
        await self._work("resolve", saga, epoch, None, request)

    async def refuse(self, saga: Any, epoch: int, request: CarriedOut) -> None:
        await self._work("refuse", saga, epoch, None, request)

    async def run(self, saga: Any, epoch: int, parking: Any, *, claim: bool) -> None:
        await self._work("run", saga, epoch, claim)

    async def _work(
        self,
        what: str,
        saga: Any,
        epoch: int,
        claim: bool | None,
        request: CarriedOut | None = None,
    ) -> None:
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        if request is not None:
            self.requests[saga.message.processing_id].pop(0)
            self.carried_out.append((what, request))
        self.calls.append((what, saga.message.processing_id, epoch, claim))
        del self.sagas[saga.message.processing_id]

    async def waiting(self, partitions: list[int], limit: int) -> list[tuple[str, int, bytes]]:
        assert limit == LIMIT
        return [
            (name, self.sagas[name][1], self.sagas[name][2])
            for name, open_ in self.requests.items()
            if open_ and name in self.sagas and self.sagas[name][1] in partitions
        ]

    async def next(self, processing_id: str) -> Request | None:
        if self.away is not None:
            raise self.away
        return next(iter(self.requests.get(processing_id, [])), None)

    async def stuck(self, partitions: list[int], limit: int) -> list[tuple[str, int, bytes]]:
        self.asked.append(("stuck", sorted(partitions)))
        return self._of(partitions, limit, STUCK)

    async def orphans(
        self, committed: Mapping[int, int], limit: int
    ) -> list[tuple[str, int, bytes]]:
        self.asked.append(("orphans", dict(committed)))
        return self._of(committed, limit, RUNNING, SagaStatus.COMPENSATING)

    def _of(
        self, partitions: Any, limit: int, *statuses: SagaStatus
    ) -> list[tuple[str, int, bytes]]:
        assert limit == LIMIT
        return [
            (name, partition, key)
            for name, (status, partition, key) in self.sagas.items()
            if status in statuses and partition in partitions
        ]


async def test_who_owns_nothing_asks_nothing() -> None:
    bench = Bench()
    await bench.resumer.look()
    assert bench.asked == []


async def test_only_partitions_that_are_owned_and_confirmed_are_asked_for() -> None:
    bench = Bench()
    await bench.own(0, 3, committed=None)
    bench.worker.standing = Standing.UNKNOWN
    bench.lease(0).refuse(bench.lease(0).granted)
    await bench.resumer.look()
    assert bench.asked == [("stuck", [3]), ("orphans", {})]
    bench.lease(3).committed = 17
    await bench.resumer.look()
    assert bench.asked[2:] == [("stuck", [3]), ("orphans", {3: 17})]
    await bench.worker.intake.give_up(0)


async def test_a_partition_that_was_fenced_while_idle_is_owned_anew() -> None:
    bench = Bench()
    await bench.own(0)
    bench.lease().refuse(bench.lease().granted)
    await bench.resumer.look()
    await eventually(lambda: bench.lease().granted == 2)


async def test_an_orphan_is_below_what_was_finished_since() -> None:
    bench = Bench()
    await bench.own(0, committed=5)
    await bench.worker.accept(5, 6, 7)
    await bench.worker.idle()
    await bench.resumer.look()
    assert bench.asked[1] == ("orphans", {0: 8})


async def test_a_stuck_saga_is_resumed_under_the_epoch_of_its_partition() -> None:
    bench = Bench()
    await bench.own(0, 1)
    bench.sagas = {"p-1": (STUCK, 1, b"lead")}
    await bench.resumer.look()
    await bench.worker.idle()
    assert bench.calls == [("resume", "p-1", 1, None)]
    assert bench.orphaned == 0


@pytest.mark.parametrize("status", [RUNNING, SagaStatus.COMPENSATING])
async def test_an_orphan_goes_on_and_is_told(status: SagaStatus) -> None:
    bench = Bench()
    await bench.own(0)
    bench.sagas = {"p-1": (status, 0, b"lead")}
    await bench.resumer.look()
    await bench.worker.idle()
    assert bench.calls == [("run", "p-1", 1, False)]
    assert bench.orphaned == 1


async def test_a_saga_is_taken_up_once_while_it_is_worked_on() -> None:
    bench = Bench()
    await bench.own(0)
    bench.gate.clear()
    bench.sagas = {"p-1": (STUCK, 0, b"a"), "p-2": (RUNNING, 0, b"b")}
    for _ in range(3):
        await bench.resumer.look()
        await settled()
    assert bench.orphaned == 1
    bench.gate.set()
    await bench.worker.idle()
    assert sorted(bench.calls) == [("resume", "p-1", 1, None), ("run", "p-2", 1, False)]
    assert bench.loaded == 2, "nothing else was queued for them"
    bench.sagas = {"p-1": (STUCK, 0, b"a")}
    await bench.resumer.look()
    await bench.worker.idle()
    assert len(bench.calls) == 3, "due again, later"


async def test_it_waits_for_its_turn_in_the_lane_of_its_lead() -> None:
    bench = Bench()
    await bench.own(0)
    gate = bench.worker.pipeline.gates[0]
    await bench.worker.accept(0, key=b"lead")
    bench.sagas = {"p-1": (STUCK, 0, b"lead"), "p-2": (STUCK, 0, b"other")}
    await bench.resumer.look()
    await eventually(lambda: bench.calls)
    await settled()
    assert [call[1] for call in bench.calls] == ["p-2"]
    gate.set()
    await bench.worker.idle()
    assert [call[1] for call in bench.calls] == ["p-2", "p-1"]


async def test_what_ended_meanwhile_is_left_alone() -> None:
    bench = Bench()
    await bench.own(0)
    bench.sagas = {"gone": (STUCK, 0, b"a"), "ended": (STUCK, 0, b"b")}
    await bench.resumer.look()
    del bench.sagas["gone"]
    bench.sagas["ended"] = (SagaStatus.COMPENSATED, 0, b"b")
    await bench.worker.idle()
    assert bench.calls == []
    assert not bench.worker.errors


async def test_an_orphan_that_was_parked_meanwhile_is_left_to_its_schedule() -> None:
    bench = Bench()
    await bench.own(0)
    bench.sagas = {"p-1": (RUNNING, 0, b"lead")}
    await bench.resumer.look()
    assert (bench.orphaned, bench.loaded) == (1, 0), "found, and not looked at yet"
    bench.sagas = {"p-1": (STUCK, 0, b"lead")}
    await bench.worker.idle()
    assert bench.loaded == 1
    assert bench.calls == [], "it waits for its time, as all that are parked"
    await bench.resumer.look()  # now it is due
    await bench.worker.idle()
    assert bench.calls == [("resume", "p-1", 1, None)]


async def test_a_fenced_saga_is_taken_up_by_the_next_look() -> None:
    bench = Bench()
    await bench.own(0)
    bench.sagas = {"p-1": (STUCK, 0, b"lead")}
    bench.error = Fenced("refused", 1)
    await bench.resumer.look()
    await bench.worker.idle()
    assert bench.lease().granted is None, "the epoch is raised anew"
    assert not bench.worker.errors
    bench.error = None
    await bench.lease().epoch()
    await bench.resumer.look()
    await bench.worker.idle()
    assert bench.calls == [("resume", "p-1", 2, None)]


async def test_a_defect_is_told_and_the_saga_taken_up_again() -> None:
    bench = Bench()
    await bench.own(0)
    bench.sagas = {"p-1": (STUCK, 0, b"lead")}
    bench.error = RuntimeError("a defect")
    await bench.resumer.look()
    await bench.worker.idle()
    assert bench.worker.errors == [bench.error]
    bench.error = None
    await bench.resumer.look()
    await bench.worker.idle()
    assert len(bench.calls) == 1


async def test_one_that_was_dropped_before_its_turn_is_taken_up_by_the_next_owner() -> None:
    bench = Bench()
    await bench.own(0)
    bench.worker.pipeline.free = False
    await bench.worker.accept(0, key=b"lead")
    bench.sagas = {"p-1": (STUCK, 0, b"lead")}
    await bench.resumer.look()
    await bench.worker.intake.give_up(0)
    await bench.worker.idle()
    assert bench.calls == []
    bench.worker.membership.generation = 2
    await bench.own(0)
    await bench.resumer.look()
    await bench.worker.idle()
    assert bench.calls == [("resume", "p-1", 2, None)]


async def test_a_partition_given_up_during_the_look_is_not_written_for() -> None:
    bench = Bench()
    await bench.own(0)
    bench.sagas = {"p-1": (STUCK, 0, b"lead")}
    look = bench.stuck

    async def given_up(partitions: list[int], limit: int) -> list[tuple[str, int, bytes]]:
        found = await look(partitions, limit)
        await bench.worker.intake.give_up(0)
        return found

    bench.stuck = given_up  # type: ignore[method-assign]
    await bench.resumer.look()
    await bench.worker.idle()
    assert bench.calls == []
    assert not bench.worker.errors


async def test_a_database_outage_ends_nothing() -> None:
    bench = Bench()
    await bench.own(0)
    bench.sagas = {"p-1": (STUCK, 0, b"lead")}
    look, failures = bench.stuck, [ConnectionResetError(), ConnectionRefusedError()]

    async def away(partitions: list[int], limit: int) -> list[tuple[str, int, bytes]]:
        if failures:
            raise failures.pop()
        return await look(partitions, limit)

    bench.stuck = away  # type: ignore[method-assign]
    bench.away = ConnectionResetError()
    running = asyncio.create_task(bench.resumer.run())
    await eventually(lambda: len(bench.worker.lanes))
    assert not bench.health.available
    bench.away = None
    await eventually(lambda: bench.calls)
    assert bench.health.available
    assert not running.done()
    running.cancel()


# What people ask for


def asked(number: int = 1, kind: RequestKind = RequestKind.RESUME) -> Request:
    return Request(number, kind, "ann")


@pytest.mark.parametrize(
    ("kind", "result"),
    [(RequestKind.RESUME, "resumed"), (RequestKind.RESOLVE, "resolved")],
)
async def test_what_is_asked_for_a_stuck_saga_is_done(kind: RequestKind, result: str) -> None:
    bench = Bench()
    await bench.own(0, 1)
    bench.sagas = {"p-1": (STUCK, 1, b"lead")}
    bench.requests = {"p-1": [asked(7, kind)]}
    await bench.resumer.look()
    await bench.worker.idle()
    assert bench.calls == [(str(kind), "p-1", 1, None)]
    assert bench.carried_out == [
        (str(kind), CarriedOut(7, str(kind), "ann", "worker-1", result)),
    ]
    assert bench.orphaned == 0


@pytest.mark.parametrize("status", [s for s in SagaStatus if s is not STUCK])
@pytest.mark.parametrize("kind", list(RequestKind))
async def test_what_is_asked_for_a_saga_that_is_not_stuck_any_more_is_refused(
    status: SagaStatus, kind: RequestKind
) -> None:
    bench = Bench()
    await bench.own(0)
    bench.sagas = {"p-1": (status, 0, b"lead")}
    bench.requests = {"p-1": [asked(7, kind)]}
    await bench.resumer.look()
    await bench.worker.idle()
    ((what, request),) = bench.carried_out
    assert (what, request.result) == ("refuse", f"refused: the saga is {status}, not STUCK")


async def test_requests_wait_for_their_turn_in_the_lane_and_for_each_other() -> None:
    bench = Bench()
    await bench.own(0)
    gate = bench.worker.pipeline.gates[0]
    await bench.worker.accept(0, key=b"lead")
    bench.sagas = {"p-1": (STUCK, 0, b"lead")}
    bench.requests = {"p-1": [asked(1), asked(2, RequestKind.RESOLVE)]}
    for _ in range(3):
        await bench.resumer.look()
        await settled()
    assert bench.carried_out == []
    gate.set()
    await bench.worker.idle()
    assert [request.request_id for _, request in bench.carried_out] == [1]
    bench.sagas = {"p-1": (STUCK, 0, b"lead")}
    await bench.resumer.look()
    await bench.worker.idle()
    assert [request.request_id for _, request in bench.carried_out] == [1, 2]


async def test_a_request_of_a_fenced_owner_waits_for_the_next_look() -> None:
    bench = Bench()
    await bench.own(0)
    bench.sagas = {"p-1": (STUCK, 0, b"lead")}
    bench.requests = {"p-1": [asked()]}
    bench.error = Fenced("refused", 1)
    await bench.resumer.look()
    await bench.worker.idle()
    assert bench.carried_out == []
    bench.error = None
    await bench.lease().epoch()
    await bench.resumer.look()
    await bench.worker.idle()
    assert [what for what, _ in bench.carried_out] == ["resume"]
