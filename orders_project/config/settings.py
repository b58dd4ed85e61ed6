"""The order service's Django settings."""

from servicekit import settings as common
from servicekit.backoffice import theme
from servicekit.http.openapi_settings import spectacular
from servicekit.settings import *  # noqa: F403 - what both services share, name by name, is there

SERVICE_NAME = "Order-Service"

INSTALLED_APPS = [*common.COMMON_APPS, "orders_project.orders"]
ROOT_URLCONF = "orders_project.config.urls"
WSGI_APPLICATION = "orders_project.config.wsgi.application"
DATABASES = {"default": common.database("ORDERS_DATABASE_URL")}
REST_FRAMEWORK = {
    **common.REST_FRAMEWORK,
    "EXCEPTION_HANDLER": "orders_project.orders.api.problems.handle",
}

# Where products are looked up: `GET {PRODUCT_API_URL}/{id}`.
PRODUCT_API_URL = common.env.str("PRODUCT_API_URL")
OTHER_SERVICE = common.other_service(
    "PRODUCT",
    "Product-Service",
    without="Orders are accepted meanwhile, at prices known from before.",
)

# Of the connections of a web process, this many may wait for orders to be final.
WAITING_REQUESTS_LIMIT = max(1, common.env.int("WEB_CONNECTIONS", default=1000) // 2)

SPECTACULAR_SETTINGS = spectacular(
    title=SERVICE_NAME,
    description="Accepts orders, loses none, and tells what became of each.",
    tags={"orders": "Orders, from accepted to final."},
    live="The process runs.",
    ready="Orders can be accepted: by way of the broker or of the database.",
)

# What an API key of this service can be for.
API_SCOPES = {
    "orders:place": "Place orders",
    "orders:read": "Read orders, whoever has placed them",
    "orders:cancel": "Cancel orders, whoever has placed them",
}

# Browsers keep cookies by host, whatever the port: the other service must not find these.
SESSION_COOKIE_NAME = "orders_session"
CSRF_COOKIE_NAME = "orders_csrf"

# The queues of the worker, whose length the admin shows, and what reads them.
WORKER_QUEUES = ["orders.persist", "order_stock_queue", "order_product_queue"]
WORKER_SOURCES = "orders_project.orders.subscriptions.SOURCES"
# Shows what came of a dead letter that was replayed.
RESULTS_OF_ORDER = "orders_project.orders.admin.orders.results"

UNFOLD = theme.unfold(
    title=SERVICE_NAME,
    subtitle="Orders and their progress",
    symbol="shopping_bag",
    palette=theme.INDIGO,
    dashboard="orders_project.orders.admin.dashboard.dashboard",
    sidebar="orders_project.orders.admin.sidebar.sidebar",
)
