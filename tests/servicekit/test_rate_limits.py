"""Rate limits, counted in a real Redis by several processes."""

import pytest
from django.core.exceptions import ImproperlyConfigured
from django_redis import get_redis_connection

from servicekit.access import limits
from servicekit.access.limits import Limiter, RateLimit
from servicekit.identifiers import new_id


@pytest.fixture
def caller() -> str:
    return str(new_id())


@pytest.fixture
def calls(monkeypatch) -> list[list[int]]:
    """What Redis is asked: limit, period and wanted tokens of each call."""
    made, take = [], limits._TAKE

    def counting(client, *, keys, args):
        made.append(args)
        return take(client, keys=keys, args=args)

    monkeypatch.setattr(limits, "_TAKE", counting)
    return made


class TestALimit:
    @pytest.mark.parametrize(
        ("text", "limit"),
        [
            ("", None),
            ("5/second", RateLimit(5, 1)),
            ("600/minute", RateLimit(600, 60)),
            ("1/day", RateLimit(1, 86400)),
        ],
    )
    def test_is_read(self, text, limit):
        assert RateLimit.of(text) == limit

    @pytest.mark.parametrize("text", ["600", "0/minute", "-1/minute", "5/fortnight", "1 / day"])
    def test_is_not_guessed(self, text):
        with pytest.raises(ImproperlyConfigured, match="is no rate limit"):
            RateLimit.of(text)


class TestACaller:
    @pytest.mark.parametrize("count", [1, 7, 600])
    def test_passes_as_often_as_the_limit_says_by_way_of_any_process(self, caller, count):
        processes = [Limiter("tests"), Limiter("tests")]
        limit = RateLimit(count, 86400)
        passed = [
            processes[n % 2].seconds_to_wait(caller, limit) == 0 for n in range(2 * count + 50)
        ]

        assert sum(passed) == count

    def test_is_told_when_the_next_request_may_come(self, caller):
        limiter, limit = Limiter("tests"), RateLimit(2, 3600)
        waits = [limiter.seconds_to_wait(caller, limit) for _ in range(3)]

        assert waits[:2] == [0, 0]
        assert 1790 < waits[2] <= 1801

    def test_may_go_on_then(self, caller):
        now = [0.0]
        limiter, limit = Limiter("tests", lambda: now[0]), RateLimit(2, 3600)
        *_, wait = [limiter.seconds_to_wait(caller, limit) for _ in range(3)]
        # As if the time were over for Redis too.
        get_redis_connection("default").delete(f"rate:tests:{caller}")
        now[0] += wait

        assert limiter.seconds_to_wait(caller, limit) == 0

    def test_does_not_spend_what_is_another_ones(self, caller):
        limiter, limit = Limiter("tests"), RateLimit(1, 3600)
        limiter.seconds_to_wait(caller, limit)

        assert limiter.seconds_to_wait(caller, limit) > 0
        assert limiter.seconds_to_wait(str(new_id()), limit) == 0

    def test_costs_a_call_to_redis_for_one_request_in_many(self, caller, calls):
        limiter, limit = Limiter("tests", lambda: 0.0), RateLimit(10_000, 60)
        assert [limiter.seconds_to_wait(caller, limit) for _ in range(1000)] == [0] * 1000

        assert len(calls) < 20

    def test_costs_none_while_it_is_refused(self, caller, calls):
        limiter, limit = Limiter("tests", lambda: 0.0), RateLimit(1, 3600)
        for _ in range(100):
            limiter.seconds_to_wait(caller, limit)

        assert len(calls) == 2

    def test_leaves_nothing_in_redis_when_the_time_is_over(self, caller):
        Limiter("tests").seconds_to_wait(caller, RateLimit(60, 60))

        assert 0 < get_redis_connection("default").pttl(f"rate:tests:{caller}") <= 1000

    def test_is_bounded_whatever_was_in_redis(self, caller):
        client, key = get_redis_connection("default"), f"rate:tests:{caller}"
        client.set(key, "9" * 30)  # a clock that went back
        wait = Limiter("tests").seconds_to_wait(caller, RateLimit(1, 60))
        assert 0 < wait <= 60
        client.set(key, "nonsense")

        assert Limiter("tests").seconds_to_wait(caller, RateLimit(1, 60)) == 0

    def test_is_kept_in_mind_with_no_more_than_ten_thousand_others(self, monkeypatch):
        monkeypatch.setattr(limits, "_LEASES_LIMIT", 10)
        limiter = Limiter("tests")
        for _ in range(25):
            limiter.seconds_to_wait(str(new_id()), RateLimit(5, 60))

        assert len(limiter._leases) <= 10
