"""The engine's thread and its queue, on jobs that are plain generators."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue

import pytest

from padlite.engine import Engine, Job, Over
from padlite.errors import QueueFullError, UsageError
from padlite.session import Dropped, Event


@contextlib.contextmanager
def engine(*, slots: int = 1, limit: int | None = None) -> Iterator[Engine]:
    made = Engine(slots=slots, limit=limit)
    made.load(contextlib.nullcontext("models"))
    try:
        yield made
    finally:
        made.stop()


class Reader:
    """A job of *count* numbered events, and what came of it; *gate* holds it at its first event."""

    def __init__(self, count: int, *, client: str = "", ahead: int | None = None, log: list[str] | None = None) -> None:
        self.box: SimpleQueue[Event | Over] = SimpleQueue()
        self.gate, self.entered = threading.Event(), threading.Event()
        self.stopped = False
        self.name, self.log = client, log if log is not None else []
        self.job = Job(events=self._events(count), deliver=self.box.put, stop=self._stop, client=client, ahead=ahead)

    def open(self) -> "Reader":
        self.gate.set()
        return self

    def _stop(self) -> None:
        self.stopped = True

    def _events(self, count: int) -> Iterator[Event]:
        self.entered.set()
        assert self.gate.wait(20)
        for number in range(count):
            if self.stopped:
                return
            self.log.append(self.name)
            yield Dropped(turns=number)

    def rest(self) -> tuple[list[int], BaseException | None]:
        """Return the numbers that are delivered, and how it ended."""
        numbers: list[int] = []
        while not isinstance(item := self.box.get(timeout=20), Over):
            assert isinstance(item, Dropped)
            numbers.append(item.turns)
        return numbers, item.error


def test_everything_arrives_in_order_and_then_the_end() -> None:
    with engine() as made:
        reader = Reader(50).open()
        made.submit(reader.job)
        assert reader.rest() == (list(range(50)), None)
        assert reader.job.done


def test_no_call_from_many_threads_is_lost() -> None:
    readers = [Reader(5, client=str(n % 3)).open() for n in range(60)]
    with engine(slots=2) as made:
        threads = [threading.Thread(target=made.submit, args=(reader.job,)) for reader in readers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [reader.rest() for reader in readers] == [(list(range(5)), None)] * 60


def test_a_job_that_fails_tells_its_reader_and_nobody_else() -> None:
    def failing() -> Iterator[Event]:
        yield Dropped(turns=1)
        raise ZeroDivisionError

    bad, good = Reader(0), Reader(3).open()
    bad.job.events = failing()
    with engine(slots=2) as made:
        made.submit(bad.job)
        made.submit(good.job)
        numbers, error = bad.rest()
        assert numbers == [1]
        assert isinstance(error, ZeroDivisionError)
        assert good.rest() == ([0, 1, 2], None)


def test_clients_are_served_in_rounds_however_much_one_of_them_asks_for() -> None:
    log: list[str] = []
    first = Reader(1, client="a", log=log)
    others = [Reader(1, client=client, log=log).open() for client in "aaaabc"]
    with engine() as made:
        made.submit(first.job)
        assert first.entered.wait(20)
        for reader in others:
            made.submit(reader.job)
        assert [made.position(reader.job) for reader in others] == [1, 4, 5, 6, 2, 3]
        first.open()
        for reader in (first, *others):
            reader.rest()
    assert log == list("aabcaaa")


def test_a_queue_that_is_full_refuses_and_says_so() -> None:
    first, second, third = Reader(1), Reader(1).open(), Reader(1).open()
    with engine(limit=1) as made:
        made.submit(first.job)
        assert first.entered.wait(20)
        made.submit(second.job)
        with pytest.raises(QueueFullError, match="1 answers are waiting"):
            made.submit(third.job)
        first.open()
        assert second.rest()[1] is None


def test_two_slots_take_turns() -> None:
    log: list[str] = []
    readers = [Reader(3, client=name, log=log) for name in "ab"]
    with engine(slots=2) as made:
        made.submit(readers[0].job)
        assert readers[0].entered.wait(20)  # it holds the thread until both are there, one event ahead
        made.submit(readers[1].open().job)
        readers[0].open()
        for reader in readers:
            reader.rest()
    assert log == list("aababb")


def test_a_job_waits_for_a_slow_reader_unless_somebody_else_waits_for_the_slot() -> None:
    slow = Reader(20, ahead=3).open()
    with engine() as made:
        made.submit(slow.job)
        for _ in range(3):
            slow.box.get(timeout=20)
        assert _settles(lambda: slow.job.paused)
        assert slow.job.delivered == 3
        slow.job.took()
        assert _settles(lambda: slow.job.delivered == 4)
        other = Reader(1).open()
        made.submit(other.job)
        assert other.rest() == ([0], None)
        assert slow.rest() == (list(range(3, 20)), None)


def _settles(condition: Callable[[], bool]) -> bool:
    """Tell whether *condition* becomes true soon."""
    bell = threading.Event()
    return any(condition() or bell.wait(0.02) for _ in range(500)) or condition()


def test_a_cancelled_job_ends_whether_it_runs_waits_or_is_paused() -> None:
    running, paused, waiting = Reader(10**9), Reader(10**9, ahead=2).open(), Reader(3).open()
    with engine(slots=2) as made:
        made.submit(paused.job)
        assert _settles(lambda: paused.job.paused)
        made.submit(running.job)
        assert running.entered.wait(20)
        made.submit(waiting.job)
        waiting.job.cancel()
        assert made.position(waiting.job) == 1
        running.job.cancel()
        running.open()
        paused.job.cancel()
        assert running.rest() == ([], None)
        assert paused.rest()[1] is None
        assert waiting.rest() == ([], None)
        assert _settles(lambda: made.running == made.waiting == 0)


def test_one_that_is_cancelled_while_it_waits_ends_before_there_is_a_slot() -> None:
    endless, waiting = Reader(10**9).open(), Reader(3).open()
    with engine() as made:
        made.submit(endless.job)
        assert endless.entered.wait(20)
        made.submit(waiting.job)
        waiting.job.cancel()
        assert waiting.rest() == ([], None)
        assert made.running == 1
        endless.job.cancel()
        endless.rest()


def test_stopping_ends_what_runs_and_refuses_what_waits() -> None:
    running, waiting = Reader(10**9).open(), Reader(1).open()
    made = Engine()
    closed = threading.Event()
    made.load(_closing(closed))
    made.submit(running.job)
    assert running.entered.wait(20)
    made.submit(waiting.job)
    made.stop()
    assert closed.is_set()
    assert running.rest()[1] is None
    assert isinstance(waiting.rest()[1], UsageError)
    with pytest.raises(UsageError, match="closed"):
        made.submit(Reader(1).job)
    made.stop()


@contextlib.contextmanager
def _closing(closed: threading.Event) -> Iterator[str]:
    try:
        yield "models"
    finally:
        closed.set()


def _fail() -> None:
    raise LookupError("no such model")


def test_what_goes_wrong_while_loading_reaches_the_caller_and_leaves_no_thread() -> None:
    @contextlib.contextmanager
    def broken() -> Iterator[None]:
        _fail()
        yield

    before = threading.active_count()
    with pytest.raises(LookupError, match="no such model"):
        Engine().load(broken())
    assert threading.active_count() == before
