"""What the order service takes."""

from servicekit.contracts.fields import MAX_INT32
from servicekit.http.fields import StrictIntegerField, StrictSerializer, StrictUUIDField


class NewOrder(StrictSerializer):
    """An order to be placed."""

    productId = StrictUUIDField(source="product_id", help_text="The id of a product.")  # noqa: N815 - the name on the wire
    quantity = StrictIntegerField(min_value=1, max_value=MAX_INT32, help_text="How many units.")
