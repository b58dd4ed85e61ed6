"""What the views of both services have in common: a short way for machines that want JSON."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from rest_framework.exceptions import UnsupportedMediaType
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from servicekit.http import access
from servicekit.http.admission import WAITED
from servicekit.http.conditional import json_answer, wants_plain_json
from servicekit.http.cross_site import refuse_cross_site
from servicekit.http.deadline import REQUEST_SECONDS, limited_to
from servicekit.http.fields import StrictSerializer
from servicekit.http.json import JSONRenderer, Rendered, read_body
from servicekit.http.links import absolute
from servicekit.http.operations import operation_of

_JSON = (JSONRenderer(), JSONRenderer.media_type)


class ApiViewSet(GenericViewSet[Any]):
    """A viewset whose requests have a deadline, and whose JSON is negotiated and rendered once."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer within the time that a request has; what is asked most without DRF's steps."""
        with limited_to(REQUEST_SECONDS - request.META.get(WAITED, 0.0)):
            # As DRF does it, too late for the short way.
            self.action = self.action_map.get(str(request.method).lower(), "")
            self._error = self._refusal_of(request) if access.is_guarded(request) else None
            if self._error is None and wants_plain_json(request):
                try:
                    answer = self.short_answer(request, **kwargs)
                except Exception as error:  # noqa: BLE001 - it is raised again below
                    self._error = error
                else:
                    if answer is not None:
                        return answer
            return super().dispatch(request, *args, **kwargs)

    def short_answer(self, request: HttpRequest, **kwargs: Any) -> HttpResponse | None:  # noqa: ARG002 - for views that have one
        """Return the JSON for a program, or None for DRF's way; DRF answers what is raised."""
        return None

    def perform_content_negotiation(self, request: Request, force: bool = False) -> tuple[Any, str]:  # noqa: FBT001, FBT002 - DRF's signature
        """Return the renderer: JSON for a machine that takes it, else what DRF finds."""
        if wants_plain_json(request._request):  # noqa: SLF001 - DRF's own name for Django's request
            return _JSON
        return super().perform_content_negotiation(request, force)

    def finalize_response(  # type: ignore[override]  # Django's responses are as good
        self, request: Request, response: HttpResponseBase, *args: Any, **kwargs: Any
    ) -> HttpResponseBase:
        """Return the response; one that `answer` has made for a program is finished."""
        if isinstance(response, Response):
            return super().finalize_response(request, response, *args, **kwargs)
        return response

    def perform_authentication(self, request: Request) -> None:  # noqa: ARG002 - DRF's signature
        """Raise what `dispatch` has come upon, for DRF to answer; the API knows no accounts.

        :raises Exception: if it has
        """
        if self._error is not None:
            raise self._error

    @property
    def _plain_request(self) -> HttpRequest:
        """Django's request; DRF's is made of it on DRF's way."""
        return getattr(self.request, "_request", self.request)

    def _refusal_of(self, request: HttpRequest) -> Exception | None:
        operation = operation_of(self, "GET" if request.method == "HEAD" else str(request.method))
        return access.refusal(request, operation.scope if operation else None)

    def parsed(self, serializer: type[StrictSerializer]) -> dict[str, Any]:
        """Return the values in the JSON body.

        :raises BodyTooLarge, ParseError, UnsupportedMediaType: if there is none
        :raises CrossSite: if none is needed, and a page of another site asks
        :raises ValidationError: if they are not valid
        """
        request = self._plain_request
        if request.content_type == _JSON[1]:
            body = read_body(request)
            # Many clients send the type with every request, whether it has a body or not.
            is_left_out = not body and not serializer.needs_body()
            return serializer.parse({}) if is_left_out else serializer.parse_json(body)
        if request.content_type:
            # Also of an empty body: a form of another site sends one.
            raise UnsupportedMediaType(request.content_type)
        # DRF says what is wrong with a body of no type.
        values = serializer.parse(self.request.data)
        refuse_cross_site(request)
        return values

    def answer(
        self, body: bytes, status: int = 200, headers: dict[str, str] | None = None
    ) -> HttpResponse:
        """Return rendered JSON, or the page that shows it to a person."""
        if self.request.accepted_renderer.format == "json":
            return json_answer(body, {"Vary": "Accept", **(headers or {})}, status=status)
        return Response(Rendered(body), status, headers=headers)

    def location_of(self, resource_id: object) -> str:
        """Return the absolute address of a resource of this kind, from that of the collection."""
        request = self._plain_request
        return absolute(request, f"{request.path}/{resource_id}")
