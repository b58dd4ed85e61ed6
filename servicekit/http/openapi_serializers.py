"""How drf-spectacular reads the strict serializers and fields: as strictly as they are."""

from typing import Any

from drf_spectacular.extensions import OpenApiSerializerExtension, OpenApiSerializerFieldExtension

from servicekit.http.fields import StrictSerializer, StrictStringField


class StrictSerializerExtension(OpenApiSerializerExtension):
    """An object without any property beside those declared."""

    target_class = StrictSerializer
    match_subclasses = True

    def map_serializer(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        """Return the schema."""
        schema: dict[str, Any] = auto_schema._map_serializer(  # noqa: SLF001 - as spectacular's guide does
            self.target, direction, bypass_extensions=True
        )
        for each in schema.get("properties", {}).values():
            each.pop("x-spec-enum-id", None)  # for spectacular's own naming of enums, which is off
        return {**schema, "additionalProperties": False, **self.target.schema_members}


class StrictStringExtension(OpenApiSerializerFieldExtension):
    """A text that is more than white space, and without NUL."""

    target_class = StrictStringField
    match_subclasses = True

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        """Return the schema."""
        schema: dict[str, Any] = auto_schema._map_serializer_field(  # noqa: SLF001 - as above
            self.target, direction, bypass_extensions=True
        )
        return {**schema, "minLength": 1, "pattern": r"^[^\u0000]*[^\s\u0000][^\u0000]*$"}
