"""The product service works while it has its database."""

import pytest
from django.db import connection

from tests.servicekit.private_broker import unused_port

pytestmark = pytest.mark.django_db(transaction=True)


class TestReady:
    @pytest.mark.parametrize(
        ("database", "redis", "answer"),
        [("up", "up", (200, "ready")), ("up", "down", (200, "degraded")),
         ("down", "up", (503, "not_ready"))],
    )  # fmt: skip
    def test_is_what_can_be_done_with_what_is_up(
        self, client, monkeypatch, request, *, database, redis, answer
    ):
        if redis == "down":
            request.getfixturevalue("without_redis")
        if database == "down":
            monkeypatch.setitem(connection.settings_dict, "PORT", unused_port())
        answered = client.get("/health/ready")

        assert (answered.status_code, answered.json()["status"]) == answer
        assert answered.json()["checks"] == {"database": database, "redis": redis}
        assert answered["Cache-Control"] == "no-store"
