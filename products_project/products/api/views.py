"""The product service's HTTP API."""

from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from products_project.products import cache, selectors, services
from products_project.products.api import documentation, serializers
from products_project.products.models import Product
from products_project.products.representation import ProductDetail, StockMovementDetail
from servicekit.http.conditional import (
    etag_of,
    is_known,
    required_versions,
    tagged_answer,
    wants_no_cache,
)
from servicekit.http.idempotency import idempotency_key
from servicekit.http.json import Rendered
from servicekit.http.pagination import NewestFirst, filters_in
from servicekit.http.routes import UUID_PATTERN
from servicekit.http.views import ApiViewSet


class ProductViewSet(ApiViewSet):
    """Products, with their price and their stock.

    Prices are integers in the currency's smallest unit. Every change is announced on RabbitMQ, on
    the exchange `product.exchange`.
    """

    queryset = Product.objects.all()
    serializer_class = serializers.NewProduct
    pagination_class = NewestFirst
    lookup_value_regex = UUID_PATTERN

    def short_answer(self, request: HttpRequest, **kwargs: Any) -> HttpResponse | None:
        """Return a product straight from Redis, or 304 for a caller that has it."""
        if self.action != "retrieve" or wants_no_cache(request):
            return None
        cached = cache.peek(UUID(kwargs["pk"]))
        if cached is None:
            return None
        return tagged_answer(request, cached.value, etag_of(cached.version))

    @documentation.list_products
    def list(self, request: Request) -> Response:
        """Products, newest first. `limit`, `cursor` (from the `Link` header), `search` in names."""
        filters = serializers.ProductFilters.parse(filters_in(request.query_params))
        page = self.paginate_queryset(selectors.sold_products(**filters)) or []
        return self.get_paginated_response([ProductDetail.of(product) for product in page])

    @documentation.create_product
    def create(self, request: Request) -> Response:  # noqa: ARG002 - DRF's signature
        """Create a product."""
        facts = self.parsed(serializers.NewProduct)

        product = services.create_product(**facts)

        return Response(
            ProductDetail.of(product),
            status=status.HTTP_201_CREATED,
            headers={
                "Location": self.location_of(product.id),
                "ETag": etag_of(product.version),
            },
        )

    @documentation.get_product
    def retrieve(self, request: Request, pk: str) -> Response:
        """Return one product."""
        product = selectors.get_rendered_product(UUID(pk), past_cache=wants_no_cache(request))

        headers = {"ETag": etag_of(product.version)}
        # The tag is that of the JSON. A page has more on it, which may have changed.
        if request.accepted_renderer.format == "json" and is_known(request, headers["ETag"]):
            return Response(status=status.HTTP_304_NOT_MODIFIED, headers=headers)
        return Response(Rendered(product.value), headers=headers)

    @documentation.change_product
    def partial_update(self, request: Request, pk: str) -> Response:
        """Change a product's name or price; with `If-Match`, only if you saw its last version."""
        facts = self.parsed(serializers.ProductChanges)

        product = services.update_product(UUID(pk), **facts, if_version=required_versions(request))

        return Response(ProductDetail.of(product), headers={"ETag": etag_of(product.version)})

    @documentation.archive_product
    def destroy(self, request: Request, pk: str) -> Response:
        """Archive a product: it is not sold any more, and its history is kept."""
        services.archive_product(UUID(pk), if_version=required_versions(request))

        return Response(status=status.HTTP_204_NO_CONTENT)

    @documentation.restore_product
    @action(detail=True, methods=["post"], serializer_class=serializers.ProductRestoration)
    def restore(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Sell an archived product again, at the price and with the stock that it has."""
        self.parsed(serializers.ProductRestoration)

        product = services.restore_product(UUID(pk))

        return Response(ProductDetail.of(product), headers={"ETag": etag_of(product.version)})

    @documentation.list_stock_movements
    @action(detail=True, url_path="stock-movements", serializer_class=serializers.NewStockMovement)
    def stock_movements(self, request: Request, pk: str) -> Response:
        """Every change of the product's stock, newest first. `limit`, `cursor`."""
        serializers.NoFilters.parse(filters_in(request.query_params))
        page = self.paginate_queryset(selectors.stock_movements(UUID(pk))) or []
        return self.get_paginated_response([StockMovementDetail.of(movement) for movement in page])

    @documentation.move_stock
    @stock_movements.mapping.post
    def move_stock(self, request: Request, pk: str) -> Response:
        """Restock a product or correct its stock; once per `Idempotency-Key`."""
        facts = self.parsed(serializers.NewStockMovement)

        movement = services.move_stock(
            product_id=UUID(pk),
            **facts,
            idempotency_key=idempotency_key(request) or "",
        )

        return Response(StockMovementDetail.of(movement), status=status.HTTP_201_CREATED)

    def get_serializer_class(self) -> Any:
        """Return what the browsable API's form of this page is for."""
        is_of_product = self.detail and self.serializer_class is serializers.NewProduct
        return serializers.ProductChanges if is_of_product else self.serializer_class
