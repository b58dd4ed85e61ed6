"""The product service's Django settings."""

from servicekit import settings as common
from servicekit.backoffice import theme
from servicekit.http.openapi_settings import spectacular
from servicekit.settings import *  # noqa: F403 - what both services share, name by name, is there

SERVICE_NAME = "Product-Service"

INSTALLED_APPS = [*common.COMMON_APPS, "products_project.products"]
ROOT_URLCONF = "products_project.config.urls"
WSGI_APPLICATION = "products_project.config.wsgi.application"
DATABASES = {"default": common.database("PRODUCTS_DATABASE_URL")}
REST_FRAMEWORK = {
    **common.REST_FRAMEWORK,
    "EXCEPTION_HANDLER": "products_project.products.api.problems.handle",
}

OTHER_SERVICE = common.other_service(
    "ORDER", "Order-Service", without="No order is accepted meanwhile."
)

SPECTACULAR_SETTINGS = spectacular(
    title=SERVICE_NAME,
    description="Creates products, keeps their stock, and gives each order its units or"
    " refuses it.",
    tags={"products": "Products, with their price and their stock."},
    live="The process runs.",
    ready="The database answers.",
)

# What an API key of this service can be for.
API_SCOPES = {
    "products:write": "Create, change and archive products, and move their stock",
    "stock:read": "Read the stock movements: what was sold, and when",
}

# Browsers keep cookies by host, whatever the port: the other service must not find these.
SESSION_COOKIE_NAME = "products_session"
CSRF_COOKIE_NAME = "products_csrf"

# The queues of the worker, whose length the admin shows, and what reads them.
WORKER_QUEUES = ["product_order_queue", "product_cancellation_queue"]
WORKER_SOURCES = "products_project.products.subscriptions.SOURCES"
# Shows what came of a dead letter that was replayed.
RESULTS_OF_ORDER = "products_project.products.admin.ledgers.results"

UNFOLD = theme.unfold(
    title=SERVICE_NAME,
    subtitle="Products and their stock",
    symbol="inventory_2",
    palette=theme.TEAL,
    dashboard="products_project.products.admin.dashboard.dashboard",
    sidebar="products_project.products.admin.sidebar.sidebar",
)
