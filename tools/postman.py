"""`make postman`: a Postman collection of both services, made from `docs/openapi/`.

Run in order, its requests tell the story of a shop: what creates something stores the new id in a
variable, which the requests after it use.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import yaml

from deploy.settings import ROOT
from tools.openapi import DOCUMENTS, write_or_compare

COLLECTION = ROOT / "docs" / "postman" / "products-and-orders.postman_collection.json"
_SCHEMA = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
# The variable and the standard address of each service.
_SERVICES = {
    "products_project": ("productService", "http://localhost:3001"),
    "orders_project": ("orderService", "http://localhost:3002"),
}
# Deleting comes last, in a folder of its own: what is gone cannot be ordered.
_METHODS = ("get", "post", "put", "patch")

Json = dict[str, Any]


def _id_variable(resource: str) -> str:
    """Return the variable for the id of a `products`: `productId`."""
    return f"{resource.removesuffix('s')}Id"


def _with_variables(example: Mapping[str, Any]) -> Json:
    """Return an example body whose ids are those that were made before."""
    return {
        name: f"{{{{{name}}}}}" if name.endswith("Id") else value for name, value in example.items()
    }


def _parameters(operation: Json, place: str) -> list[Json]:
    entries = []
    for each in operation.get("parameters", []):
        if each["in"] != place:
            continue
        schema = each.get("schema", {})
        value = schema.get("default", next(iter(schema.get("examples", [])), ""))
        is_required = each.get("required", False)
        entries.append(
            {
                "key": each["name"],
                "value": f"{{{{{each['name']}}}}}" if each["name"].endswith("Id") else str(value),
                "description": each.get("description", ""),
                **({} if is_required else {"disabled": True}),
            }
        )
    return entries


def _request(base: str, path: str, method: str, operation: Json) -> Json:
    # Of the ids that were made before.
    path = re.sub(r"\{\w+\}", f"{{{{{_id_variable(path.split('/')[1])}}}}}", path).strip("/")
    query = _parameters(operation, "query")
    sent = "&".join(f"{each['key']}={each['value']}" for each in query if "disabled" not in each)
    address = f"{{{{{base}}}}}/{path}" + (f"?{sent}" if sent else "")
    request: Json = {
        "method": method.upper(),
        "description": operation.get("description", ""),
        "header": _parameters(operation, "header"),
        "url": {"raw": address, "host": f"{{{{{base}}}}}", "path": path, "query": query}
        if query
        else address,
    }
    if "requestBody" in operation:
        media = operation["requestBody"]["content"]["application/json"]
        [example] = media.get("examples", {"": {"value": {}}}).values()
        request["header"].append({"key": "Content-Type", "value": "application/json"})
        request["body"] = {
            "mode": "raw",
            "raw": json.dumps(_with_variables(example["value"]), indent=2),
        }
    return request


def _item(base: str, path: str, method: str, operation: Json) -> Json:
    item: Json = {
        "name": operation["summary"],
        "request": _request(base, path, method, operation),
    }
    if "201" in operation["responses"] and path.count("/") == 1:
        variable = _id_variable(path.strip("/"))
        item["event"] = [
            {
                "listen": "test",
                "script": {
                    "type": "text/javascript",
                    "exec": [
                        "if (pm.response.code === 201) {",
                        f'  pm.collectionVariables.set("{variable}", pm.response.json().id);',
                        "}",
                    ],
                },
            }
        ]
    return item


def _operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    """Yield path, method and operation; what creates something comes before what needs it."""
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method in _METHODS
    ]
    order = ("post", "get", "patch", "put")
    yield from sorted(operations, key=lambda each: (each[0], order.index(each[1])))


def _folders(base: str, document: Json) -> list[Json]:
    folders: dict[str, Json] = {
        tag["name"]: {"name": tag["name"], "description": tag["description"], "item": []}
        for tag in document["tags"]
    }
    for path, method, operation in _operations(document):
        folders[operation["tags"][0]]["item"].append(_item(base, path, method, operation))
    return [folder for folder in folders.values() if folder["item"]]


def collection() -> Json:
    """Return the collection."""
    services, ids, clean_up = [], {}, []
    for project, path in DOCUMENTS.items():
        document = yaml.safe_load(path.read_text())
        base, _ = _SERVICES[project]
        services.append(
            {
                "name": document["info"]["title"],
                "description": document["info"]["description"],
                "item": _folders(base, document),
            }
        )
        clean_up += [
            _item(base, route, "delete", methods["delete"])
            for route, methods in document["paths"].items()
            if "delete" in methods
        ]
        for route in document["paths"]:
            if "{" in route:
                ids[_id_variable(route.split("/")[1])] = ""
    return {
        "info": {
            "_postman_id": str(uuid5(NAMESPACE_URL, "urn:products-and-orders:postman")),
            "name": "Products and orders",
            "description": "Made from docs/openapi by `make postman`. Create a product first.",
            "schema": _SCHEMA,
        },
        "item": [
            *services,
            {"name": "Clean up", "description": "What ends the story.", "item": clean_up},
        ],
        "variable": [
            *({"key": name, "value": address} for name, address in _SERVICES.values()),
            *({"key": name, "value": value} for name, value in ids.items()),
        ],
    }


def main(arguments: Sequence[str]) -> int:
    """Write the collection, or with `--check` compare it; return 0 if all is well."""
    text = json.dumps(collection(), indent=2, ensure_ascii=False) + "\n"
    compare = "--check" in arguments
    return int(not write_or_compare(COLLECTION, text, compare=compare, command="make postman"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
