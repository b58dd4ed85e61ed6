"""What the OpenAPI document and the browsable pages say of the product service's operations."""

from products_project.products.api import serializers
from products_project.products.representation import ProductDetail
from servicekit.http.operations import (
    ETAG,
    IF_NONE_MATCH,
    LINK,
    LOCATION,
    PAGE,
    Answer,
    Operation,
    Problem,
    query,
)

_PRODUCT_NOT_FOUND = Problem(404, "product_not_found", "There is no such product.")

list_products = Operation(
    id="listProducts",
    title="List products",
    answers={200: Answer(list[ProductDetail], "The products, newest first.", (LINK,))},
    parameters=(
        query("search", {"type": "string", "examples": ["lamp"]}, "A part of the name."),
        *PAGE,
    ),
)

create_product = Operation(
    id="createProduct",
    title="Create a product",
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
    parameters=(IF_NONE_MATCH,),
    problems=(_PRODUCT_NOT_FOUND,),
)

change_product = Operation(
    id="changeProduct",
    title="Change a product",
    takes=serializers.ProductChanges,
    example={"price": 180_000},
    answers={200: Answer(ProductDetail, "It is changed.", (ETAG,))},
    problems=(_PRODUCT_NOT_FOUND,),
)
