"""The routes of the product service's HTTP API."""

from products_project.products.api.views import ProductViewSet
from servicekit.http import routes
from servicekit.http.root import ServiceRoot


class ProductService(ServiceRoot):
    """Creates products, keeps their stock, and gives each order its units or refuses it."""


router = routes.router(ProductService)
router.register("products", ProductViewSet, basename="product")
urlpatterns = router.urls
