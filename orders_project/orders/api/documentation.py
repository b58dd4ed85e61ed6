"""What the OpenAPI document says of the order service's operations."""

from drf_spectacular.utils import OpenApiParameter, OpenApiResponse

from orders_project.orders.api import serializers
from orders_project.orders.api.waiting import MAX_WAIT_SECONDS
from orders_project.orders.models import Order
from orders_project.orders.representation import OrderDetail, TimelineDetail
from orders_project.orders.selectors import ON_ITS_WAY_SECONDS
from servicekit.http.operations import (
    CROSS_SITE,
    IDEMPOTENCY_KEY,
    IDEMPOTENCY_PROBLEMS,
    LINK,
    LOCATION,
    PAGE,
    Operation,
    Problem,
    header,
)

_UUID = {"type": "string", "format": "uuid"}
_TIME = {"type": "string", "format": "date-time", "examples": ["2026-11-05T12:00:00Z"]}

_NOT_FOUND = Problem(404, "order_not_found", "There is no such order.")
_NOT_VISIBLE_YET = Problem(
    503,
    "order_not_visible_yet",
    "It may be on its way into the database. Try again. Any UUIDv7 without an order is answered"
    f" so, a made-up one too, until the time in it is {ON_ITS_WAY_SECONDS} seconds ago; 404 then.",
)

list_orders = Operation(
    operation_id="listOrders",
    summary="List orders",
    scope="orders:read",
    responses={
        200: OpenApiResponse(
            list[OrderDetail],
            "The orders, by the time of their acceptance, newest first. One that is stored late"
            " takes its place below newer ones: who only asks for newer ones misses it. With"
            " `sort=stored` nobody misses any: the orders come as they are stored, oldest first,"
            " each once, and `Link` always leads on, from an empty page too. What becomes of an"
            " order later does not bring it again.",
        )
    },
    parameters=[
        LINK,
        OpenApiParameter("productId", _UUID, description="Only those of a product."),
        OpenApiParameter("status", enum=Order.Status.values, description="Only those of a status."),
        OpenApiParameter("createdAfter", _TIME, description="Only those created after a time."),
        OpenApiParameter("createdBefore", _TIME, description="Only those created before a time."),
        OpenApiParameter(
            "sort",
            enum=["stored"],
            description="In the order of their storage, for who asks again and again; with no"
            " filter.",
        ),
        *PAGE,
    ],
)

place_order = Operation(
    operation_id="placeOrder",
    summary="Place an order",
    scope="orders:place",
    request=serializers.NewOrder,
    example={"productId": "0198c0de-0000-7000-8000-00000000000a", "quantity": 3},
    responses={201: OpenApiResponse(OrderDetail, "It is accepted, and cannot be lost any more.")},
    parameters=[
        LOCATION,
        header(
            "Preference-Applied", response=[201], description="`wait=…` if the answer did wait."
        ),
        IDEMPOTENCY_KEY,
        header(
            "Prefer",
            {"type": "string", "examples": ["wait=2"]},
            description=f"`wait=2`: answer when the status is final, after two seconds at the"
            f" latest (RFC 7240; at most {MAX_WAIT_SECONDS}).",
        ),
    ],
    problems=(
        Problem(
            400,
            "insufficient_stock",
            "There are fewer units left; `available` says how many.",
            {"available": {"type": "integer", "minimum": 0}},
        ),
        Problem(400, "total_price_too_large", "Quantity times price is more than can be stored."),
        Problem(404, "product_not_found", "There is no such product, or it is not sold any more."),
        Problem(503, "not_accepted", "It cannot be stored now; nothing was. Try again."),
        Problem(
            503,
            "outcome_unknown",
            "It may be stored or not: look for `orderId` before trying again.",
            {"orderId": _UUID},
        ),
        *IDEMPOTENCY_PROBLEMS,
    ),
)

get_order = Operation(
    operation_id="getOrder",
    summary="Get an order",
    scope="orders:read",
    responses={200: OpenApiResponse(OrderDetail, "The order.")},
    parameters=[
        OpenApiParameter(
            "wait",
            {"type": "integer", "minimum": 0, "maximum": MAX_WAIT_SECONDS, "default": 0},
            description="Seconds to wait at most for the final status.",
        ),
    ],
    problems=(_NOT_FOUND, _NOT_VISIBLE_YET),
)

cancel_order = Operation(
    operation_id="cancelOrder",
    summary="Cancel an order",
    scope="orders:cancel",
    request=serializers.OrderCancellation,
    example={"reason": "Ordered twice by mistake."},
    responses={200: OpenApiResponse(OrderDetail, "It is cancelled, or was already.")},
    problems=(
        _NOT_FOUND,
        CROSS_SITE,
        Problem(409, "order_rejected", "It was rejected: there is nothing to cancel."),
        _NOT_VISIBLE_YET,
    ),
)

get_order_timeline = Operation(
    operation_id="getOrderTimeline",
    summary="Get the timeline of an order",
    scope="orders:read",
    responses={200: OpenApiResponse(TimelineDetail, "What has happened so far.")},
    problems=(_NOT_FOUND, _NOT_VISIBLE_YET),
)
