"""The Django settings that both services have in common, each imported by both `config.settings`.

Values come from environment variables, which `.env.example` lists (`servicekit.environment`). What
has no right value everywhere has no default: the process does not start, and names the variable.
"""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import django_stubs_ext
import environ
from django.conf import global_settings
from django.core.exceptions import ImproperlyConfigured
from redis.backoff import NoBackoff
from redis.retry import Retry

from servicekit import logs

# Before anything of Django is subclassed: `ModelAdmin[Product]` is no syntax of Django's own.
django_stubs_ext.monkeypatch()

env = environ.Env()

DEBUG = env.bool("DEBUG", default=False)
SECRET_KEY = env.str("SECRET_KEY")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

# Where clients find this service, `https://shop.example`; empty: wherever a request came to.
PUBLIC_URL = env.str("PUBLIC_URL", default="").rstrip("/")
_public = urlsplit(PUBLIC_URL)
if PUBLIC_URL:
    if _public.scheme not in ("http", "https") or _public.path or _public.query:
        raise ImproperlyConfigured(f"PUBLIC_URL must be like https://shop.example: {PUBLIC_URL!r}")
    ALLOWED_HOSTS = [*ALLOWED_HOSTS, _public.hostname]
    CSRF_TRUSTED_ORIGINS = [*CSRF_TRUSTED_ORIGINS, PUBLIC_URL]
if _public.scheme == "https":
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
    # Whoever writes this header himself deceives nobody but himself: all that it decides is
    # whether he is led to https.
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    # Of pages only, as all of `MIDDLEWARE`: services and probes call each other by plain HTTP.
    SECURE_SSL_REDIRECT = True
    SECURE_SSL_HOST = _public.netloc
    SECURE_REDIRECT_EXEMPT = ["^health/", "^metrics$"]
    # As the header says it (RFC 6797): `max-age=31536000; includeSubDomains; preload`.
    _hsts = env.str("HSTS", default="") or "max-age=2592000"
    _directives = dict(each.strip().lower().partition("=")[::2] for each in _hsts.split(";"))
    SECURE_HSTS_SECONDS = int(_directives.get("max-age", 0))
    SECURE_HSTS_INCLUDE_SUBDOMAINS = "includesubdomains" in _directives
    SECURE_HSTS_PRELOAD = "preload" in _directives
    # Whether all other hosts of the domain have https, too, only the owner of the domain knows.
    SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-us"
USE_I18N = False
FORMAT_MODULE_PATH = "servicekit.backoffice"
APPEND_SLASH = False

# A body is an order or a product, never more than this: 64 KiB.
MAX_BODY_BYTES = 64 * 1024
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_BODY_BYTES

STATIC_URL = "static/"
# The image has them collected, by names that hold their hash, and compressed. Elsewhere they are
# found where the packages have them: nothing has to be collected before a first start.
_collected = Path(__file__).resolve().parent.parent / "static"
STATIC_ROOT = _collected if _collected.is_dir() else None
WHITENOISE_USE_FINDERS = STATIC_ROOT is None
WHITENOISE_AUTOREFRESH = False
STORAGES = dict(global_settings.STORAGES)
if STATIC_ROOT:
    STORAGES["staticfiles"] = {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"}

COMMON_APPS = [
    # Before unfold, whose templates it replaces.
    "servicekit.backoffice",
    # Without a site of its own: ours is `SiteConfig`.
    "unfold.apps.BasicAppConfig",
    "unfold.contrib.filters",
    "unfold.contrib.import_export",
    "import_export",
    "servicekit.backoffice.site.SiteConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    # Before `rest_framework`: its page has the name of the service.
    "servicekit.http",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "servicekit.outbox",
    "servicekit.dead_letters",
    "servicekit.access",
    "servicekit.operations",
]

# What a program's request passes (`servicekit.http.handler`); a page passes all of `MIDDLEWARE`.
API_MIDDLEWARE = [
    # First: whatever answers, and whatever is logged meanwhile, has the ids of its request.
    "servicekit.http.request_id.RequestId",
    "servicekit.http.measuring.Measuring",
]
MIDDLEWARE = [
    *API_MIDDLEWARE,
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

CSRF_FAILURE_VIEW = "servicekit.http.problems.csrf_failure"

# Who logs in without having wanted to go anywhere.
LOGIN_REDIRECT_URL = "/admin/"

AUTH_PASSWORD_VALIDATORS: list[dict[str, Any]] = [
    {"NAME": f"django.contrib.auth.password_validation.{name}", "OPTIONS": options}
    for name, options in {
        "UserAttributeSimilarityValidator": {},
        "MinimumLengthValidator": {"min_length": 12},
        "CommonPasswordValidator": {},
        "NumericPasswordValidator": {},
    }.items()
]
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_PARSER_CLASSES": ["servicekit.http.json.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": [
        "servicekit.http.json.JSONRenderer",
        "servicekit.http.browsable.BrowsableRenderer",
    ],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "servicekit.http.negotiation.ContentNegotiation",
    "DEFAULT_SCHEMA_CLASS": "servicekit.http.openapi.AutoSchema",
    # The API knows no accounts: a cookie of the admin says nothing here.
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "UNAUTHENTICATED_USER": None,
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.AllowAny"],
}

# Whether everything but reading products takes an API key; and how often one caller may call:
# `600/minute`, empty for as often as it likes.
REQUIRE_API_KEY = env.bool("REQUIRE_API_KEY", default=False)
RATE_LIMIT_PER_KEY = env.str("RATE_LIMIT_PER_KEY", default="")
RATE_LIMIT_PER_ADDRESS = env.str("RATE_LIMIT_PER_ADDRESS", default="")

# How the admin shows amounts, which are integers of the smallest unit everywhere else.
CURRENCY = env.str("CURRENCY", default="") or "EUR"
CURRENCY_DIGITS = int(env.str("CURRENCY_DIGITS", default="") or 2)

BROKER_URL = env.str("BROKER_URL", default="")
# Whether the workers answer `celery inspect`, and tell how they are (Flower).
CELERY_REMOTE_CONTROL = env.bool("CELERY_REMOTE_CONTROL", default=True)

# A stage starts a batch at most this often, in seconds, and at once after a pause. A longer pace
# makes larger batches under load: less CPU per order, and more milliseconds until it is final.
INTAKE_PACE_SECONDS = env.float("INTAKE_PACE_SECONDS", default=0.01)
WORKER_PACE_SECONDS = env.float("WORKER_PACE_SECONDS", default=0.05)
# How many dead letters a worker sends again per second, at most.
REPLAYS_PER_SECOND = max(1, env.int("REPLAYS_PER_SECOND", default=50))
# How long a web process sells at a price that it has read, before it looks at its copy again.
PRICE_MEMORY_SECONDS = env.float("PRICE_MEMORY_SECONDS", default=0.25)
# How long ago a price was true for sure at most, that memory included, before the product service
# is asked; and how long ago while it does not answer. Then no order is accepted.
PRICE_MAX_AGE_SECONDS = env.float("PRICE_MAX_AGE_SECONDS", default=10)
PRICE_MAX_AGE_WITHOUT_SOURCE_SECONDS = env.float(
    "PRICE_MAX_AGE_WITHOUT_SOURCE_SECONDS", default=3600
)

# Redis is never waited for: this is what one call may cost when it does not answer.
_REDIS_TIMEOUT_SECONDS = 0.15
CACHES = {
    "default": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": env.str("CACHE_URL"),
        "OPTIONS": {
            "SERIALIZER": "django_redis.serializers.json.JSONSerializer",
            "SOCKET_TIMEOUT": _REDIS_TIMEOUT_SECONDS,
            "SOCKET_CONNECT_TIMEOUT": _REDIS_TIMEOUT_SECONDS,
            "CONNECTION_POOL_KWARGS": {
                "max_connections": 256,
                # redis-py would try ten times; our callers have another way.
                "retry": Retry(NoBackoff(), 0),
                "protocol": 2,
            },
        },
    }
}


def other_service(prefix: str, name: str, *, without: str) -> dict[str, str]:
    """Return where the other service is: for us `api`, for browsers `public`, or else `port`.

    Without a public address, it is on the host that the browser has asked, unless we have one.
    `without` says how things go on without it.
    """
    return {
        "name": name,
        "without": without,
        "api": env.str(f"{prefix}_API_URL", default=""),
        "public": env.str(f"{prefix}_PUBLIC_URL", default="").rstrip("/"),
        "port": "" if PUBLIC_URL else env.str(f"{prefix}_PORT", default=""),
    }


def database(url_variable: str) -> dict[str, Any]:
    """Return Django's `DATABASES["default"]` for the URL in an environment variable.

    A process with a pool (`DATABASE_POOL_SIZE` above 0: the web processes, whose threads come and
    go) shares that many connections; the threads of one without keep a connection each.
    """
    pool_size = env.int("DATABASE_POOL_SIZE", default=8)
    statement_timeout_ms = env.int("DATABASE_STATEMENT_TIMEOUT_MS", default=1200)
    settings: dict[str, Any] = env.db_url(url_variable)
    settings["ENGINE"] = "servicekit.database"
    settings["ATOMIC_REQUESTS"] = False
    settings["CONN_HEALTH_CHECKS"] = pool_size > 0
    settings["CONN_MAX_AGE"] = 0 if pool_size else None
    settings["OPTIONS"] = {
        "connect_timeout": 2,
        # Of our own backend: a server that can speak has said no before.
        "answer_seconds": statement_timeout_ms / 1000 + 2,
        "options": f"-c statement_timeout={statement_timeout_ms}"
        f" -c lock_timeout={statement_timeout_ms}"
        f" -c idle_in_transaction_session_timeout=60000",
    }
    if pool_size:
        settings["OPTIONS"]["pool"] = {
            "min_size": 1,
            "max_size": pool_size,
            # A request waits this long for a connection, then says 503.
            "timeout": 1.0,
            # Give up on a dead server soon: the next request starts a new attempt at once, where
            # the pool's own pauses would grow to minutes.
            "reconnect_timeout": 1.0,
        }
    return settings


LOGGING = logs.configuration(
    level=env.str("LOG_LEVEL", default="INFO"),
    log_format=env.str("LOG_FORMAT", default="") or "text",
)
