"""What orders get of the stock, decided from what is known, without a server."""

import copy
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from products_project.products.models import Product
from products_project.products.reservations import decide
from servicekit.contracts.events import OrderCancelled, OrderCreated
from servicekit.identifiers import new_id
from tests.products.answers import as_ours
from tests.products.test_stock_against_a_model import Model

NOW = datetime(2026, 11, 23, tzinfo=UTC)
LAMP, DESK, NOWHERE = new_id(), new_id(), new_id()


def shelf(lamps: int, desks: int) -> dict[UUID, Product]:
    stock = {LAMP: lamps, DESK: desks}
    return {key: Product(id=key, qty=qty, price=1) for key, qty in stock.items()}


# Few orders and many messages: duplicates, contradictions and shortages in most examples.
batches = st.lists(
    st.builds(
        lambda kind, number, product_id, quantity: kind(
            order_id=str(number), product_id=product_id, quantity=quantity
        ),
        st.sampled_from([OrderCreated, OrderCancelled]),
        st.integers(1, 4),
        st.sampled_from([LAMP, LAMP, LAMP, DESK, NOWHERE]),
        st.sampled_from([2, 2, 2, 1, 4]),
    ),
    max_size=8,
)


class TestDecide:
    @pytest.mark.parametrize(
        ("product_id", "quantity", "outcome", "reason"),
        [
            (LAMP, 5, "RESERVED", ""),
            (LAMP, 6, "REJECTED", "insufficient_stock"),
            (DESK, 1, "REJECTED", "product_archived"),
            (NOWHERE, 1, "REJECTED", "product_not_found"),
        ],
    )
    def test_gives_all_or_nothing_and_says_why(self, product_id, quantity, outcome, reason):
        stock = shelf(5, 5)
        stock[DESK].archived_at = NOW
        order = OrderCreated(order_id=1, product_id=product_id, quantity=quantity)
        [told] = decide([as_ours(order)], stock, {}, NOW).decisions

        assert (told.outcome, told.reason) == (outcome, reason)

    @given(batches, batches, st.tuples(st.integers(0, 12), st.integers(0, 12)))
    @settings(max_examples=settings().max_examples * 3)
    def test_decides_as_the_model_does_and_changes_nothing_it_is_given(self, first, then, stocks):
        stock, known, payloads = shelf(*stocks), {}, {}
        right, wrong, refused = [], [], []
        model = Model({key: product.qty for key, product in stock.items()})
        for event in first + then:
            payload = (event.product_id, event.quantity)
            if payloads.setdefault(event.order_id, payload) == payload:
                (model.order if isinstance(event, OrderCreated) else model.cancel)(event)
                right.append(event)
            else:
                wrong.append(event)
        # And then all of them once more.
        for batch in (first, then, first + then):
            given = [product.qty for product in stock.values()], copy.deepcopy(known)
            plan = decide([as_ours(event) for event in batch], stock, known, NOW)
            assert ([product.qty for product in stock.values()], known) == given
            refused += [each.event for each in plan.contradictions]
            known |= {each.order_id: each for each in plan.new}
            known |= {key: replace(known[key], outcome="RELEASED") for key in plan.released}
            for movement in plan.movements:
                stock[movement.product_id].qty += movement.delta
                assert movement.qty_after == stock[movement.product_id].qty

        assert {key: product.qty for key, product in stock.items()} == model.stock
        assert {key: each.outcome for key, each in known.items()} == model.outcomes
        assert refused == wrong * 2
        # Whoever asks is told, unless it is about an order that has given its stock back.
        told = [(each.order_id, each.outcome) for each in plan.decisions]
        told += [(each.order_id, "RELEASED") for each, _ in plan.releases]
        asked = [(each, each.order_id, model.outcomes[each.order_id]) for each in right]
        assert sorted(told) == sorted(
            (order_id, outcome)
            for each, order_id, outcome in asked
            if isinstance(each, OrderCancelled) or outcome != "RELEASED"
        )
