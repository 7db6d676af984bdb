"""A shard that holds what an earlier attempt has left: ordinals rise, and are not the numbers of the lines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest

from lowtide_worker.feeding import BadRequests, Feed


def line(ordinal: int) -> bytes:
    return b'{"custom_id":"r%07dx0badcafe","body":{}}' % ordinal


def taken(ordinals: Sequence[int], records: int, below: int, answered: Sequence[int] = ()) -> list[int]:
    """The ordinals that a feed hands out, of a task with that many records and all ordinals below a bound."""

    async def lines() -> AsyncGenerator[list[bytes], None]:
        yield [line(ordinal) for ordinal in ordinals]

    async def take_all() -> list[int]:
        seen = bytearray(below)
        for ordinal in answered:
            seen[ordinal] = 1
        feed, found = Feed(lines(), seen, records), []
        while record := await feed.take():
            assert record.line == line(record.ordinal)
            found.append(record.ordinal)
        await feed.close()
        return found

    return asyncio.run(take_all())


def test_each_record_is_handed_out_under_its_own_ordinal() -> None:
    assert taken([3, 4, 900], 3, 901) == [3, 4, 900]


def test_what_is_answered_is_not_asked_again() -> None:
    assert taken([3, 4, 900], 3, 901, answered=[4]) == [3, 900]


@pytest.mark.parametrize(
    ("ordinals", "records", "below", "told"),
    [
        ([3, 3], 2, 901, "line 2 of the requests has no custom_id between r0000004x... and r0000900x..."),
        ([4, 3], 2, 901, "line 2 of the requests has no custom_id between r0000005x..."),
        ([3, 901], 2, 901, "line 2 of the requests has no custom_id"),
        ([3, 4, 5], 2, 901, "more than the 2 lines"),
        ([3], 2, 901, "have 1 lines, and the task tells of 2"),
    ],
)
def test_requests_that_are_not_what_the_task_says_are_refused(
    ordinals: Sequence[int], records: int, below: int, told: str
) -> None:
    with pytest.raises(BadRequests) as raised:
        taken(ordinals, records, below)
    assert told in str(raised.value)
