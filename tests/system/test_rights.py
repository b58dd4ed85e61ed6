"""What each process may do, and who can reach it: no more than it must."""

import contextlib
import json
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
from shop import Shop

from deploy.processes import SERVICES as SERVICES_AND_WORKERS
from tools.chaos.harness import Harness

SERVICES = ("products", "orders")


def runtime_url(stack: Harness, service: str) -> str:
    return stack.environment[f"{service.upper()}_RUNTIME_DATABASE_URL"]


def sell_one(shop: Shop) -> None:
    lamp = shop.create_product(qty=1)
    assert shop.final_status(shop.order(lamp["id"]).json()["id"]) == "CONFIRMED"


class TestInPostgreSQL:
    @pytest.mark.parametrize("service", SERVICES)
    def test_services_run_as_the_role_without_tables(self, shop: Shop, service: str) -> None:
        sell_one(shop)
        with psycopg.connect(shop.environment[f"{service.upper()}_DATABASE_URL"]) as connection:
            roles = connection.execute(
                "SELECT DISTINCT usename FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ).fetchall()

        assert roles == [(f"{service}_runtime",)]

    @pytest.mark.parametrize(
        "statement",
        [
            "CREATE TABLE intruder (id int)", "CREATE TEMPORARY TABLE intruder (id int)",
            "CREATE SCHEMA intruder", "CREATE DATABASE intruder", "CREATE ROLE intruder",
            "ALTER TABLE outbox_event ADD COLUMN intruder int", "DROP TABLE outbox_event",
            "ALTER TABLE outbox_event DISABLE TRIGGER ALL", "TRUNCATE outbox_event",
            "DROP FUNCTION outbox_ring CASCADE",
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("service", SERVICES)
    def test_that_role_may_change_rows_only(
        self, stack: Harness, service: str, statement: str
    ) -> None:
        with psycopg.connect(runtime_url(stack, service), autocommit=True) as connection:
            connection.execute("DELETE FROM outbox_event WHERE false")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)

    @pytest.mark.parametrize("service", SERVICES)
    def test_it_is_let_into_no_other_database(self, stack: Harness, service: str) -> None:
        [other] = {*SERVICES} - {service}
        url = urlsplit(runtime_url(stack, service))._replace(path=f"/{other}").geturl()

        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(url)


class TestInRabbitMQ:
    def test_services_connect_as_users_of_their_own(self, shop: Shop, stack: Harness) -> None:
        sell_one(shop)

        listed = json.loads(stack.rabbitmqctl("list_connections", "user", "--formatter", "json"))

        assert {each["user"] for each in listed} == {"products", "orders"}


class TestAnEarlierInstallation:
    def test_is_brought_up_to_date_with_its_data(self, shop: Shop, stack: Harness) -> None:
        lamp = shop.create_product(qty=3)
        for process in SERVICES_AND_WORKERS:
            stack.stop_process(process.name)
        for service in SERVICES:
            url = urlsplit(stack.superuser_database_url)._replace(path=f"/{service}").geturl()
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(f"DROP OWNED BY {service}_runtime")
                connection.execute(f"DROP ROLE {service}_runtime")
            stack.rabbitmqctl("delete_user", service)

        stack.up()

        assert shop.final_status(shop.order(lamp["id"], 3).json()["id"]) == "CONFIRMED"
        assert shop.ledger().differences == []


class TestFromOtherMachines:
    def test_nothing_of_it_can_be_reached(self, stack: Harness) -> None:
        found = set()
        for process in stack._survivors():
            with contextlib.suppress(psutil.NoSuchProcess):
                sockets = process.net_connections("tcp")
                found |= {each.laddr for each in sockets if each.status == psutil.CONN_LISTEN}

        assert {address.ip for address in found} <= {"127.0.0.1", "::1"}
        # All that has a port was looked at.
        assert {address.port for address in found} == set(stack.ports.to_json().values())
