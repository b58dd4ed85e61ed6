"""What the order service takes."""

from typing import Any

from rest_framework import serializers

from orders_project.orders.models import CANCEL_REASON_MAX_LENGTH, Order
from servicekit.contracts.fields import MAX_INT32
from servicekit.http.fields import (
    StrictDateTimeField,
    StrictIntegerField,
    StrictSerializer,
    StrictStringField,
    StrictUUIDField,
)


class NewOrder(StrictSerializer):
    """An order to be placed."""

    productId = StrictUUIDField(source="product_id", help_text="The id of a product.")  # noqa: N815 - the name on the wire
    quantity = StrictIntegerField(min_value=1, max_value=MAX_INT32, help_text="How many units.")


class OrderCancellation(StrictSerializer):
    """Nothing has to be said: the body may be empty, or an empty object."""

    reason = StrictStringField(
        max_length=CANCEL_REASON_MAX_LENGTH,
        required=False,
        help_text="Why, for whoever reads the order.",
    )


class OrderFilters(StrictSerializer):
    """Which orders a list shows; the times are exclusive.

    Strict, because a misspelt filter would otherwise show orders that nobody has asked for.
    """

    productId = StrictUUIDField(source="product_id", required=False)  # noqa: N815 - the name on the wire
    status = serializers.ChoiceField(choices=Order.Status.choices, required=False)
    createdAfter = StrictDateTimeField(source="created_after", required=False)  # noqa: N815 - as above
    createdBefore = StrictDateTimeField(source="created_before", required=False)  # noqa: N815 - as above
    sort = serializers.ChoiceField(choices=["stored"], required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Return the values.

        :raises ValidationError: if they do not go together
        """
        if "sort" in attrs and attrs.keys() - {"sort"}:
            raise serializers.ValidationError({"sort": ["No filter goes with it."]})
        return attrs
