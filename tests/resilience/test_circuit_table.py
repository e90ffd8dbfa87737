"""The breaker against tables: what happens in each state, and what must not.

``circuit_script`` tells what the words mean. The breaker here opens at half of its last four
calls, of at least two, within 100 seconds; it stays open for 60 and admits two trials then.
"""

from __future__ import annotations

import pytest

from tests.resilience.circuit_script import Script

# How a state is reached. A closed breaker is one failed, or slow, call away from opening.
STATES = {
    "closed": "ok ok slow fail =closed [4/1/1]",
    "open": "fail fail =open",
    "open, its time over": "fail fail +60 =open",
    "half-open, one to go": "fail fail +60 ok =half_open",
    "half-open, all under way": "fail fail +60 begin begin =half_open",
    "forced open": "force-open =forced_open",
    "disabled": "disable =disabled",
}

# The state that each event leaves it in: Closed, Open, Half-open, Forced open, Disabled. A dash
# stands for a call that is not admitted.
TABLE = """
                         ok fail slow slowfail ignore cancel +59 +60 +10000 reset force-open disable
closed                  : C    O    O        O      C      C   C   C      C     C          F       D
open                    : -    -    -        -      -      -   O   O      O     C          F       D
open, its time over     : H    O    O        O      H      H   O   O      O     C          F       D
half-open, one to go    : C    O    O        O      H      H   H   H      H     C          F       D
half-open, all under way: -    -    -        -      -      -   H   H      H     C          F       D
forced open             : -    -    -        -      -      -   F   F      F     C          F       D
disabled                : D    D    D        D      D      D   D   D      D     C          F       D
"""
NAMES = {"C": "closed", "O": "open", "H": "half_open", "F": "forced_open", "D": "disabled"}


def rows() -> list[tuple[str, str, str]]:
    events, *lines = TABLE.strip().splitlines()
    found = []
    for line in lines:
        name, _, results = line.partition(":")
        for event, result in zip(events.split(), results.split(), strict=True):
            found.append((name.strip(), event, result))
    assert {name for name, _, _ in found} == set(STATES)
    return found


@pytest.mark.parametrize(("state", "event", "result"), rows())
def test_every_event_in_every_state(state: str, event: str, result: str) -> None:
    script = Script()
    script.run(STATES[state])
    before = script.state
    script.run(f"denied ={before}" if result == "-" else f"{event} ={NAMES[result]}")


# A call began in a closed breaker; what it ends in is told only here, of another generation.
LATER = {
    "open": "fail fail =open",
    "open, its time over": "fail fail +60 =open",
    "half-open": "fail fail +60 ok =half_open",
    "closed after trials": "fail fail +60 ok ok =closed",
    "closed by hand": "fail reset =closed",
    "forced open": "force-open",
    "disabled": "disable",
}


@pytest.mark.parametrize("later", LATER)
@pytest.mark.parametrize("end", ["ok", "fail", "slow", "slowfail", "ignore", "cancel"])
def test_a_late_result_decides_nothing(later: str, end: str) -> None:
    script = Script()
    script.run(f"begin begin begin {LATER[later]}")
    before = script.breaker.snapshot()
    script.run(f"end-{end} end-{end} end-{end}")
    after = script.breaker.snapshot()
    for figures in (before, after):
        for name in ("counts", "opened_seconds_ago", "seconds_until_retry"):  # these go on
            del figures[name]
    assert after == before


# What a new state begins with.
ENTRIES = {
    "an open breaker shows what opened it": "ok fail =open [2/1/0]",
    "trials leave the window as it was": "ok fail +60 ok =half_open [2/1/0]",
    "closing empties the window": "fail fail +60 ok ok =closed [0/0/0]",
    "reset empties the window": "ok slow +60 reset =closed [0/0/0] fail [1/1/0] =closed",
    "reset of a closed one empties the window": "fail reset [0/0/0] fail =closed fail =open",
    "reset makes calls under way late": "begin fail reset end-fail [0/0/0]",
    "reset of a half-open one forgets its trials": "fail fail +60 begin reset begin begin begin",
    "a disabled one counts nothing": "fail disable fail fail slow =disabled [0/0/0]",
    "what was disabled begins anew": "disable fail fail reset [0/0/0] fail =closed",
    "force-open of an open one lasts": "fail fail force-open +60 denied +10000 denied",
    "force-open of a half-open one lasts": "fail fail +60 begin force-open end-ok +60 denied",
    "reset of a forced one closes at once": "force-open reset ok =closed",
    "what was forced open has no half-open": "force-open +60 denied =forced_open reset =closed",
    "disable of an open one admits at once": "fail fail =open disable ok ok ok =disabled",
    "an open period begins with its opening": "ok +50 fail =open +59 denied +1 begin =half_open",
    "it begins anew with a failed trial": "fail fail +60 fail +59 denied =open +1 begin",
    "and with a second one": "fail fail +60 fail +60 fail +59 denied +1 ok ok =closed",
}

# The window of a closed breaker.
WINDOW = {
    "it starts closed and empty": "=closed [0/0/0] ok =closed",
    "one failure is below the minimum of calls": "fail =closed",
    "a success may complete the minimum": "fail ok =open",
    "at the failure rate it opens": "ok ok fail =closed fail =open",
    "below the failure rate it stays closed": "ok ok ok fail =closed",
    "at the rate of slow calls it opens": "ok ok slow =closed slow =open",
    "a slow failure is a failure": "ok ok fail slowfail =open",
    "a slow failure is slow": "ok ok slow slowfail =open",
    "slow and failed calls are not added up": "ok ok slow fail =closed",
    "the oldest call leaves a full window": "ok ok ok ok fail =closed fail =open",
    "a failure that left it counts no more": "ok ok ok fail ok ok ok [4/1/0] ok [4/0/0] fail "
    "=closed",
    "nor does a slow call": "ok ok ok slow ok ok ok [4/0/1] ok [4/0/0] slow =closed",
    "calls count for the window's length": "fail +99 fail =open",
    "and no longer": "fail +100 [0/0/0] fail =closed fail =open",
    "slow calls expire as well": "slow +100 slow =closed slow =open",
    "each call expires by itself": "ok ok ok fail +60 ok ok [4/1/0] +40 [2/0/0] fail =closed",
    "time alone opens and closes nothing": "ok ok ok fail +99 =closed +1 =closed [0/0/0]",
    "an ignored error counts as nothing": "ignore ignore fail ignore =closed [1/1/0] fail =open",
    "nor does a cancelled call": "cancel cancel fail cancel =closed [1/1/0] fail =open",
    "calls under way count when they end": "begin begin begin =closed [0/0/0] end-fail =closed "
    "end-fail =open end-fail [2/2/0]",
}

# The trials of a half-open breaker.
TRIALS = {
    "it admits as many and no more": "fail fail +60 begin begin denied denied",
    "all have to succeed": "fail fail +60 ok =half_open ok =closed",
    "in whatever order they end": "fail fail +60 begin begin end-ok =half_open end-ok =closed",
    "one that is over leaves no place": "fail fail +60 ok begin denied",
    "the first that fails opens at once": "fail fail +60 begin begin end-fail =open denied",
    "whatever the others said": "fail fail +60 ok fail =open denied",
    "and whatever they say after": "fail fail +60 begin begin end-fail =open end-ok =open denied",
    "one that is slow opens as well": "fail fail +60 ok slow =open",
    "a cancelled one gives its place back": "fail fail +60 begin begin end-cancel begin denied",
    "an ignored one gives its place back": "fail fail +60 begin begin end-ignore begin denied",
    "cancelled ones decide nothing": "fail fail +60 cancel ignore cancel =half_open ok ok =closed",
    "time alone ends nothing": "fail fail +60 begin begin +10000 denied =half_open",
    "and one that hung was slow": "fail fail +60 begin +10000 =half_open end-ok =open",
    "the window's length does not touch them": "fail fail +60 ok +1000 ok =closed",
    "a call from before is no trial": "begin begin fail fail +60 begin end-ok end-ok =half_open",
    "a trial of an older period is none": "fail fail +60 begin begin end-fail +60 begin end-fail "
    "=half_open end-ok =half_open ok =closed",
    "a late cancel gives no place back": "begin fail fail +60 begin begin end-cancel denied",
    "a trial of an older period gives none back": "fail fail +60 begin begin end-fail +60 begin "
    "begin end-cancel denied",
}


@pytest.mark.parametrize("case", ENTRIES)
def test_entries(case: str) -> None:
    Script().run(ENTRIES[case])


@pytest.mark.parametrize("case", WINDOW)
def test_window(case: str) -> None:
    Script().run(WINDOW[case])


@pytest.mark.parametrize("case", TRIALS)
def test_trials(case: str) -> None:
    Script().run(TRIALS[case])
