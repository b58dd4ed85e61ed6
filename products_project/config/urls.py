"""Where everything of the product service is."""

from django.contrib import admin
from django.urls import include, path, re_path
from django.views.generic import RedirectView

from servicekit.http import health, metrics_view, problems
from servicekit.overview.system import System

admin.site.site_header = admin.site.site_title = "Product-Service"
admin.site.index_title = "Products and stock"

system = System()

urlpatterns = [
    path("", include("products_project.products.api.urls")),
    path("", include("servicekit.http.documentation")),
    path("admin/system/", system.page, name="system"),
    path("admin/", admin.site.urls),
    path("admin", RedirectView.as_view(url="/admin/")),
    path("metrics", metrics_view.metrics),
    path("health/live", health.live),
    path(
        "health/ready",
        health.ready(
            {"database": health.database_is_up, "redis": health.redis_is_up},
            works_with=lambda up: "database" in up,
            details=system.look,
        ),
    ),
    # Not `handler404`: with DEBUG on, Django would answer its own HTML page instead.
    re_path(r"", problems.route_not_found),
]

handler400 = problems.bad_request
handler403 = problems.permission_denied
handler500 = problems.server_error
