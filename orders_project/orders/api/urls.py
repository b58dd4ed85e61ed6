"""The routes of the order service's HTTP API."""

from rest_framework.routers import APIRootView

from orders_project.orders.api.views import OrderViewSet
from servicekit.http import routes


class OrderService(APIRootView):
    """Accepts orders, loses none, and tells what became of each."""


router = routes.router(OrderService)
router.register("orders", OrderViewSet, basename="order")
urlpatterns = router.urls
