"""Actions that ask before they act."""

from collections.abc import Iterable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_protect
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminTextInputWidget

from servicekit.administration.ledgers import BoundedAdmin

MAX_SELECTED = 500
"""How many rows one action takes at once."""

_CONFIRMED = "confirmed"


class NoteForm(forms.Form):
    """Asks why."""

    note = forms.CharField(
        max_length=500,
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "Why?"}),
        help_text="Stays on record.",
    )


class NoteDialog(BaseDialogForm, NoteForm):
    """The same, in a dialog."""


class _OutsideTransaction(admin.ModelAdmin[Any]):
    """Saves outside of the transaction that Django would open around it."""

    @method_decorator(csrf_protect)
    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        """Show or save the form. The services commit by themselves."""
        return self._changeform_view(request, object_id, form_url, extra_context)  # type: ignore[attr-defined]  # what Django's own calls inside its transaction


class ServiceAdmin(BoundedAdmin, _OutsideTransaction):
    """Writes through services, which commit by themselves."""


def confirmed(
    model_admin: Any,
    request: HttpRequest,
    rows: Any,
    *,
    about_one: str,
    about_many: str,
    button: str,
    form_class: type[forms.Form] = forms.Form,
) -> forms.Form | HttpResponse:
    """Return the filled-in form when a bulk action was confirmed, else the page that asks for it.

    It asks `about_one` row, or `about_many`, with their `{count}` filled in.
    More than `MAX_SELECTED` rows are not asked about, but refused.
    """
    ids = [str(pk) for pk in rows.order_by().values_list("pk", flat=True)[: MAX_SELECTED + 1]]
    if len(ids) > MAX_SELECTED:
        messages.error(request, f"Select at most {MAX_SELECTED:,} at a time.")
        return HttpResponseRedirect(request.get_full_path())
    is_sent = _CONFIRMED in request.POST
    form = form_class(request.POST if is_sent else None)
    if is_sent and form.is_valid():
        return form
    context = {
        **model_admin.admin_site.each_context(request),
        "title": f"{button}?",
        "question": about_one if len(ids) == 1 else about_many.format(count=len(ids)),
        "button": button,
        "form": form,
        "ids": ids,
        "ids_name": ACTION_CHECKBOX_NAME,
        "action_name": request.POST.get("action", ""),
        "confirmed_name": _CONFIRMED,
        "opts": model_admin.opts,
    }
    return TemplateResponse(request, "administration/confirm_action.html", context)


def go(address: str) -> HttpResponse:
    """Leave a dialog for a page."""
    return HttpResponse(headers={"HX-Redirect": address})


def log_changes(model_admin: Any, request: HttpRequest, rows: Iterable[Any], what: str) -> None:
    """Note in Django's own log who did what to which rows."""
    for row in rows:
        model_admin.log_change(request, row, what)
