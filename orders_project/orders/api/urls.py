"""The routes of the order service's HTTP API."""

from orders_project.orders.api.views import OrderViewSet
from servicekit.http import routes
from servicekit.http.root import ServiceRoot


class OrderService(ServiceRoot):
    """Accepts orders, loses none, and tells what became of each."""


router = routes.router(OrderService)
router.register("orders", OrderViewSet, basename="order")
urlpatterns = router.urls
