"""What the OpenAPI document says of the product service's operations."""

from products_project.products.api import serializers
from products_project.products.representation import ProductDetail, StockMovementDetail
from servicekit.http.operations import (
    ETAG,
    IDEMPOTENCY_KEY,
    IDEMPOTENCY_PROBLEMS,
    IF_MATCH,
    IF_NONE_MATCH,
    LINK,
    LOCATION,
    NO_CACHE,
    PAGE,
    Answer,
    Operation,
    Problem,
    query,
)

_NOT_FOUND = Problem(404, "product_not_found", "There is no such product.")
_ARCHIVED = Problem(404, "product_archived", "The product is not sold any more.")
_VERSION_MISMATCH = Problem(
    412, "version_mismatch", "`If-Match` names another version: somebody has changed it meanwhile."
)

list_products = Operation(
    id="listProducts",
    title="List products",
    answers={200: Answer(list[ProductDetail], "The products, newest first.", (LINK,))},
    parameters=(
        query(
            "search",
            {"type": "string", "pattern": r"^[^\u0000]*$", "examples": ["lamp"]},
            "A part of the name, in any case.",
        ),
        *PAGE,
    ),
)

create_product = Operation(
    id="createProduct",
    title="Create a product",
    scope="products:write",
    takes=serializers.NewProduct,
    example={"name": "Desk lamp", "price": 190_000, "qty": 100},
    answers={201: Answer(ProductDetail, "It is created.", (LOCATION, ETAG))},
)

get_product = Operation(
    id="getProduct",
    title="Get a product",
    answers={
        200: Answer(ProductDetail, "The product.", (ETAG,)),
        304: Answer(None, "It is as the caller knows it.", (ETAG,)),
    },
    parameters=(IF_NONE_MATCH, NO_CACHE),
    problems=(_NOT_FOUND, _ARCHIVED),
)

change_product = Operation(
    id="changeProduct",
    title="Change a product",
    scope="products:write",
    takes=serializers.ProductChanges,
    example={"price": 180_000},
    answers={200: Answer(ProductDetail, "It is changed.", (ETAG,))},
    parameters=(IF_MATCH,),
    problems=(_NOT_FOUND, _ARCHIVED, _VERSION_MISMATCH),
)

archive_product = Operation(
    id="archiveProduct",
    title="Archive a product",
    scope="products:write",
    answers={204: Answer(None, "It is archived, or was already.")},
    parameters=(IF_MATCH,),
    problems=(_NOT_FOUND, _VERSION_MISMATCH),
)

list_stock_movements = Operation(
    id="listStockMovements",
    title="List stock movements",
    scope="stock:read",
    answers={200: Answer(list[StockMovementDetail], "The movements, newest first.", (LINK,))},
    parameters=PAGE,
    problems=(_NOT_FOUND,),
)

move_stock = Operation(
    id="moveStock",
    title="Move stock",
    scope="products:write",
    takes=serializers.NewStockMovement,
    example={"delta": 50, "reason": "restock"},
    answers={201: Answer(StockMovementDetail, "The stock is changed, or was already.")},
    parameters=(IDEMPOTENCY_KEY,),
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
