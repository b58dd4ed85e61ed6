"""API keys, for the people who hand them out and take them back."""

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.decorators import action
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from servicekit.access import services
from servicekit.access.models import ApiKey
from servicekit.backoffice.actions import ServiceAdmin, confirmed, report
from servicekit.backoffice.display import badge, code, column, moment
from servicekit.backoffice.ledgers import nobody


class NewKeyForm(forms.ModelForm[ApiKey]):
    """What is decided about a key when it is made."""

    scopes = forms.MultipleChoiceField(
        choices=lambda: [(name, f"{name}: {text}") for name, text in settings.API_SCOPES.items()],
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
    )

    class Meta:
        model = ApiKey
        fields = ("name", "scopes")


@admin.register(ApiKey)
class ApiKeyAdmin(ServiceAdmin):
    """Keys are made and revoked; nothing of one is changed, and none is deleted."""

    form = NewKeyForm
    list_display = ["name", "begins_with", "state", "for_what", "created"]
    list_filter = [("revoked_at", admin.EmptyFieldListFilter)]
    search_fields = ["name", "prefix"]
    ordering = ["-id"]
    empty_text = "No API keys yet."
    actions_detail = ["revoke"]

    # Who needs other scopes gets another key, and which keys there were stays on record.
    has_change_permission = has_delete_permission = nobody

    def has_revoke_permission(self, request: HttpRequest, object_id: Any = None) -> bool:  # noqa: ARG002 - unfold's signature
        """Allow it to those who may change keys."""
        return bool(request.user.has_perm("access.change_apikey"))

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:  # noqa: ARG002 - Django's signature
        """Ask for a name and scopes, or show what there is."""
        return ["name", *(["begins_with", "state", "for_what", "created"] if obj else ["scopes"])]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Everything of a key that is made."""
        return self.get_fields(request, obj) if obj else []

    begins_with = column("begins with", lambda key: code(key.prefix))
    state = column(
        "status",
        lambda key: (
            badge("active", "success")
            if key.revoked_at is None
            else badge(f"revoked {key.revoked_at:%Y-%m-%d %H:%M}", "")
        ),
    )
    for_what = column("scopes", lambda key: ", ".join(key.scopes))
    created = column("created, UTC", lambda key: moment(key.created_at))

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> Any:
        """Offer one button: wherever others led to, the key would not be shown."""
        hidden = {"show_save_and_add_another": False, "show_save_and_continue": False}
        return super().add_view(request, form_url, {**(extra_context or {}), **hidden})

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:  # noqa: ARG002, FBT001 - Django's signature
        """Make a key."""
        made, obj.key = services.make_key(**form.cleaned_data)
        obj.pk = made.pk  # for Django's own log

    def response_add(
        self,
        request: HttpRequest,
        obj: Any,
        post_url_continue: str | None = None,  # noqa: ARG002 - Django's signature
    ) -> HttpResponse:
        """Show the key, this once: no message and no session keeps it."""
        context = {
            **self.admin_site.each_context(request),
            "title": "Your new API key",
            "opts": self.opts,
            "name": obj.name,
            "key": obj.key,
        }
        return TemplateResponse(request, "access/made.html", context)

    def offers(self, row: ApiKey) -> list[str]:
        """Offer to revoke what is not revoked."""
        return ["revoke"] if row.revoked_at is None else []

    @action(
        description="Revoke", icon="block", variant=ActionVariant.DANGER, permissions=["revoke"]
    )
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """End one key."""
        return self.ask_about(request, object_id, self._ask_to_revoke)

    def _ask_to_revoke(self, request: HttpRequest, rows: QuerySet[ApiKey]) -> HttpResponse | None:
        answer = confirmed(
            self,
            request,
            rows,
            about_one="Revoke this key? It stops working within ten seconds, for good.",
            button="Revoke",
        )
        if isinstance(answer, HttpResponse):
            return answer
        revoked = ApiKey.objects.revoke(rows.get().pk)
        left = {} if revoked else {"already revoked": 1}
        report(self, request, done="revoked", rows=revoked, left=left)
        return None
