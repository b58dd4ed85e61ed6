"""How the product service's own errors are answered."""

from products_project.products.selectors import ProductNotFound
from servicekit.http.problems import Translation, exception_handler

handle = exception_handler({ProductNotFound: Translation(404, "product_not_found")})
