"""Requests that wait at the same time share one trip."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from orders_project.orders.group_commit import GroupCommit, NotCommitted, OutcomeUnknown

from tests.servicekit.private_broker import eventually


class Trip:
    """A commit that a test can hold up, and make fail."""

    def __init__(self) -> None:
        self.batches: list[list[object]] = []
        self.error: BaseException | None = None
        self.may_end = threading.Event()
        self.may_end.set()

    def __call__(self, batch: Sequence[object]) -> None:
        self.batches.append(list(batch))
        self.may_end.wait(5)
        if self.error is not None:
            raise self.error


@pytest.fixture
def trip() -> Trip:
    return Trip()


@pytest.fixture
def group(trip) -> GroupCommit[object]:
    return GroupCommit(trip, deadline_seconds=5.0)


@pytest.fixture
def callers():
    with ThreadPoolExecutor(30) as threads:
        yield threads


def wait_until_waiting(group: GroupCommit[object], count: int) -> None:
    eventually(lambda: group._waiting.qsize() == count)


def submit_behind_a_trip(
    group: GroupCommit[object], trip: Trip, callers: ThreadPoolExecutor, items: Sequence[object]
) -> list[Callable[[], object]]:
    """Submit one item, and the others while its trip takes its time."""
    trip.may_end.clear()
    results = [callers.submit(group.submit, "first")]
    eventually(lambda: len(trip.batches) == 1)
    results += [callers.submit(group.submit, item) for item in items]
    wait_until_waiting(group, len(items))
    return [lambda result=result: result.result(5) for result in results]


class TestGroupCommit:
    def test_commits_an_item_alone_at_once(self, group, trip):
        started = time.monotonic()
        group.submit("one")

        assert trip.batches == [["one"]]
        assert time.monotonic() - started < 0.5

    def test_takes_what_waits_together(self, group, trip, callers):
        results = submit_behind_a_trip(group, trip, callers, range(20))
        trip.may_end.set()
        for result in results:
            result()

        assert [len(batch) for batch in trip.batches] == [1, 20]
        assert sorted(trip.batches[1]) == list(range(20))

    def test_takes_no_more_than_its_limit_at_once(self, trip, callers):
        group = GroupCommit(trip, deadline_seconds=5.0, batch_limit=8)
        results = submit_behind_a_trip(group, trip, callers, range(20))
        trip.may_end.set()
        for result in results:
            result()

        assert [len(batch) for batch in trip.batches] == [1, 8, 8, 4]

    def test_does_not_return_before_the_item_is_durable(self, group, trip, callers):
        trip.may_end.clear()
        result = callers.submit(group.submit, "one")
        eventually(lambda: len(trip.batches) == 1)

        assert not result.done()
        trip.may_end.set()
        assert result.result(5) is None

    @pytest.mark.parametrize("error", [NotCommitted("full"), OutcomeUnknown("silent")])
    def test_tells_everybody_in_the_batch_why_it_failed(self, group, trip, callers, error):
        first, *others = submit_behind_a_trip(group, trip, callers, range(5))
        trip.error = error
        trip.may_end.set()

        for result in (first, *others):
            with pytest.raises(type(error), match=str(error)):
                result()

    def test_calls_an_error_it_does_not_expect_unknown(self, group, trip, caplog):
        trip.error = ZeroDivisionError("a bug")

        with pytest.raises(OutcomeUnknown, match="a bug"):
            group.submit("one")
        assert "unexpected" in caplog.text

    def test_goes_on_after_any_error(self, group, trip):
        for error in (NotCommitted("full"), ZeroDivisionError("a bug"), OutcomeUnknown("silent")):
            trip.error = error
            with pytest.raises((NotCommitted, OutcomeUnknown)):
                group.submit("one")
        trip.error = None
        group.submit("two")

        assert trip.batches[-1] == ["two"]

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    def test_starts_again_when_its_thread_has_died(self, trip):
        group = GroupCommit(trip, deadline_seconds=0.2)
        trip.error = SystemExit()  # ends a thread without a word
        with pytest.raises(OutcomeUnknown):
            group.submit("one")
        trip.error = None
        group.submit("two")

        assert trip.batches[-1] == ["two"]

    def test_gives_no_answer_after_the_deadline(self, trip):
        group = GroupCommit(trip, deadline_seconds=0.1)
        trip.may_end.clear()
        started = time.monotonic()

        with pytest.raises(OutcomeUnknown, match="no answer in time"):
            group.submit("one")
        assert 0.1 <= time.monotonic() - started < 1
        trip.may_end.set()

    def test_does_not_send_an_item_whose_caller_has_given_up(self, trip, callers):
        group = GroupCommit(trip, deadline_seconds=0.2)
        results = submit_behind_a_trip(group, trip, callers, ["given up"])
        for result in results:
            with pytest.raises(OutcomeUnknown):
                result()
        trip.may_end.set()
        group.submit("last")

        assert trip.batches == [["first"], ["last"]]

    def test_starts_one_thread_for_all(self, group, callers):
        before = threading.active_count()
        for result in [callers.submit(group.submit, number) for number in range(30)]:
            result.result(5)

        named = [thread for thread in threading.enumerate() if thread is group._thread]
        assert len(named) == 1
        assert threading.active_count() - before <= 31
