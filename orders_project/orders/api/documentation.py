"""What the OpenAPI document and the browsable pages say of the order service's operations."""

from orders_project.orders.api import serializers
from orders_project.orders.models import Order
from orders_project.orders.representation import OrderDetail
from servicekit.http.operations import LINK, LOCATION, PAGE, Answer, Operation, Problem, query

_ORDER_ID = {"type": "string", "format": "uuid"}
_ORDER_NOT_FOUND = Problem(404, "order_not_found", "There is no such order.")

list_orders = Operation(
    id="listOrders",
    title="List the orders of a product",
    answers={200: Answer(list[OrderDetail], "The orders, newest first.", (LINK,))},
    parameters=(
        query(
            "productId", {"type": "string", "format": "uuid"}, "The id of a product.", required=True
        ),
        query(
            "status", {"type": "string", "enum": Order.Status.values}, "Only orders that are this."
        ),
        *PAGE,
    ),
)

place_order = Operation(
    id="placeOrder",
    title="Place an order",
    takes=serializers.NewOrder,
    example={"productId": "0198c0de-0000-7000-8000-00000000000a", "quantity": 3},
    answers={201: Answer(OrderDetail, "It is accepted, and cannot be lost any more.", (LOCATION,))},
    problems=(
        Problem(
            400,
            "insufficient_stock",
            "There are fewer units left; `available` says how many.",
            {"available": {"type": "integer", "minimum": 0}},
        ),
        Problem(400, "total_price_too_large", "Quantity times price is more than can be stored."),
        Problem(404, "product_not_found", "There is no such product."),
        Problem(503, "not_accepted", "It cannot be stored now; nothing was. Try again."),
        Problem(
            503,
            "outcome_unknown",
            "It may be stored or not: look for `orderId` before trying again.",
            {"orderId": _ORDER_ID},
        ),
    ),
)

get_order = Operation(
    id="getOrder",
    title="Get an order",
    answers={200: Answer(OrderDetail, "The order.")},
    problems=(
        _ORDER_NOT_FOUND,
        Problem(503, "order_not_visible_yet", "It may be on its way into the database. Try again."),
    ),
)
