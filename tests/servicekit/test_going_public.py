"""What changes when others than this machine's users can reach the services."""

import json
import os
import subprocess
import sys
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client

from deploy.settings import ROOT
from servicekit import settings
from servicekit.backoffice import login
from servicekit.caching.redis import best_effort

GOOD = "correct horse battery"


@pytest.mark.django_db
class TestPrepare:
    @pytest.fixture
    def prepare(self, monkeypatch, settings):
        def run(address: str, password: str, public_url: str = "", **changed: object) -> None:
            for name, value in {"PUBLIC_URL": public_url, "DEBUG": False, **changed}.items():
                setattr(settings, name, value)
            monkeypatch.setenv("BIND_ADDRESS", address)
            monkeypatch.setenv("ADMIN_USERNAME", "boss")
            monkeypatch.setenv("ADMIN_PASSWORD", password)
            call_command("prepare")

        return run

    @pytest.mark.parametrize("address", ["", "127.0.0.1", "127.1.2.3", "::1", "localhost"])
    def test_takes_the_default_password_on_this_machine(self, prepare, address):
        prepare(address, "admin")

        assert User.objects.get(username="boss").check_password("admin")

    @pytest.mark.parametrize(
        ("address", "public_url"),
        [("0.0.0.0", ""), ("::", ""), ("192.0.2.1", ""), ("127.0.0.1", "https://shop.example")],
    )
    @pytest.mark.parametrize("password", ["admin", "password1234", "830571964725", "short"])
    def test_refuses_one_that_can_be_guessed_where_others_are_let_in(
        self, prepare, address, public_url, password
    ):
        with pytest.raises(CommandError, match=r"ADMIN_PASSWORD.*can be guessed.*in \.env"):
            prepare(address, password, public_url)

        assert not User.objects.filter(username="boss").exists()

    def test_refuses_the_account_of_before_until_there_is_another_password(self, prepare):
        prepare("127.0.0.1", "admin")

        with pytest.raises(CommandError, match="ADMIN_PASSWORD"):
            prepare("0.0.0.0", "admin")
        prepare("0.0.0.0", GOOD)

        assert User.objects.get(username="boss").check_password(GOOD)

    def test_leaves_a_password_alone_that_was_changed_in_the_admin(self, prepare):
        User.objects.create_superuser("boss", password=GOOD)

        prepare("0.0.0.0", "admin")

        assert User.objects.get(username="boss").check_password(GOOD)

    @pytest.mark.parametrize(
        "changed", [{"SECRET_KEY": "secret"}, {"SECRET_KEY": f"django-insecure-{uuid4()}"},
                    {"DEBUG": True}],
    )  # fmt: skip
    def test_refuses_settings_that_give_the_service_away(self, prepare, changed):
        with pytest.raises(CommandError, match=next(iter(changed))):
            prepare("0.0.0.0", GOOD, **changed)


@pytest.mark.django_db
class TestLoggingIn:
    @pytest.fixture(autouse=True)
    def boss(self, settings) -> None:
        settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
        User.objects.create_superuser("boss", password=GOOD)

    @pytest.fixture
    def log_in(self):
        here = f"2001:db8:{uuid4().hex[:4]}:{uuid4().hex[:4]}::1"
        made: set[str] = set()

        def post(password: str = "wrong", username: str = "boss", address: str = here):
            made.add(address)
            return Client(REMOTE_ADDR=address).post(
                "/admin/login/", {"username": username, "password": password}
            )

        yield post
        for address in made:
            best_effort(lambda client, a=address: client.unlink(*client.keys(f"login:{a[:15]}*")))

    @pytest.mark.parametrize("from_where", [{}, {"address": ""}], ids=["an address", "a socket"])
    def test_is_refused_for_some_minutes_after_ten_failures(self, log_in, from_where):
        failures = [log_in(**from_where).status_code for _ in range(login.ATTEMPTS_PER_NAME)]

        refused = log_in(GOOD, **from_where)

        assert failures == [200] * login.ATTEMPTS_PER_NAME
        assert refused.status_code == 429
        assert 0 < int(refused.headers["Retry-After"]) <= login.WINDOW_SECONDS
        assert b"too many attempts to log in. Try again in" in refused.content
        assert not refused.wsgi_request.user.is_authenticated

    def test_of_others_goes_on(self, log_in):
        for _ in range(login.ATTEMPTS_PER_NAME + 1):
            log_in()

        assert log_in(GOOD, address="192.0.2.7").status_code == 302
        assert log_in(username="somebody").status_code == 200

    def test_that_succeeds_forgets_the_failures(self, log_in):
        for _ in range(2):
            for _ in range(login.ATTEMPTS_PER_NAME - 1):
                log_in()
            assert log_in(GOOD).status_code == 302

    def test_is_refused_to_an_address_that_tries_one_name_after_the_other(
        self, log_in, monkeypatch
    ):
        monkeypatch.setattr(login, "ATTEMPTS_PER_ADDRESS", 3)
        # An IPv6 address is one of a network that somebody has.
        answers = [log_in(username=f"u{n}", address=f"2001:db8:77:1::{n}") for n in range(4)]

        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]

    @pytest.mark.usefixtures("without_redis")
    def test_is_open_without_redis(self, log_in):
        for _ in range(login.ATTEMPTS_PER_NAME + 1):
            log_in()

        assert log_in(GOOD).status_code == 302


def settings_with(**environment: str) -> subprocess.CompletedProcess[str]:
    names = [
        "SECURE_HSTS_SECONDS", "SECURE_HSTS_INCLUDE_SUBDOMAINS", "SECURE_HSTS_PRELOAD",
        "SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SECURE_SSL_REDIRECT",
    ]  # fmt: skip
    script = (
        "import json; from django.conf import settings\n"
        f"print(json.dumps([getattr(settings, name) for name in {names}]))"
    )
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


class TestThePublicAddress:
    @pytest.mark.parametrize(
        ("environment", "expected"),
        [
            ({}, [0, False, False, False, False, False]),
            ({"PUBLIC_URL": "http://shop.example:3001"}, [0, False, False, False, False, False]),
            ({"PUBLIC_URL": "https://shop.example/"}, [2592000, False, False, True, True, True]),
            (
                {"PUBLIC_URL": "https://a.b", "HSTS": "max-age=9; includeSubDomains; preload"},
                [9, True, True, True, True, True],
            ),
        ],
    )
    def test_turns_on_what_https_takes(self, environment, expected):
        assert json.loads(settings_with(**environment).stdout) == expected

    @pytest.mark.parametrize(
        ("ours", "theirs", "found"),
        [
            ("", "", ("", "3002")),
            ("https://a.b", "", ("", "")),
            ("https://a.b", "https://c.d/", ("https://c.d", "")),
            ("", "https://c.d", ("https://c.d", "3002")),
        ],
    )
    def test_decides_where_the_other_admin_is(self, monkeypatch, ours, theirs, found):
        monkeypatch.setattr(settings, "PUBLIC_URL", ours)
        monkeypatch.setenv("ORDER_PUBLIC_URL", theirs)
        monkeypatch.setenv("ORDER_PORT", "3002")

        other = settings.other_service("ORDER", "it", without="")
        assert (other["public"], other["port"]) == found

    @pytest.mark.parametrize("url", ["shop.example", "https://shop.example/orders", "ftp://a.b"])
    def test_is_refused_where_it_cannot_be_one(self, url):
        assert (
            "PUBLIC_URL must be like https://shop.example" in settings_with(PUBLIC_URL=url).stderr
        )
