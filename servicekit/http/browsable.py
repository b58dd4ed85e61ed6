"""The API as pages: what a browser sees at the URLs where programs get JSON.

A page shows the answer as a program would get it, and a form for everything that can be done
from here. The forms come from the `Operation`s of the views, and what they send is JSON: there is
one way into the services, for people and for programs.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from inspect import getdoc
from typing import Any

import msgspec
from django.conf import settings
from django.middleware.csrf import get_token
from django.template import loader
from django.urls import NoReverseMatch
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe
from rest_framework import serializers
from rest_framework.renderers import BrowsableAPIRenderer

from servicekit.http.html import Link, page_context
from servicekit.http.json import JSONRenderer
from servicekit.http.operations import Operation, Parameter, operation_of
from servicekit.http.problems import title_of

_WRITES = ("POST", "PATCH", "DELETE")
_SHOWN_HEADERS = (
    "Location",
    "ETag",
    "Link",
    "Retry-After",
    "Preference-Applied",
    "WWW-Authenticate",
    "Allow",
)
_NO_SUCH_METHOD = HTTPStatus.METHOD_NOT_ALLOWED
_JSON_TOKEN = re.compile(r'(?P<text>"(?:[^"\\]|\\.)*")(?P<colon>\s*:)?|(?P<word>[\w.+-]+)')
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Input:
    """One field of a form."""

    name: str
    kind: str
    """`integer` or `text`."""
    hint: str = ""
    required: bool = False
    minimum: int | None = None
    maximum: int | None = None
    max_length: int | None = None
    choices: tuple[str, ...] = ()
    value: Any = ""
    example: Any = ""


@dataclass(frozen=True)
class Form:
    """Something that can be done from a page."""

    operation: Operation
    method: str
    address: str
    description: SafeString
    inputs: list[Input] = field(default_factory=list)
    headers: list[Input] = field(default_factory=list)
    body: str = ""
    """The same as JSON, prefilled; empty for what takes no body."""


def described(text: str) -> SafeString:
    """Return a docstring as HTML: paragraphs, and code where there are backticks."""
    paragraphs = (
        _CODE.sub(r"<code>\1</code>", escape(" ".join(paragraph.split())))
        for paragraph in text.split("\n\n")
        if paragraph.strip()
    )
    return mark_safe("".join(f"<p>{paragraph}</p>" for paragraph in paragraphs))  # noqa: S308 - escaped above


def highlighted(text: str, links: Mapping[str, str]) -> SafeString:
    """Return JSON as HTML, in colours; a string below a key of `links` becomes a link.

    A link is an address that the string is appended to.
    """
    made: list[str] = []
    key = ""
    end = 0
    for token in _JSON_TOKEN.finditer(text):
        made.append(escape(text[end : token.start()]))
        end = token.end()
        if token["colon"]:
            key = token["text"][1:-1]
            made.append(format_html('<span class="key">{}</span>{}', token["text"], token["colon"]))
        elif token["text"]:
            address = links.get(key)
            made.append(
                format_html(
                    '<a class="text" href="{}{}">{}</a>',
                    address,
                    token["text"][1:-1],
                    token["text"],
                )
                if address
                else format_html('<span class="text">{}</span>', token["text"])
            )
        else:
            made.append(format_html('<span class="word">{}</span>', token["word"]))
    made.append(escape(text[end:]))
    return mark_safe("".join(made))  # noqa: S308 - each part is escaped above


class BrowsableRenderer(BrowsableAPIRenderer):
    """Renders an answer as a page."""

    template = "servicekit/browsable.html"

    def get_context(
        self,
        data: Any,
        accepted_media_type: str | None,  # noqa: ARG002 - DRF's signature
        renderer_context: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        """Return what the page shows."""
        assert renderer_context is not None  # noqa: S101 - DRF always gives it
        view, request = renderer_context["view"], renderer_context["request"]
        response = renderer_context["response"]
        method = request.method if operation_of(view, request.method) else "POST"
        shown = operation_of(view, method)
        forms = [] if response.status_code == HTTPStatus.NOT_FOUND else list(_forms(view, data))
        context = {
            **page_context(request),
            "request": request,
            "status": response.status_code,
            "reason": title_of(response.status_code),
            "problem": data if response.status_code >= HTTPStatus.BAD_REQUEST else None,
            "headers": {
                name: response[name]
                for name in _SHOWN_HEADERS
                if name in response and (name != "Allow" or response.status_code == _NO_SUCH_METHOD)
            },
            "next_page": _next_page(response),
            "title": shown.title if shown else settings.SERVICE.name,
            "description": described(_description(view, method)),
            "query": _query(view, request),
            "forms": forms,
            "pages": list(_pages(view)),
            "cards": view.links() if hasattr(view, "links") else [],
            "as_json": _as_json(request),
            "trail": _trail(request.path),
            "csrf_token_value": get_token(request._request),  # noqa: SLF001 - Django's own request
        }
        context["content"] = self._content(data, renderer_context, context)
        return context

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the page."""
        assert renderer_context is not None  # noqa: S101 - DRF always gives it
        response = renderer_context["response"]
        if response.status_code == HTTPStatus.NOT_MODIFIED:
            return b""
        context = self.get_context(data, accepted_media_type, renderer_context)
        page = loader.get_template(self.template).render(context, renderer_context["request"])
        # The tag is that of the JSON. A browser that came back with it would be shown an old page.
        del response["ETag"]
        if response.status_code == HTTPStatus.NO_CONTENT:
            response.status_code = HTTPStatus.OK  # there is a page to show
        return page

    @staticmethod
    def _content(
        data: Any, renderer_context: Mapping[str, Any], context: Mapping[str, Any]
    ) -> SafeString | str:
        text = JSONRenderer().render(data, None, {**renderer_context, "indent": 2}).decode()
        return highlighted(text, _links(renderer_context, context["peer"])) if text else ""


def _description(view: Any, method: str) -> str:
    handler = getattr(view, (getattr(view, "action_map", None) or {}).get(method.lower(), ""), None)
    return (handler and getdoc(handler)) or getdoc(type(view)) or ""


def _next_page(response: Any) -> str:
    found = re.match(r'<([^>]+)>; rel="next"', response.get("Link", ""))
    return found[1] if found else ""


def _as_json(request: Any) -> str:
    query = request.query_params.copy()
    query["format"] = "json"
    return f"{request.path}?{query.urlencode()}"


def _trail(path: str) -> list[Link]:
    """Return the way from the root down to this page."""
    parts = path.strip("/").split("/")
    return [
        Link(part, "/" + "/".join(parts[: depth + 1])) for depth, part in enumerate(parts) if part
    ]


def _links(renderer_context: Mapping[str, Any], peer: Link | None) -> dict[str, str]:
    view = renderer_context["view"]
    links = {}
    if getattr(view, "action", None) in ("list", "create"):
        links["id"] = view.reverse_action("list") + "/"
    links.update(settings.SERVICE.pages)
    if peer:
        links |= {
            key: f"{peer.address}{path}" for key, path in settings.SERVICE.pages_of_peer.items()
        }
    return links


def _query(view: Any, request: Any) -> list[Input]:
    operation = operation_of(view, "GET")
    if request.method != "GET" or operation is None:
        return []
    return [
        _parameter_input(each, request.query_params.get(each.name, ""))
        for each in operation.parameters
        if each.place == "query" and each.name != "cursor"
    ]


def _parameter_input(parameter: Parameter, value: str = "") -> Input:
    schema = parameter.schema
    return Input(
        name=parameter.name,
        kind="integer" if schema.get("type") == "integer" else "text",
        hint=parameter.description,
        required=parameter.required,
        minimum=schema.get("minimum"),
        maximum=schema.get("maximum"),
        choices=tuple(schema.get("enum", ())),
        value=value,
        example=schema.get("default", next(iter(schema.get("examples", ())), "")),
    )


def _field_input(name: str, field_: serializers.Field[Any, Any, Any, Any], **filled: Any) -> Input:
    return Input(
        name=name,
        kind="integer" if isinstance(field_, serializers.IntegerField) else "text",
        hint=str(field_.help_text or ""),
        required=bool(field_.required),
        minimum=getattr(field_, "min_value", None),
        maximum=getattr(field_, "max_value", None),
        max_length=getattr(field_, "max_length", None),
        choices=tuple(str(choice) for choice in getattr(field_, "choices", ())),
        **filled,
    )


def _forms(view: Any, data: Any) -> Iterator[Form]:
    """Yield a form for each thing that can be done here, and on the pages just below."""
    for method in _WRITES:
        if operation_of(view, method):
            handler = getattr(view, view.action_map[method.lower()])
            yield _form(
                view=view, method=method, address=view.request.path, handler=handler, data=data
            )
    for action, address in _actions_below(view):
        for lower, name in action.mapping.items():
            method, handler = lower.upper(), getattr(view, name)
            if hasattr(handler, "operation") and method in _WRITES:
                yield _form(view=view, method=method, address=address, handler=handler, data=data)


def _pages(view: Any) -> Iterator[Link]:
    for action, address in _actions_below(view):
        # Its own `get` is a decorator.
        name = dict.get(action.mapping, "get", "")
        operation = getattr(getattr(view, name, None), "operation", None)
        if operation:
            yield Link(operation.title, address)


def _actions_below(view: Any) -> Iterator[tuple[Any, str]]:
    if not {"list", "retrieve"} & set((getattr(view, "action_map", None) or {}).values()):
        return
    for action in view.get_extra_actions() if hasattr(view, "get_extra_actions") else ():
        if action.detail == bool(view.detail):
            try:
                yield action, view.reverse_action(action.url_name, kwargs=view.kwargs)
            except NoReverseMatch:
                continue


def _form(*, view: Any, method: str, address: str, handler: Any, data: Any) -> Form:
    operation: Operation = handler.operation
    present = _present(data) if method == "PATCH" else {}
    inputs, body = [], {}
    headers = [_parameter_input(each) for each in operation.parameters if each.place == "header"]
    if operation.scope and settings.REQUIRE_API_KEY:
        headers.append(Input("Authorization", "text", "An API key.", example="Bearer shop_…"))
    for name, each in operation.takes().fields.items() if operation.takes else ():
        value = present.get(name, view.request.query_params.get(name, ""))
        example = operation.example.get(name, "")
        inputs.append(_field_input(name, each, value=value, example=example))
        body[name] = value if value != "" else example
    return Form(
        operation=operation,
        method=method,
        address=address,
        description=described(getdoc(handler) or ""),
        inputs=inputs,
        headers=headers,
        body=msgspec.json.format(msgspec.json.encode(body), indent=2).decode() if inputs else "",
    )


def _present(data: Any) -> dict[str, Any]:
    """Return the resource that the page shows, or nothing if it shows something else."""
    try:
        shown = msgspec.json.decode(JSONRenderer().render(data))
    except msgspec.MsgspecError:
        return {}
    return shown if isinstance(shown, dict) and "code" not in shown else {}
