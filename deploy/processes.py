"""The processes of the system, one list.

The native stack runs this list; `docker-compose.yml` has to repeat it, and
`deploy.check_compose` compares the two, so that they cannot drift apart.
All commands run in the repository root, with the virtual environment on PATH.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

_DJANGO = (
    "SECRET_KEY",
    "DEBUG",
    "ALLOWED_HOSTS",
    "CSRF_TRUSTED_ORIGINS",
    "LOG_FORMAT",
    "LOG_LEVEL",
    "CACHE_URL",
    "FAILPOINTS",
)
_TRACES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SERVICE_NAME")
_WEB = (
    "PUBLIC_URL",
    "HSTS",
    "FORWARDED_ALLOW_IPS",
    "WEB_WORKERS",
    "WEB_CONNECTIONS",
    "DATABASE_POOL_SIZE",
    "DATABASE_STATEMENT_TIMEOUT_MS",
    "PROMETHEUS_MULTIPROC_DIR",
    "REQUIRE_API_KEY",
    "RATE_LIMIT_PER_KEY",
    "RATE_LIMIT_PER_ADDRESS",
    *_TRACES,
)
_ADMIN = ("ADMIN_USERNAME", "ADMIN_PASSWORD", "BIND_ADDRESS", "PUBLIC_URL")
_WORKER = (
    "BROKER_URL",
    "CELERY_REMOTE_CONTROL",
    "WORKER_ALIVE_FILE",
    "WORKER_METRICS_ADDRESS",
    "WORKER_METRICS_PORT",
    "WORKER_PACE_SECONDS",
    *_TRACES,
)
_PRODUCTS = ("PRODUCTS_DATABASE_URL",)
_ORDERS = ("ORDERS_DATABASE_URL", "PRODUCT_API_URL")
_INTAKE = (
    "INTAKE_PACE_SECONDS",
    "PRICE_MAX_AGE_SECONDS",
    "PRICE_MAX_AGE_WITHOUT_SOURCE_SECONDS",
    "PRICE_MEMORY_SECONDS",
)

# What the processes of a service know under a name of its own, by which the installation has it.
_OF_PRODUCTS = {
    "PUBLIC_URL": "PRODUCT_PUBLIC_URL",
    "BROKER_URL": "PRODUCTS_BROKER_URL",
    "PRODUCTS_DATABASE_URL": "PRODUCTS_RUNTIME_DATABASE_URL",
}
_OF_ORDERS = {
    "PUBLIC_URL": "ORDER_PUBLIC_URL",
    "BROKER_URL": "ORDERS_BROKER_URL",
    "ORDERS_DATABASE_URL": "ORDERS_RUNTIME_DATABASE_URL",
}


@dataclass(frozen=True, kw_only=True)
class Process:
    """One kind of process: how it is started, and the only variables it may see."""

    name: str
    command: tuple[str, ...]
    environment: tuple[str, ...]
    #: By the name of a variable in this process, its name in `.env`, where they differ.
    names: Mapping[str, str] = field(default_factory=dict)
    #: Where this process differs from the defaults of the installation.
    defaults: Mapping[str, str] = field(default_factory=dict)
    #: The port it listens on in a container; natively the installation chooses.
    port: int | None = None

    def command_line(self, bind: str = "") -> list[str]:
        """Return the command, listening on `bind` (`address:port`) if it listens at all."""
        return [part.replace("{bind}", bind) for part in self.command]


def _gunicorn(project: str) -> tuple[str, ...]:
    return (
        "gunicorn",
        "--config",
        "deploy/gunicorn.conf.py",
        "--bind",
        "{bind}",
        f"{project}.config.wsgi:application",
    )


def _celery(worker: str) -> tuple[str, ...]:
    return ("celery", "--app", f"celery_workers.{worker}", "worker")


#: Run to completion, in any order, before the services start.
ONE_SHOTS = (
    Process(
        name="products-prepare",
        command=("python", "products_project/manage.py", "prepare"),
        environment=(*_DJANGO, *_PRODUCTS, *_ADMIN),
        names={"PUBLIC_URL": "PRODUCT_PUBLIC_URL"},
    ),
    Process(
        name="orders-prepare",
        command=("python", "orders_project/manage.py", "prepare"),
        environment=(*_DJANGO, *_ORDERS, *_ADMIN),
        names={"PUBLIC_URL": "ORDER_PUBLIC_URL"},
    ),
    Process(
        name="broker-prepare",
        command=("python", "-m", "deploy.broker"),
        environment=(
            "RABBITMQ_MANAGEMENT_URL",
            "QUEUE_TYPE",
            "PRODUCTS_BROKER_URL",
            "ORDERS_BROKER_URL",
        ),
    ),
)

SERVICES = (
    Process(
        name="product-service",
        command=_gunicorn("products_project"),
        # The broker for the admin alone, which shows how long its queues are.
        environment=(*_DJANGO, *_PRODUCTS, "BROKER_URL", *_WEB),
        names=_OF_PRODUCTS,
        defaults={"OTEL_SERVICE_NAME": "product-service"},
        port=3001,
    ),
    Process(
        name="order-service",
        command=_gunicorn("orders_project"),
        environment=(*_DJANGO, *_ORDERS, "BROKER_URL", *_INTAKE, *_WEB),
        names=_OF_ORDERS,
        defaults={"OTEL_SERVICE_NAME": "order-service"},
        port=3002,
    ),
    Process(
        name="products-worker",
        command=_celery("products"),
        environment=(*_DJANGO, *_PRODUCTS, *_WORKER),
        names=_OF_PRODUCTS,
        defaults={"OTEL_SERVICE_NAME": "products-worker"},
    ),
    Process(
        name="orders-worker",
        command=_celery("orders"),
        environment=(*_DJANGO, *_ORDERS, *_WORKER),
        names=_OF_ORDERS,
        defaults={"OTEL_SERVICE_NAME": "orders-worker"},
    ),
)
