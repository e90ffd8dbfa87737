"""All contenders by name."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.contenders.bare import Bare, BareTable
from benchmarks.contenders.base import Contender
from benchmarks.contenders.by_hand import DaysWork, OneAtATime
from benchmarks.contenders.own import Acknowledged, Streamapp, WithoutMetrics
from benchmarks.contenders.peers import Dbos

CONTENDERS: Mapping[str, Contender] = {
    each.name: each
    for each in (
        Bare(),
        BareTable(),
        OneAtATime(),
        DaysWork(),
        Dbos(),
        Streamapp(),
        Acknowledged(),
        WithoutMetrics(),
    )
}
