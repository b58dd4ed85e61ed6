"""The order service's HTTP API."""

import re
from typing import Any
from uuid import UUID

import msgspec
from django.http import HttpRequest, HttpResponse
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from orders_project.orders import cache, long_polling, selectors, services
from orders_project.orders.api import documentation, serializers
from orders_project.orders.api.waiting import MAX_WAIT_SECONDS, preferred_wait
from orders_project.orders.generational_cache import RenderedPage
from orders_project.orders.models import Order
from orders_project.orders.placement.intake import intake
from orders_project.orders.representation import (
    OrderDetail,
    TimelineDetail,
    TimelineStepDetail,
)
from orders_project.orders.selectors import OrderFilter, OrderPosition, StoragePosition
from servicekit.http.conditional import json_answer
from servicekit.http.idempotency import idempotency_key
from servicekit.http.pagination import PageRequest, cursor_after, filters_in, link_header
from servicekit.http.parameters import integer
from servicekit.http.routes import UUID_PATTERN
from servicekit.http.views import ApiViewSet
from servicekit.timestamps import rfc3339

# What the list of a product's orders is asked for by, nearly always.
_BY_PRODUCT = re.compile(f"productId=({UUID_PATTERN})")


class OrderViewSet(ApiViewSet):
    """Orders, from accepted to final.

    A new order is PENDING. Moments later its stock is decided, and it is CONFIRMED or REJECTED.
    Every order is announced on RabbitMQ as `order.created`, on the exchange `order.exchange`.
    """

    queryset = Order.objects.all()
    serializer_class = serializers.NewOrder
    lookup_value_regex = UUID_PATTERN

    def short_answer(self, request: HttpRequest, **_kwargs: Any) -> HttpResponse | None:
        """Accept an order, or return the first page of a product's orders straight from Redis."""
        if self.action == "create" and request.content_type == "application/json":
            rendered, headers = self._accept(request)
            return json_answer(rendered, {"Vary": "Accept", **headers}, status=201)
        asked = _BY_PRODUCT.fullmatch(request.META["QUERY_STRING"])
        if asked is None or self.action != "list":
            return None
        page = cache.peek_first_page(UUID(asked[1]))
        if page is None:
            return None
        return json_answer(page.body, {"Vary": "Accept", **link_header(request, page.next_cursor)})

    @documentation.list_orders
    def list(self, request: Request) -> HttpResponse:
        """Orders, newest first; with `sort=stored`, in the order in which they are stored.

        Filters: `productId`, `status`, `createdAfter`, `createdBefore`. Pages: `limit`, `cursor`.
        """
        filters = serializers.OrderFilters.parse(filters_in(request.query_params))
        if filters.pop("sort", None):
            return self._as_stored(request)
        wanted = OrderFilter(**filters)
        page_request = PageRequest.of(request.query_params, OrderPosition.read)

        def render() -> RenderedPage:
            page = selectors.orders_page(wanted, limit=page_request.limit, after=page_request.after)
            body = msgspec.json.encode([OrderDetail.of(order) for order in page.orders])
            last = OrderPosition.of(page.orders[-1]) if page.has_more else None
            return RenderedPage(body, "" if last is None else cursor_after(last))

        if wanted.product_id and wanted.is_by_product_only and page_request.is_first:
            page = cache.first_page(wanted.product_id, render)
        else:
            page = render()

        return self.answer(page.body, headers=link_header(request, page.next_cursor))

    def _as_stored(self, request: Request) -> HttpResponse:
        """Answer with a link that always leads on: to what is stored until it is followed."""
        page_request = PageRequest.of(request.query_params, StoragePosition.read)
        after = page_request.after or StoragePosition()

        orders = selectors.orders_as_stored(limit=page_request.limit, after=after)

        reached = StoragePosition.of(orders[-1]) if orders else after
        body = msgspec.json.encode([OrderDetail.of(order) for order in orders])
        return self.answer(body, headers=link_header(request, cursor_after(reached)))

    @documentation.place_order
    def create(self, request: Request) -> HttpResponse:
        """Accept an order. It is final moments later, under the id we return.

        Sent again with the same `Idempotency-Key`, it is the same order. With `Prefer: wait=2` the
        answer waits up to two seconds for the final status.
        """
        rendered, headers = self._accept(request)
        return self.answer(rendered, status.HTTP_201_CREATED, headers)

    def _accept(self, request: HttpRequest | Request) -> tuple[bytes, dict[str, str]]:
        facts = self.parsed(serializers.NewOrder)
        key = idempotency_key(request)

        order = intake().accept(**facts) if key is None else intake().accept_once(key, **facts)

        headers = {"Location": self.location_of(order.id)}
        seconds = preferred_wait(request)
        if seconds is None:
            rendered = msgspec.json.encode(OrderDetail.of(order))
        else:
            rendered, has_waited = long_polling.accepted_when_final(order, seconds=seconds)
            if has_waited:
                headers["Preference-Applied"] = f"wait={seconds}"
        return rendered, headers

    @documentation.get_order
    def retrieve(self, request: Request, pk: str) -> HttpResponse:
        """Return one order; one that was just accepted is found at once.

        With `?wait=10` the answer waits up to ten seconds for the final status.
        """
        seconds = integer(
            request.query_params, "wait", default=0, minimum=0, maximum=MAX_WAIT_SECONDS
        )

        order, _ = long_polling.rendered_when_final(UUID(pk), seconds=seconds)

        return self.answer(order)

    @documentation.cancel_order
    @action(detail=True, methods=["post"], serializer_class=serializers.OrderCancellation)
    def cancel(self, request: Request, pk: str) -> HttpResponse:  # noqa: ARG002 - DRF's signature
        """Cancel an order: its stock is given back, once.

        The first cancellation says by whom and why; another one changes nothing of it.
        """
        facts = self.parsed(serializers.OrderCancellation)
        key = getattr(self._plain_request, "api_key", None)
        by = f"API key {key.name}" if key else "API client"

        order = services.cancel_order(UUID(pk), by=by, **facts)

        return self.answer(msgspec.json.encode(OrderDetail.of(order)))

    @documentation.get_order_timeline
    @action(detail=True)
    def timeline(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Tell what has happened to an order, and how many milliseconds lie between."""
        order = selectors.get_order(UUID(pk))

        steps = [
            TimelineStepDetail(
                name=step.name, at=rfc3339(step.at), since_previous_ms=step.since_previous_ms
            )
            for step in selectors.timeline(order)
        ]
        return Response(
            TimelineDetail(
                order_id=str(order.id), status=order.status, reason=order.reason, steps=steps
            )
        )
