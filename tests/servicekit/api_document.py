"""What the tests of both services ask of an OpenAPI document."""

from collections.abc import Iterator
from typing import Any, ClassVar

from drf_spectacular.generators import SchemaGenerator
from jsonschema import Draft202012Validator

Json = dict[str, Any]


def document() -> Json:
    return SchemaGenerator().get_schema(request=None, public=True)


def resolve(whole: Json, node: Json) -> Json:
    if "$ref" not in node:
        return node
    for part in node["$ref"].removeprefix("#/").split("/"):
        whole = whole[part]
    return whole


def operations(whole: Json) -> Iterator[Json]:
    for methods in whole["paths"].values():
        yield from methods.values()


def documented_codes(whole: Json) -> set[str]:
    """Return every `code` that a problem may have."""
    return {
        code
        for operation in operations(whole)
        for answer in operation["responses"].values()
        for media_type, media in resolve(whole, answer).get("content", {}).items()
        if media_type == "application/problem+json"
        for code in media["schema"]["properties"]["code"]["enum"]
    }


def wrong_examples(whole: Json) -> list[str]:
    """Return what is wrong with the examples of bodies, requests and answers alike."""
    found = []
    for operation in operations(whole):
        answers = [resolve(whole, answer) for answer in operation["responses"].values()]
        for each in [operation.get("requestBody", {}), *answers]:
            for media in each.get("content", {}).values():
                schema = {**media["schema"], "components": whole["components"]}
                named = [example["value"] for example in media.get("examples", {}).values()]
                for example in [media["example"]] if "example" in media else named:
                    errors = Draft202012Validator(schema).iter_errors(example)
                    found += [error.message for error in errors]
    return found


class TrueDocument:
    """What is to be so of the document of any service, whose problems have these codes."""

    codes: ClassVar[set[str]]

    def test_names_every_problem_that_there_is_and_no_other(self):
        assert documented_codes(document()) == self.codes

    def test_has_examples_that_are_valid(self):
        assert wrong_examples(document()) == []

    def test_describes_every_operation(self):
        for operation in operations(document()):
            assert operation["summary"]
            assert operation["tags"]
            assert operation.get("description") or "operation" in operation["tags"]
