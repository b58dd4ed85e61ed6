"""How many requests a web process answers at a time, with the greenlets that it has."""

import time

import gevent

from servicekit.http import admission
from servicekit.http.admission import Admission


def ask(places: Admission) -> gevent.Greenlet:
    """Ask for a place, as a request does, and come to where it is given or waited for."""
    asking = gevent.spawn(places.enter)
    gevent.sleep(0)
    return asking


class TestEnter:
    def test_gives_a_place_at_once_while_there_is_one(self):
        places = Admission(2)

        assert [places.enter(), places.enter()] == [0.0, 0.0]
        assert places.taken == 2

    def test_gives_one_that_becomes_free_to_the_newest(self):
        places = Admission(1)
        places.enter()
        oldest, newest = ask(places), ask(places)

        places.leave()

        assert newest.get(timeout=60) >= 0.0
        assert not oldest.ready()
        assert places.taken == 1

    def test_gives_up_after_a_moment_and_leaves_nothing(self, monkeypatch):
        monkeypatch.setattr(admission, "_WAIT_SECONDS", 0.01)
        places = Admission(1)
        places.enter()

        assert ask(places).get(timeout=60) is None
        places.leave()
        assert places.taken == 0
        assert places.enter() == 0.0


class TestAside:
    def test_lets_others_have_the_place_meanwhile(self):
        places = admission.open_(1)
        places.enter()
        waiting = ask(places)

        with admission.aside():
            assert waiting.get(timeout=60) is not None
        assert places.taken == 2

        places.leave()
        places.leave()
        assert places.taken == 0


class TestAdapt:
    def test_admits_fewer_when_late_and_again_more(self):
        places = Admission(100)
        for _ in range(100):
            places.enter()

        for _ in range(10):
            places.adapt(is_late=True)
        for _ in range(36):
            places.leave()
        late = ask(places)
        assert not late.ready()

        for _ in range(10):
            places.adapt(is_late=False)
        assert late.get(timeout=60) is not None
        assert [places.enter() for _ in range(35)] == [0.0] * 35
        assert not ask(places).ready()

    def test_leaves_the_limit_alone_when_few_requests_are_there(self):
        places = Admission(100)
        places.enter()

        for _ in range(10):
            places.adapt(is_late=True)

        assert [places.enter() for _ in range(99)] == [0.0] * 99


class TestFollowLag:
    def test_sees_that_a_process_does_one_thing_for_long(self, monkeypatch):
        monkeypatch.setattr(admission, "_LOOK_EVERY_SECONDS", 0.001)
        seen: list[bool] = []
        places = Admission(1)
        monkeypatch.setattr(places, "adapt", lambda *, is_late: seen.append(is_late))
        following = gevent.spawn(places.follow_lag)
        gevent.sleep(0.01)

        time.sleep(2 * admission._LAG_SECONDS)
        assert places.lags()
        gevent.sleep(0.01)
        following.kill()

        assert True in seen
        # What has waited for it has not come to its turn yet.
        assert places.lags()
