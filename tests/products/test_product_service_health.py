"""The product service works while it has its database."""

import pytest
from django.db import connection

from tests.servicekit.private_broker import unused_port

pytestmark = pytest.mark.django_db(transaction=True)


class TestReady:
    def test_says_so_when_everything_is_there(self, client):
        answer = client.get("/health/ready")

        assert (answer.status_code, answer.json()) == (
            200, {"status": "ready", "checks": {"database": "up", "redis": "up"}},
        )  # fmt: skip
        assert answer["Cache-Control"] == "no-store"

    def test_is_degraded_without_redis(self, client, without_redis):  # noqa: ARG002 - stops it
        answer = client.get("/health/ready")

        assert (answer.status_code, answer.json()) == (
            200, {"status": "degraded", "checks": {"database": "up", "redis": "down"}},
        )  # fmt: skip

    def test_is_not_without_the_database(self, client, monkeypatch):
        monkeypatch.setitem(connection.settings_dict, "PORT", unused_port())
        answer = client.get("/health/ready")

        assert (answer.status_code, answer.json()) == (
            503, {"status": "not_ready", "checks": {"database": "down", "redis": "up"}},
        )  # fmt: skip
