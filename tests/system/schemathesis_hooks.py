"""What of our contract JSON Schema cannot say, told to schemathesis for its valid requests."""

import itertools
import os
from typing import Any

import schemathesis
from schemathesis import GenerationMode

_MAX_WAIT_SECONDS = 1
_PRODUCT_ID = os.environ["EXISTING_PRODUCT_ID"]
_turns = itertools.count()


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:  # noqa: ARG001 - schemathesis' signature
    """Make a request that is valid by its schema one that is valid."""
    if case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE:
        return
    if isinstance(case.body, dict):
        # To JSON Schema 2.0 is an integer. To us it is not.
        case.body = {
            name: int(value) if isinstance(value, float) and value.is_integer() else value
            for name, value in case.body.items()
        }
        # Every other order is for something that is sold, and of that there is enough.
        if "quantity" in case.body and next(_turns) % 2:
            case.body["productId"] = _PRODUCT_ID
        if case.body.get("productId") == _PRODUCT_ID:
            case.body["quantity"] = case.body["quantity"] % 3 + 1
    # Hardly ever is a version the present one that was made up.
    if case.headers and "If-Match" in case.headers and next(_turns) % 2:
        del case.headers["If-Match"]
    if case.query:
        # A cursor comes from a Link header, and is nobody's to make up.
        case.query.pop("cursor", None)
        # The order of storage has no filters.
        if case.query.get("sort") == "stored":
            case.query = {
                name: case.query[name] for name in ("sort", "limit") if name in case.query
            }
        # Valid, but nobody has the time.
        if "wait" in case.query:
            case.query["wait"] = min(int(case.query["wait"]), _MAX_WAIT_SECONDS)
