"""How events reach a reader: in order, at once when it waits, together when it rests, and at the end without a rest."""

import asyncio
import threading
import time

import pytest

from padlite.engine import Over
from padlite.mailbox import LoopMailbox, ThreadMailbox
from padlite.session import Dropped, Event

LONG_S = 60.0  # a rest that no test waits for


def _numbers(items: list[Event | Over]) -> list[int]:
    return [item.turns for item in items if isinstance(item, Dropped)]


def test_everything_arrives_in_order_in_a_thread_and_in_an_event_loop() -> None:
    def write(box: ThreadMailbox | LoopMailbox) -> None:
        for number in range(2000):
            box.put(Dropped(turns=number))
        box.put(Over())

    async def in_a_loop() -> list[int]:
        box, heard = LoopMailbox(rest_s=0.0001), list[Event | Over]()
        writer = threading.Thread(target=write, args=(box,))
        writer.start()
        while not (heard and isinstance(heard[-1], Over)):
            heard += await box.take()
        writer.join()
        return _numbers(heard)

    box, heard = ThreadMailbox(rest_s=0.0001), list[Event | Over]()
    writer = threading.Thread(target=write, args=(box,))
    writer.start()
    while not (heard and isinstance(heard[-1], Over)):
        heard += box.take()
    writer.join()
    assert _numbers(heard) == asyncio.run(in_a_loop()) == list(range(2000))


def _hurried(box: ThreadMailbox) -> list[Event | Over]:
    """Let two events come shortly one after the other, so that the reader rests from now on; return the second."""
    box.put(Dropped(turns=0))
    box.take()
    box.put(Dropped(turns=1))
    return box.take()


@pytest.mark.parametrize("last", ["the end", "many"])
def test_a_reader_that_rests_is_woken_by_the_end_and_by_many_events_and_takes_all_of_them(last: str) -> None:
    many = 3 if last == "many" else 1000
    rest: list[Event | Over] = [Dropped(turns=2), Dropped(turns=3), Over() if last == "the end" else Dropped(turns=4)]

    def put_all(box: ThreadMailbox | LoopMailbox) -> None:
        for item in rest:
            box.put(item)

    async def in_a_loop() -> list[list[Event | Over]]:
        box = LoopMailbox(rest_s=LONG_S, many=many)
        heard: list[list[Event | Over]] = []
        for number in range(2):
            box.put(Dropped(turns=number))
            heard.append(await box.take())
        asyncio.get_running_loop().call_later(0.01, put_all, box)
        return [heard[-1], await box.take()]

    box = ThreadMailbox(rest_s=LONG_S, many=many)
    heard = [_hurried(box)]
    threading.Timer(0.01, put_all, [box]).start()
    heard.append(box.take())
    assert heard == [[Dropped(turns=1)], rest]
    assert asyncio.run(in_a_loop()) == heard


def test_what_comes_during_a_rest_is_there_when_it_is_over_without_anything_after_it() -> None:
    async def in_a_loop() -> list[Event | Over]:
        box = LoopMailbox(rest_s=0.2)
        for number in range(2):
            box.put(Dropped(turns=number))
            await box.take()
        asyncio.get_running_loop().call_later(0.01, box.put, Dropped(turns=2))
        return await box.take()

    box = ThreadMailbox(rest_s=0.2)
    _hurried(box)
    threading.Timer(0.01, box.put, [Dropped(turns=2)]).start()
    assert box.take() == asyncio.run(in_a_loop()) == [Dropped(turns=2)]


def test_the_first_events_and_those_after_a_pause_need_no_rest() -> None:
    box = ThreadMailbox(rest_s=LONG_S)
    for number in range(2):
        threading.Timer(0.01, box.put, [Dropped(turns=number)]).start()
        assert box.take() == [Dropped(turns=number)]
    box = ThreadMailbox(rest_s=0.01)
    _hurried(box)
    time.sleep(0.02)
    threading.Timer(0.01, box.put, [Dropped(turns=2)]).start()
    assert box.take() == [Dropped(turns=2)]
