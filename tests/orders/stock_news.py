"""What the product service says of products and of the stock of orders, and we keep of it."""

import time
from uuid import UUID

from orders_project.orders import catalog, services
from orders_project.orders.commands import AcceptedOrder
from orders_project.orders.models import Order
from servicekit.contracts.events import StockDecided, StockDecision, StockOutcome, StockReleased
from servicekit.messaging.consumer import Handled
from servicekit.messaging.envelope import Received

AnyOrder = Order | AcceptedOrder


def put(
    product_id: UUID, *, price: int = 5, qty: int = 10, version: int = 1, seconds_old: int = 0
) -> None:
    """Have a copy of a product, whose price was true so long ago."""
    catalog.put(
        product_id=product_id, name="Lamp", price=price, qty=qty, version=version,
        as_of=int(time.time()) - seconds_old,
    )  # fmt: skip


def reserved(order: AnyOrder, **facts: object) -> StockDecision:
    return _decision(order, outcome=StockOutcome.RESERVED, **facts)


def rejected(order: AnyOrder, **facts: object) -> StockDecision:
    return _decision(
        order, **{"outcome": StockOutcome.REJECTED, "reason": "insufficient_stock", **facts}
    )


def cancelled(order: AnyOrder, **facts: object) -> StockDecision:
    return _decision(order, outcome=StockOutcome.CANCELLED, **facts)


def released(order: AnyOrder, **facts: object) -> StockReleased:
    return StockReleased(**{**_about(order), "released_at": "2026-11-23T10:00:01.000Z", **facts})


def settle(*news: StockDecision | StockReleased | StockDecided) -> Handled:
    """Tell it, a message for each piece of news."""
    return services.settle_orders(
        [
            Received(StockDecided(decisions=[each]) if isinstance(each, StockDecision) else each)
            for each in news
        ]
    )


def refusals(handled: Handled) -> list[str]:
    """Why messages of a batch are dead-lettered."""
    return [each.reason for each in handled.unprocessable]


def someone_elses(order_id: UUID | int | str, **facts: object) -> StockDecision:
    """The decision about an order of which nothing else is known here."""
    if isinstance(order_id, UUID):
        order_id = str(order_id)
    return StockDecision(
        **{
            "order_id": order_id, "product_id": UUID(int=1), "quantity": 2, "remaining": 8,
            "version": 2, "outcome": StockOutcome.RESERVED, **facts,
        }
    )  # fmt: skip


def _decision(order: AnyOrder, **facts: object) -> StockDecision:
    return StockDecision(**{**_about(order), **facts})


def _about(order: AnyOrder) -> dict[str, object]:
    return {
        "order_id": str(order.id), "product_id": order.product_id, "quantity": order.quantity,
        "remaining": 5, "version": 2,
    }  # fmt: skip
