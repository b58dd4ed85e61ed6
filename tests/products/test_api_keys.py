"""API keys of the product service: made and revoked in its admin, and asked for by its API."""

import re

import pytest
from django.conf import settings as django_settings
from django.contrib.admin.models import LogEntry
from django.urls import reverse

from products_project.products.models import StockMovement
from servicekit.access import services
from servicekit.access.known import digest_of
from servicekit.access.models import ApiKey
from tests.servicekit.api_document import document, operations

# As requests come: with no transaction around them.
pytestmark = pytest.mark.django_db(transaction=True)

LIST, ADD = "admin:access_apikey_changelist", "admin:access_apikey_add"
PAGE, REVOKE = "admin:access_apikey_change", "admin:access_apikey_revoke"
WRITE = "products:write"


def make() -> ApiKey:
    return services.make_key(name="a partner", scopes=[WRITE])[0]


def page(key: ApiKey, name: str = PAGE) -> str:
    return reverse(name, args=[key.pk])


class TestWhereKeysAreRequired:
    def test_products_are_read_without_one_and_written_with_one(
        self, client, settings, api_key, lamp
    ):
        settings.REQUIRE_API_KEY = True
        address = f"/products/{lamp.id}"
        change = {"data": {"price": 5}, "content_type": "application/json"}

        assert client.get("/products").status_code == client.get(address).status_code == 200
        assert client.patch(address, **change).status_code == 401
        assert client.get(f"{address}/stock-movements").status_code == 401
        assert client.get(f"{address}/stock-movements", headers=api_key(WRITE)).status_code == 403
        assert client.patch(address, **change, headers=api_key(WRITE)).json()["price"] == 5

    def test_only_reading_products_takes_none(self):
        free = {each["operationId"] for each in operations(document()) if "security" not in each}

        open_to_all = {"getRoot", "isLive", "isReady", "getMetrics"}
        assert free == {*open_to_all, "listProducts", "getProduct"}


class TestAnIdempotencyKey:
    def test_belongs_to_its_api_key(self, client, api_key, lamp):
        callers = [api_key(WRITE), api_key(WRITE), {}] * 2
        for each in callers:
            answer = client.post(
                f"/products/{lamp.id}/stock-movements", {"delta": 1, "reason": "restock"},
                content_type="application/json", headers={"Idempotency-Key": "k" * 255, **each},
            )  # fmt: skip
            assert answer.status_code == 201

        assert StockMovement.objects.filter(reason="restock").count() == 3


class TestTheAdmin:
    def test_makes_a_key_and_shows_it_once(self, admin_client):
        answer = admin_client.post(reverse(ADD), {"name": "a partner", "scopes": [WRITE]})
        shown = re.search(r"shop_[0-9a-f]{12}_[\w-]{43}", answer.content.decode())[0]
        key = ApiKey.objects.get()

        assert (key.name, key.scopes, bytes(key.digest)) == ("a partner", [WRITE], digest_of(shown))
        assert "no-store" in answer["Cache-Control"]
        assert LogEntry.objects.get().object_id == str(key.pk)
        for address in (reverse(LIST), page(key)):
            content = admin_client.get(address).content.decode()
            assert key.prefix in content
            assert shown not in content

    @pytest.mark.parametrize(
        "sent",
        [{"name": "", "scopes": [WRITE]}, {"name": "x"}, {"name": "x", "scopes": ["orders:read"]}],
    )  # fmt: skip
    def test_makes_none_without_a_name_and_scopes_of_this_service(self, admin_client, sent):
        assert "errors" in admin_client.post(reverse(ADD), sent).content.decode()
        assert not ApiKey.objects.exists()

    def test_offers_every_scope_with_what_it_is_for(self, admin_client):
        content = admin_client.get(reverse(ADD)).content.decode()

        for scope, text in django_settings.API_SCOPES.items():
            assert f"{scope}: {text}" in content

    def test_revokes_a_key_once(self, admin_client):
        key = make()
        assert page(key, REVOKE) in admin_client.get(page(key)).content.decode()
        admin_client.post(page(key, REVOKE), {"confirmed": "1"})
        revoked_at = ApiKey.objects.get().revoked_at
        admin_client.post(page(key, REVOKE), {"confirmed": "1"})

        assert revoked_at is not None
        assert ApiKey.objects.get().revoked_at == revoked_at
        assert LogEntry.objects.get().change_message == "Revoked."
        assert page(key, REVOKE) not in admin_client.get(page(key)).content.decode()

    def test_neither_changes_nor_deletes_one(self, admin_client):
        key = make()
        admin_client.post(page(key), {"name": "other", "scopes": [WRITE]})
        admin_client.post(page(key, "admin:access_apikey_delete"), {"post": "yes"})

        assert ApiKey.objects.get().name == "a partner"

    def test_is_for_those_alone_who_may(self, staff):
        key, client = make(), staff()
        for address in (reverse(LIST), reverse(ADD), page(key), page(key, REVOKE)):
            assert client.post(address, {"confirmed": "1"}).status_code == 403

        assert ApiKey.objects.get().revoked_at is None
