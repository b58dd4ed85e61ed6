"""The order service's HTTP API."""

from uuid import UUID

import msgspec
from rest_framework import status
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from orders_project.orders import cache, intake, selectors
from orders_project.orders.api import documentation, serializers
from orders_project.orders.models import Order
from orders_project.orders.representation import OrderDetail
from servicekit.caching.generational import RenderedPage
from servicekit.http.fields import StrictUUIDField
from servicekit.http.json import Rendered
from servicekit.http.pages import PageRequest, cursor_after, link_header
from servicekit.http.routes import UUID_PATTERN


class OrderViewSet(GenericViewSet[Order]):
    """Orders, from accepted to final.

    A new order is PENDING. Moments later its stock is decided, and it is CONFIRMED or REJECTED.
    Every order is announced on RabbitMQ as `order.created`, on the exchange `order.exchange`.
    """

    queryset = Order.objects.all()
    serializer_class = serializers.NewOrder
    lookup_value_regex = UUID_PATTERN

    @documentation.list_orders
    def list(self, request: Request) -> Response:
        """Orders of a product, newest first: `productId`; `limit`, `cursor`, `status` if wanted."""
        product_id = self._product_id(request)
        wanted_status = self._status(request)
        page_request = PageRequest.of(request.query_params)

        def render() -> RenderedPage:
            page = selectors.orders_page(
                product_id=product_id,
                status=wanted_status,
                limit=page_request.limit,
                after=page_request.after,
            )
            body = msgspec.json.encode([OrderDetail.of(order) for order in page.orders])
            return RenderedPage(body, cursor_after(page.orders[-1].id) if page.has_more else "")

        is_cached = page_request.is_first and wanted_status is None
        page = cache.first_page(product_id, render) if is_cached else render()

        return Response(Rendered(page.body), headers=link_header(request, page.next_cursor))

    @documentation.place_order
    def create(self, request: Request) -> Response:
        """Accept an order. It is final moments later, under the id we return."""
        body = serializers.NewOrder(data=request.data)
        body.is_valid(raise_exception=True)

        order = intake.accept(**body.validated_data)

        return Response(
            OrderDetail.of(order),
            status=status.HTTP_201_CREATED,
            headers={"Location": self.reverse_action("detail", [order.id])},
        )

    @documentation.get_order
    def retrieve(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Return one order; one that was just accepted is found at once."""
        order = selectors.get_rendered_order(UUID(pk))

        return Response(Rendered(order))

    @staticmethod
    def _product_id(request: Request) -> UUID:
        if "productId" not in request.query_params:
            raise ValidationError({"productId": ["This parameter is required."]})
        try:
            return StrictUUIDField().to_internal_value(request.query_params["productId"])
        except ValidationError as error:
            raise ValidationError({"productId": error.detail}) from error

    @staticmethod
    def _status(request: Request) -> str | None:
        wanted = request.query_params.get("status")
        if wanted is not None and wanted not in Order.Status.values:
            raise ValidationError({"status": [f"Must be one of {', '.join(Order.Status.values)}."]})
        return wanted
