"""What the OpenAPI document says of the product service's operations."""

from drf_spectacular.utils import OpenApiParameter, OpenApiResponse

from products_project.products.api import serializers
from products_project.products.representation import ProductDetail, StockMovementDetail
from servicekit.http.operations import (
    CROSS_SITE,
    ETAG,
    IDEMPOTENCY_KEY,
    IDEMPOTENCY_PROBLEMS,
    IF_MATCH,
    IF_NONE_MATCH,
    LINK,
    LOCATION,
    NO_CACHE,
    PAGE,
    Operation,
    Problem,
)

_NOT_FOUND = Problem(404, "product_not_found", "There is no such product.")
_ARCHIVED = Problem(404, "product_archived", "The product is not sold any more.")
_VERSION_MISMATCH = Problem(
    412, "version_mismatch", "`If-Match` names another version: somebody has changed it meanwhile."
)

list_products = Operation(
    operation_id="listProducts",
    summary="List products",
    responses={200: OpenApiResponse(list[ProductDetail], "The products, newest first.")},
    parameters=[
        LINK,
        OpenApiParameter(
            "search",
            {"type": "string", "pattern": r"^[^\u0000]*$", "examples": ["lamp"]},
            description="A part of the name, in any case.",
        ),
        *PAGE,
    ],
)

create_product = Operation(
    operation_id="createProduct",
    summary="Create a product",
    scope="products:write",
    request=serializers.NewProduct,
    example={"name": "Desk lamp", "price": 190_000, "qty": 100},
    responses={201: OpenApiResponse(ProductDetail, "It is created.")},
    parameters=[LOCATION, ETAG],
)

get_product = Operation(
    operation_id="getProduct",
    summary="Get a product",
    responses={
        200: OpenApiResponse(ProductDetail, "The product."),
        304: OpenApiResponse(None, "It is as the caller knows it."),
    },
    parameters=[ETAG, IF_NONE_MATCH, NO_CACHE],
    problems=(_NOT_FOUND, _ARCHIVED),
)

change_product = Operation(
    operation_id="changeProduct",
    summary="Change a product",
    scope="products:write",
    request=serializers.ProductChanges,
    example={"price": 180_000},
    responses={200: OpenApiResponse(ProductDetail, "It is changed.")},
    parameters=[ETAG, IF_MATCH],
    problems=(_NOT_FOUND, _ARCHIVED, _VERSION_MISMATCH),
)

archive_product = Operation(
    operation_id="archiveProduct",
    summary="Archive a product",
    scope="products:write",
    responses={204: OpenApiResponse(None, "It is archived, or was already.")},
    parameters=[IF_MATCH],
    problems=(_NOT_FOUND, _VERSION_MISMATCH),
)

restore_product = Operation(
    operation_id="restoreProduct",
    summary="Sell an archived product again",
    scope="products:write",
    request=serializers.ProductRestoration,
    responses={200: OpenApiResponse(ProductDetail, "It is for sale again, or was all along.")},
    parameters=[ETAG],
    problems=(_NOT_FOUND, CROSS_SITE),
)

list_stock_movements = Operation(
    operation_id="listStockMovements",
    summary="List stock movements",
    scope="stock:read",
    responses={200: OpenApiResponse(list[StockMovementDetail], "The movements, newest first.")},
    parameters=[LINK, *PAGE],
    problems=(_NOT_FOUND,),
)

move_stock = Operation(
    operation_id="moveStock",
    summary="Move stock",
    scope="products:write",
    request=serializers.NewStockMovement,
    example={"delta": 50, "reason": "restock"},
    responses={201: OpenApiResponse(StockMovementDetail, "The stock is changed, or was already.")},
    parameters=[IDEMPOTENCY_KEY],
    problems=(
        _NOT_FOUND,
        _ARCHIVED,
        Problem(
            409,
            "insufficient_stock",
            "There are fewer units to take; `available` says how many.",
            {"available": {"type": "integer", "minimum": 0}},
        ),
        Problem(409, "stock_too_large", "There would be more units than can be stored."),
        *IDEMPOTENCY_PROBLEMS,
    ),
)
