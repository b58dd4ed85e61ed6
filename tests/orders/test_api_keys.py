"""API keys and rate limits, as clients of the order service meet them."""

import re
from typing import Any
from uuid import UUID, uuid5

import pytest
from django.conf import settings as django_settings
from django.db import OperationalError
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from orders_project.orders.models import Order
from servicekit.access.known import new_key, prefix_of
from servicekit.access.models import ApiKey
from servicekit.http import access
from servicekit.http.access import peer_headers
from servicekit.identifiers import new_id
from tests.orders.ordering import place
from tests.servicekit.api_document import document

pytestmark = pytest.mark.django_db(transaction=True)

PLACE, READ, CANCEL = "orders:place", "orders:read", "orders:cancel"
ID = "0198c0de-0000-7000-8000-00000000000b"
LONG_AGO = float("-inf")
OPEN = {"getRoot", "isLive", "isReady", "getMetrics"}
OPERATIONS = {
    operation["operationId"]: (method, path.replace("{id}", ID), operation)
    for path, methods in document()["paths"].items()
    for method, operation in methods.items()
}


def call(client, operation_id: str, **headers: str) -> Any:
    method, path, _ = OPERATIONS[operation_id]
    return client.generic(method, path, headers=headers)


def assert_problem(answer: Any, status: int, code: str, challenge: str | None = None) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer["Content-Type"] == "application/problem+json"
    assert answer.get("WWW-Authenticate") == challenge


@pytest.fixture
def required(settings) -> None:
    settings.REQUIRE_API_KEY = True


@pytest.fixture
def database_goes_away(monkeypatch) -> None:
    def away(_manager: object) -> None:
        raise OperationalError("nobody is there")

    monkeypatch.setattr(type(ApiKey.objects), "known", away)


@pytest.mark.usefixtures("required")
class TestWhereKeysAreRequired:
    @pytest.mark.parametrize("operation_id", OPERATIONS.keys() - OPEN)
    def test_each_operation_takes_one_with_its_scope(self, client, api_key, operation_id):
        scope = OPERATIONS[operation_id][2]["security"][1]["apiKey"][0]
        others = api_key(*(django_settings.API_SCOPES.keys() - {scope}))

        assert_problem(call(client, operation_id), 401, "api_key_required", "Bearer")
        assert_problem(
            call(client, operation_id, **others), 403, "insufficient_scope",
            f'Bearer error="insufficient_scope", scope="{scope}"',
        )  # fmt: skip
        assert call(client, operation_id, **api_key(scope)).status_code not in (401, 403)

    @pytest.mark.parametrize("operation_id", OPEN)
    def test_what_is_no_order_takes_none(self, client, operation_id):
        assert call(client, operation_id).status_code in (200, 503)

    def test_a_cached_list_is_not_for_everybody(self, client, api_key):
        address = f"/orders?productId={new_id()}"
        key = api_key(READ)
        for _ in range(2):
            assert client.get(address, headers=key).status_code == 200

        assert_problem(client.get(address), 401, "api_key_required", "Bearer")
        assert client.head(address).status_code == 401

    def test_a_person_is_told_so_on_a_page(self, client):
        answer = client.get("/orders", headers={"Accept": "text/html"})

        assert answer.status_code == 401
        assert "An API key is needed here" in answer.content.decode()

    def test_an_account_of_the_admin_is_no_key(self, admin_client):
        assert_problem(admin_client.get("/orders"), 401, "api_key_required", "Bearer")


class TestAKey:
    @pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER "])
    def test_lets_its_owner_in(self, client, api_key, scheme):
        key = api_key(READ)["Authorization"].removeprefix("Bearer")

        assert client.get("/orders", headers={"Authorization": scheme + key}).status_code == 200

    @pytest.mark.parametrize(
        "sent",
        ["Bearer", "Bearer ", "Bearer x", "Bearer shop_", f"Bearer {new_key()}", "bearer x, bearer",
         "Bearer \xff\xfe", f"Bearer {new_key()}\x00", "bearer " + "x" * 8000],
    )  # fmt: skip
    def test_is_checked_also_where_none_is_needed(self, client, sent):
        answer = client.get("/orders", headers={"Authorization": sent})

        assert_problem(answer, 401, "api_key_invalid", 'Bearer error="invalid_token"')

    @pytest.mark.parametrize("sent", ["Basic YTpi", "Digest x", "", "shop_1"])
    def test_is_none_of_another_kind(self, client, settings, sent):
        assert client.get("/orders", headers={"Authorization": sent}).status_code == 200
        settings.REQUIRE_API_KEY = True

        assert client.get("/orders", headers={"Authorization": sent}).status_code == 401

    @hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.text(st.characters(max_codepoint=255)) | st.from_regex("[Bb]earer shop_[0-9a-f_]*"))
    def test_is_refused_in_one_way_whatever_is_sent(self, client, sent):
        assert client.get("/orders", headers={"Authorization": sent}).status_code in (200, 401)

    def test_lets_nobody_in_when_it_is_revoked(self, client, api_key):
        revoked, other = api_key(READ), api_key(READ)
        ApiKey.objects.revoke(ApiKey.objects.earliest("id").id)
        access._known_keys._read_at = access._known_keys._tried_at = LONG_AGO

        assert client.get("/orders", headers=other).status_code == 200
        assert_problem(
            client.get("/orders", headers=revoked), 401, "api_key_invalid",
            'Bearer error="invalid_token"',
        )  # fmt: skip

    def test_is_stored_as_a_hash_alone(self, api_key):
        key = api_key(READ)["Authorization"].removeprefix("Bearer ")
        stored = str(ApiKey.objects.values().get())

        assert prefix_of(key) in stored
        assert key.rpartition("_")[2] not in stored

    def test_that_is_known_costs_no_query(self, client, api_key, django_assert_num_queries):
        address, key = f"/orders?productId={new_id()}", api_key(READ)
        for _ in range(2):
            client.get(address, headers=key)

        with django_assert_num_queries(0):
            assert client.get(address, headers=key).status_code == 200

    @pytest.mark.usefixtures("broker_with_queue")
    def test_that_is_known_goes_on_without_the_database(
        self, client, api_key, product_service, request
    ):
        key = api_key(PLACE)
        assert place(client, product_service.add(), **key).status_code == 201
        request.getfixturevalue("database_goes_away")
        access._known_keys._tried_at = LONG_AGO

        assert place(client, product_service.add(), **key).status_code == 201

    @pytest.mark.usefixtures("database_goes_away")
    def test_that_is_not_known_is_neither_good_nor_bad_without_it(self, client, api_key):
        answer = client.get("/orders", headers=api_key(READ))

        assert_problem(answer, 503, "temporarily_unavailable")
        assert answer["Retry-After"] == "1"

    def test_is_not_looked_for_without_one(self, client, database_goes_away):  # noqa: ARG002 - stops it
        assert client.get("/orders").status_code == 200


class TestARateLimit:
    def test_of_an_address_ends_in_a_429(self, client, rate_limits):
        rate_limits(address="3/hour")
        for _ in range(3):
            assert client.get("/orders").status_code == 200
        answer = client.get("/orders")

        assert_problem(answer, 429, "rate_limited")
        assert 1190 < int(answer["Retry-After"]) <= 1201
        assert client.get("/orders", REMOTE_ADDR="192.0.2.7").status_code == 200

    @pytest.mark.parametrize(
        ("first", "second", "is_one"),
        [
            ("2001:db8::1", "2001:db8::ffff:1", True),
            ("2001:db8::1", "2001:db8:0:1::1", False),
            ("::ffff:192.0.2.1", "192.0.2.1", True),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
            ("", "", True),
        ],
    )
    def test_counts_a_household_as_one_address(self, client, rate_limits, first, second, is_one):
        rate_limits(address="1/hour")
        client.get("/orders", REMOTE_ADDR=first)

        answer = client.get("/orders", REMOTE_ADDR=second)
        assert answer.status_code == (429 if is_one else 200)

    def test_of_keys_is_for_each_by_itself_and_for_no_address(self, client, api_key, rate_limits):
        rate_limits(key="2/hour", address="1/hour")
        keys = [api_key(READ), api_key(READ)]

        for key in keys:
            answers = [client.get("/orders", headers=key).status_code for _ in range(3)]
            assert answers == [200, 200, 429]
        assert [client.get("/orders").status_code for _ in range(2)] == [200, 429]

    def test_counts_what_is_no_key_for_its_address(self, client, rate_limits):
        rate_limits(key="100/hour", address="1/hour")
        guesses = [{"Authorization": f"Bearer {new_key()}"} for _ in range(2)]

        assert [client.get("/orders", headers=each).status_code for each in guesses] == [401, 429]

    def test_keeps_a_cached_list_too(self, client, rate_limits):
        address = f"/orders?productId={new_id()}"
        for _ in range(2):
            client.get(address)
        rate_limits(address="1/hour")

        assert [client.get(address).status_code for _ in range(2)] == [200, 429]

    def test_counts_a_request_once_when_nothing_is_cached(self, client, rate_limits):
        rate_limits(address="2/hour")
        answers = [client.get(f"/orders?productId={new_id()}").status_code for _ in range(3)]

        assert answers == [200, 200, 429]

    def test_leaves_alone_what_is_no_order(self, client, rate_limits):
        rate_limits(address="1/hour")

        for address in ("/", "/health/live", "/metrics", "/schema") * 2:
            assert client.get(address).status_code == 200

    def test_does_not_count_the_other_service(self, client, rate_limits):
        rate_limits(address="1/hour")
        for _ in range(3):
            assert client.get("/orders", headers=peer_headers()).status_code == 200

        forged = {name: "0" * len(value) for name, value in peer_headers().items()}
        answers = [client.get("/orders", headers=forged).status_code for _ in range(2)]
        assert answers == [200, 429]

    @pytest.mark.usefixtures("without_redis")
    def test_is_open_without_redis(self, client, rate_limits):
        rate_limits(address="1/hour")

        assert [client.get("/orders").status_code for _ in range(5)] == [200] * 5


@pytest.mark.usefixtures("broker_with_queue")
class TestAnIdempotencyKey:
    def test_belongs_to_its_api_key(self, client, api_key, product_service):
        product_id = product_service.add()
        callers = [api_key(PLACE), api_key(PLACE), {}]
        sent = [{"Idempotency-Key": str(product_id), **each} for each in callers]
        answers = [place(client, product_id, **each) for each in sent]

        assert {answer.status_code for answer in answers} == {201}
        assert Order.objects.count() == 3
        again = [place(client, product_id, **each) for each in sent]
        assert [each.content for each in again] == [each.content for each in answers]

    def test_without_one_makes_the_id_that_it_always_has(self, client, product_service):
        key = str(new_id())
        answer = place(client, product_service.add(), **{"Idempotency-Key": key})

        assert answer.json()["id"] == str(uuid5(UUID("f6024211-337f-5b03-821e-936422c476ae"), key))

    def test_cannot_be_said_to_be_another_ones(self, client, api_key, product_service):
        key = api_key(PLACE)
        prefix = re.search(r"shop_\w{12}", key["Authorization"])[0]
        answer = place(client, product_service.add(), **{"Idempotency-Key": f"{prefix} mine"})

        assert (answer.status_code, answer.json()["code"]) == (400, "malformed_idempotency_key")


def test_every_scope_that_can_be_chosen_is_asked_for_somewhere():
    closed = [OPERATIONS[name][2] for name in OPERATIONS.keys() - OPEN]
    asked = {each["security"][1]["apiKey"][0] for each in closed}

    assert asked == django_settings.API_SCOPES.keys()
