"""The messages of a profile, and what is expected of them."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice

import pytest

from benchmarks.messages import REFUSED, SMALLEST, Kind, Profile, expected, make
from streamapp.pipeline.messages import AIResult, decode
from streamapp.pipeline.outcomes import Record


def test_the_same_profile_gives_the_same_messages() -> None:
    profile = Profile(200, repeats=0.1, rejected=0.1, slow=0.1, hot=0.2, invalid=0.1)
    assert list(make(profile)) == list(make(profile))


def test_a_part_of_the_messages_are_the_first_ones() -> None:
    profile = Profile(200, repeats=0.1, rejected=0.05)
    assert list(make(profile.first(50))) == list(islice(make(profile), 50))
    assert profile.first(500) == profile


@pytest.mark.parametrize("size", [SMALLEST, 300, 600, 5000])
def test_messages_have_their_size(size: int) -> None:
    sizes = [len(sent.value) for sent in make(Profile(200, size=size))]
    assert max(sizes) - min(sizes) <= (60 if size == SMALLEST else 20)
    assert abs(sum(sizes) / len(sizes) - size) < size * 0.15


def test_streamapp_takes_them() -> None:
    for sent in make(Profile(50, size=5000)):
        record = Record("t", 0, 1, 0, sent.key, sent.value, ())
        result = decode(record, max_payload_bytes=262_144)
        assert isinstance(result, AIResult)
        assert (result.processing_id, result.intent) == (sent.id, "ORDER_REQUEST")


def test_shares_are_kept() -> None:
    profile = Profile(4000, rejected=0.1, slow=0.2, invalid=0.05, hot=0.5)
    sent = list(make(profile))
    counts = Counter(each.kind for each in sent)
    assert 300 < counts[Kind.REJECTED] < 500
    assert 650 < counts[Kind.SLOW] < 950
    assert 130 < counts[Kind.INVALID] < 270
    assert 1850 < sum(each.key == b"lead-hot" for each in sent) < 2150


def test_each_kind_is_what_it_says() -> None:
    for sent in make(Profile(500, rejected=0.2, slow=0.2, slow_seconds=3.0, invalid=0.2)):
        if sent.kind is Kind.INVALID:
            with pytest.raises(json.JSONDecodeError):
                json.loads(sent.value)
            continue
        entities = json.loads(sent.value)["entities"]
        assert (entities["product"] == REFUSED) == (sent.kind is Kind.REJECTED)
        assert entities.get("wait_seconds") == (3.0 if sent.kind is Kind.SLOW else None)


def test_what_is_expected_is_counted_from_the_records() -> None:
    profile = Profile(3000, repeats=0.1, rejected=0.05, slow=0.05, invalid=0.02)
    want = expected(profile)
    sent = list(make(profile))
    different = {each.id for each in sent if each.kind is not Kind.INVALID}
    assert want.records == len(sent) == 3000
    assert want.orders + want.rejected + want.repeated + want.invalid == 3000
    assert want.messages == len(different)


def test_only_repetitions_come_after_the_different_ones() -> None:
    sent = list(make(Profile(1000, only_repeats=50)))
    assert len({each.id for each in sent}) == 50
    assert {each.kind for each in sent[:50]} == {Kind.ORDER}
    assert {each.kind for each in sent[50:]} == {Kind.REPEATED}
    assert expected(Profile(1000, only_repeats=50)).messages == 50
