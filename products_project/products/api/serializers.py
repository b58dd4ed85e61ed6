"""What the product service takes."""

from rest_framework import serializers

from products_project.products.models import StockMovement
from servicekit.contracts.fields import MAX_INT32, MAX_JSON_INTEGER
from servicekit.http.fields import StrictIntegerField, StrictSerializer, StrictStringField


class NewProduct(StrictSerializer):
    """A product to be created."""

    name = StrictStringField(max_length=255, help_text="1 to 255 characters.")
    price = StrictIntegerField(
        min_value=1, max_value=MAX_JSON_INTEGER, help_text="In the smallest unit of the currency."
    )
    qty = StrictIntegerField(min_value=0, max_value=MAX_INT32, help_text="Units in stock.")


class ProductChanges(StrictSerializer):
    """What is to be changed; what is left out stays as it is. Stock changes by movements only."""

    schema_members = {"minProperties": 1}

    name = StrictStringField(max_length=255, required=False)
    price = StrictIntegerField(min_value=1, max_value=MAX_JSON_INTEGER, required=False)

    def validate(self, attrs: dict[str, object]) -> dict[str, object]:
        """Return the changes.

        :raises ValidationError: if there are none, or unknown fields
        """
        if not attrs:
            raise serializers.ValidationError("Name or price must be given.")
        return attrs


class ProductRestoration(StrictSerializer):
    """Nothing is asked for: the body is empty, or an empty object."""


class ProductFilters(StrictSerializer):
    """Which products a list shows."""

    search = StrictStringField(
        required=False, default="", allow_blank=True, help_text="A part of the name."
    )


class NoFilters(StrictSerializer):
    """A list that shows all there is: a filter is a mistake, and must not be overlooked."""


class NewStockMovement(StrictSerializer):
    """Units to be added to a stock, or taken from it."""

    schema_members = {
        "anyOf": [
            {"properties": {"delta": {"minimum": 1}}},
            {"properties": {"delta": {"maximum": -1}, "reason": {"const": "correction"}}},
        ]
    }

    delta = StrictIntegerField(
        min_value=-MAX_INT32, max_value=MAX_INT32, help_text="Units to add; below 0: to take."
    )
    reason = serializers.ChoiceField(
        choices=[StockMovement.Reason.RESTOCK, StockMovement.Reason.CORRECTION],
        help_text="restock or correction.",
    )

    def validate_delta(self, delta: int) -> int:
        """Return the units.

        :raises ValidationError: if there are none
        """
        if delta == 0:
            raise serializers.ValidationError("Must not be 0.")
        return delta

    def validate(self, attrs: dict[str, object]) -> dict[str, object]:
        """Return the movement.

        :raises ValidationError: if it takes units in the name of a restock, or has unknown fields
        """
        if attrs["reason"] == StockMovement.Reason.RESTOCK and int(str(attrs["delta"])) < 0:
            raise serializers.ValidationError({"delta": ["A restock adds units."]})
        return attrs
