"""Requests that wait at the same time share one trip."""

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from gevent.thread import LockType

from orders_project.orders.placement import group_commit
from orders_project.orders.placement.durability import Outcome
from orders_project.orders.placement.group_commit import GroupCommit
from servicekit.http import deadline
from tests.servicekit.private_broker import eventually

PACE_SECONDS = 0.2


class Trip:
    """A commit that a test can hold up, and make fail."""

    def __init__(self) -> None:
        self.batches: list[list[object]] = []
        self.started_at: list[float] = []
        self.outcome = Outcome.SAFE
        self.error: BaseException | None = None
        self.may_end = threading.Event()
        self.may_end.set()

    def __call__(self, batch: Sequence[object]) -> Outcome:
        self.started_at.append(time.monotonic())
        self.batches.append(list(batch))
        self.may_end.wait(5)
        if self.error is not None:
            raise self.error
        return self.outcome


@pytest.fixture
def trip() -> Trip:
    return Trip()


@pytest.fixture
def group(trip) -> GroupCommit[object]:
    return GroupCommit(trip)


@pytest.fixture
def callers():
    with ThreadPoolExecutor(30) as threads:
        yield threads


def submit(group: GroupCommit[object], item: object, *, timeout_seconds: float = 5.0) -> Outcome:
    return group.submit(item, timeout_seconds=timeout_seconds)


@pytest.fixture
def behind_a_trip(trip, callers) -> Callable[..., list[Callable[[], Outcome]]]:
    """Return a function that submits one item, and others while its trip takes its time."""

    def send(
        group: GroupCommit[object], *items: object, timeout_seconds: float = 5.0
    ) -> list[Callable[[], Outcome]]:
        trip.may_end.clear()
        later = partial(callers.submit, submit, group, timeout_seconds=timeout_seconds)
        results = [later("first")]
        eventually(lambda: len(trip.batches) == 1)
        results += [later(item) for item in items]
        eventually(lambda: group._waiting.qsize() == len(items))
        return [partial(result.result, 5) for result in results]

    return send


class TestGroupCommit:
    def test_commits_an_item_alone_at_once(self, group, trip):
        started = time.monotonic()
        submit(group, "one")

        assert trip.batches == [["one"]]
        assert time.monotonic() - started < 0.5

    @pytest.mark.parametrize(
        ("limit", "sizes"), [({}, [1, 20]), ({"batch_limit": 8}, [1, 8, 8, 4])]
    )
    def test_takes_what_waits_together_and_no_more_than_its_limit(
        self, trip, behind_a_trip, limit, sizes
    ):
        results = behind_a_trip(GroupCommit(trip, **limit), *range(20))
        trip.may_end.set()
        for result in results:
            result()

        assert [len(batch) for batch in trip.batches] == sizes
        assert sorted(itertools.chain(*trip.batches[1:])) == list(range(20))

    def test_does_not_return_before_the_item_is_durable(self, group, trip, callers):
        trip.may_end.clear()
        result = callers.submit(submit, group, "one")
        eventually(lambda: len(trip.batches) == 1)

        assert not result.done()
        trip.may_end.set()
        assert result.result(5) is Outcome.SAFE

    @pytest.mark.parametrize("outcome", Outcome)
    def test_tells_everybody_in_the_batch_what_became_of_it(
        self, group, trip, behind_a_trip, outcome
    ):
        results = behind_a_trip(group, *range(5))
        trip.outcome = outcome
        trip.may_end.set()

        assert {result() for result in results} == {outcome}

    def test_calls_an_error_it_does_not_expect_unknown_and_goes_on_after_any(
        self, group, trip, caplog
    ):
        trip.error = ZeroDivisionError("a bug")
        assert submit(group, "one") is Outcome.UNKNOWN
        assert "unexpected" in caplog.text
        assert "a bug" in caplog.text
        trip.error = None
        for outcome in (Outcome.NOWHERE, Outcome.UNKNOWN, Outcome.SAFE):
            trip.outcome = outcome
            assert submit(group, outcome.value) is outcome

        assert trip.batches[-1] == ["safe"]

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    def test_starts_again_when_its_thread_has_died(self, group, trip):
        trip.error = SystemExit()  # ends a thread without a word
        assert submit(group, "one", timeout_seconds=0.2) is Outcome.UNKNOWN
        trip.error = None

        assert submit(group, "two") is Outcome.SAFE
        assert trip.batches[-1] == ["two"]

    def test_gives_no_answer_after_the_time_of_the_request(self, group, trip):
        trip.may_end.clear()
        started = time.monotonic()

        assert submit(group, "one", timeout_seconds=0.1) is Outcome.UNKNOWN
        assert 0.1 <= time.monotonic() - started < 1
        trip.may_end.set()

    def test_does_not_send_an_item_whose_caller_has_given_up(self, group, trip, behind_a_trip):
        results = behind_a_trip(group, "given up", timeout_seconds=0.2)
        assert {result() for result in results} == {Outcome.UNKNOWN}
        trip.may_end.set()
        submit(group, "last")

        assert trip.batches == [["first"], ["last"]]

    def test_does_not_send_an_item_whose_time_is_over_under_gevent(self, group, trip, monkeypatch):
        submit(group, "first")
        trip.may_end.clear()
        with monkeypatch.context() as as_under_gevent:
            as_under_gevent.setattr(deadline, "is_enforced", lambda: True)
            as_under_gevent.setattr(group_commit.threading, "Lock", LockType)
            for item in ("on its way", "given up"):
                with deadline.limited_to(0.2):
                    assert submit(group, item) is Outcome.UNKNOWN
                eventually(lambda: len(trip.batches) == 2)
        trip.may_end.set()
        submit(group, "last")

        assert trip.batches == [["first"], ["on its way"], ["last"]]

    def test_lets_nobody_wait_who_comes_too_late(self, group, monkeypatch):
        # As under gevent, where the end of the time comes once, and may have come before.
        monkeypatch.setattr(deadline, "is_enforced", lambda: True)
        outcomes: list[Outcome] = []
        late = threading.Thread(
            target=lambda: outcomes.append(submit(group, "late", timeout_seconds=-0.1)), daemon=True
        )
        late.start()
        late.join(5)

        assert outcomes == [Outcome.NOWHERE]

    def test_starts_one_thread_for_all(self, group, callers):
        before = threading.active_count()
        for result in [callers.submit(submit, group, number) for number in range(30)]:
            result.result(5)

        named = [thread for thread in threading.enumerate() if thread is group._thread]
        assert len(named) == 1
        assert threading.active_count() - before <= 31


class TestThePace:
    @pytest.fixture
    def group(self, trip) -> GroupCommit[object]:
        return GroupCommit(trip, pace_seconds=PACE_SECONDS)

    def test_keeps_nobody_waiting_after_a_pause(self, group):
        for _ in range(2):
            started = time.monotonic()
            submit(group, "one")

            assert time.monotonic() - started < PACE_SECONDS / 2
            time.sleep(PACE_SECONDS)

    def test_is_kept_between_two_batches(self, group, trip):
        for number in range(3):
            submit(group, number)

        first, second, third = trip.started_at
        assert second - first >= PACE_SECONDS
        assert third - second >= PACE_SECONDS

    def test_makes_one_batch_of_what_arrives_within_it(self, group, trip, callers):
        submit(group, "first")
        results = []
        for number in range(5):
            results.append(callers.submit(submit, group, number))
            time.sleep(PACE_SECONDS / 20)
        for result in results:
            result.result(5)

        assert trip.batches == [["first"], list(range(5))]
