"""Where everything of the order service is."""

from django.contrib import admin
from django.urls import include, path, re_path
from django.views.generic import RedirectView

from orders_project.orders import product_service
from orders_project.orders.admin.unfinished import (
    ACCEPTED,
    PENDING,
    oldest_accepted,
    oldest_pending,
)
from servicekit.http import health, metrics_view, problems
from servicekit.overview.system import System

admin.site.site_header = admin.site.site_title = "Order-Service"
admin.site.index_title = "Orders"

system = System({PENDING: oldest_pending, ACCEPTED: oldest_accepted})

urlpatterns = [
    path("", include("orders_project.orders.api.urls")),
    path("", include("servicekit.http.documentation")),
    path("admin/system/", system.page, name="system"),
    path("admin/", admin.site.urls),
    path("admin", RedirectView.as_view(url="/admin/")),
    path("metrics", metrics_view.metrics),
    path("health/live", health.live),
    path(
        "health/ready",
        health.ready(
            {
                "database": health.database_is_up,
                "broker": health.broker_is_up,
                "redis": health.redis_is_up,
                "product-service": product_service.is_up,
            },
            # Orders are accepted while the database or the broker takes them: either is enough.
            works_with=lambda up: bool(up & {"database", "broker"}),
            details=system.look,
        ),
    ),
    # Not `handler404`: with DEBUG on, Django would answer its own HTML page instead.
    re_path(r"", problems.route_not_found),
]

handler400 = problems.bad_request
handler403 = problems.permission_denied
handler500 = problems.server_error
