"""The keys that a process knows, and how seldom it asks for them."""

import threading

import pytest

from servicekit.access.known import (
    KEEP_SECONDS,
    REFRESH_SECONDS,
    KeysUnavailable,
    KnownKey,
    KnownKeys,
    digest_of,
    new_key,
    prefix_of,
)


class Database:
    """Keys to be read, counting how often; and a clock."""

    def __init__(self) -> None:
        self.keys: dict[str, KnownKey] = {}
        self.is_away = False
        self.reads = 0
        self.now = 1000.0
        self.known = KnownKeys(self.read, lambda: self.now)

    def add(self) -> str:
        key = new_key()
        prefix = prefix_of(key)
        self.keys[prefix] = KnownKey(prefix, digest_of(key), frozenset({"orders:read"}), "a key")
        return key

    def read(self) -> dict[str, KnownKey] | None:
        self.reads += 1
        return None if self.is_away else dict(self.keys)


@pytest.fixture
def database() -> Database:
    return Database()


class TestAKey:
    def test_is_found_by_itself_and_not_by_its_prefix(self, database):
        key = database.add()

        assert database.known.find(key).prefix == prefix_of(key)
        assert database.known.find(key[:-1] + ("A" if key[-1] != "A" else "B")) is None
        assert database.known.find(prefix_of(key)) is None

    def test_is_read_once_however_often_it_is_shown(self, database):
        key = database.add()
        for _ in range(1000):
            assert database.known.find(key)

        assert database.reads == 1

    def test_that_is_revoked_is_good_for_ten_seconds_at_most(self, database):
        key = database.add()
        assert database.known.find(key)
        database.keys.clear()
        database.now += REFRESH_SECONDS - 0.01
        assert database.known.find(key)
        database.now += 0.01

        assert database.known.find(key) is None

    def test_that_is_new_is_known_after_a_second(self, database):
        database.known.find(database.add())
        new = database.add()
        assert database.known.find(new) is None
        database.now += 1

        assert database.known.find(new)

    def test_that_there_is_not_costs_one_look_a_second_whoever_shows_how_many(self, database):
        for _ in range(1000):
            assert database.known.find(new_key()) is None
            database.now += 0.01

        assert 9 <= database.reads <= 11


class TestWithoutTheDatabase:
    def test_a_known_key_is_good_for_an_hour(self, database):
        key = database.add()
        database.known.find(key)
        database.is_away = True
        database.now += KEEP_SECONDS
        assert database.known.find(key)
        database.now += 1

        with pytest.raises(KeysUnavailable):
            database.known.find(key)

    def test_nothing_can_be_said_of_another_key(self, database):
        database.known.find(database.add())
        database.is_away = True
        database.now += 1
        for _ in range(2):
            with pytest.raises(KeysUnavailable):
                database.known.find(new_key())

    def test_a_key_is_looked_for_again_every_second_and_found_when_it_is_back(self, database):
        database.is_away = True
        key = database.add()
        for _ in range(100):
            with pytest.raises(KeysUnavailable):
                database.known.find(key)
        assert database.reads == 1
        database.is_away = False
        database.now += 1

        assert database.known.find(key)

    def test_one_caller_waits_for_it_and_nobody_else(self, database):
        key = database.add()
        database.known.find(key)
        database.is_away = True
        database.now += REFRESH_SECONDS
        database.known.find(key)
        reading, let_go = threading.Event(), threading.Event()

        def wait() -> None:
            reading.set()
            assert let_go.wait(20)

        database.known._read = wait
        database.now += 1
        waiting = threading.Thread(target=database.known.find, args=[key])
        waiting.start()
        try:
            assert reading.wait(20)
            assert database.known.find(key)
        finally:
            let_go.set()
            waiting.join()
