"""Actions that ask before they act, on one row's page or on rows of a list."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.text import capfirst
from django.views.decorators.csrf import csrf_protect
from unfold.widgets import UnfoldAdminTextInputWidget

from servicekit.backoffice.display import counted
from servicekit.backoffice.ledgers import MAX_SELECTED, BoundedAdmin

_CONFIRMED = "confirmed"

Ask = Callable[[HttpRequest, Any], HttpResponse | None]
"""Asks about rows; acts, and returns nothing, once that is confirmed."""


class NoteForm(forms.Form):
    """Asks why."""

    note = forms.CharField(
        max_length=500,
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "Why?"}),
        help_text="Stays on record.",
    )


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

    overtaken: ClassVar[Mapping[type[Exception], str]] = {}
    """What saving raises if the row was changed since its page was opened; what to say of it, if
    not what the error says."""

    def beside(self, row: Any) -> Mapping[str, Any]:  # noqa: ARG002 - for those that show something
        """Return what the templates around a row's form show."""
        return {}

    def named(self, row: Any) -> str:
        """Return which row it is, for who decides about it."""
        return str(row)

    def offers(self, row: Any) -> Collection[str]:  # noqa: ARG002 - as above
        """Return which actions of its page can be taken with a row as it is now."""
        return ()

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        """Show one row, or save it."""
        row = self.get_object(request, object_id)
        extra = {
            **(extra_context or {}),
            **(self.beside(row) if row else {}),
            "show_save_and_add_another": False,
        }
        try:
            return super().change_view(request, object_id, form_url, extra)
        except tuple(self.overtaken) as error:
            messages.error(request, self.overtaken[type(error)] or str(error))
            return HttpResponseRedirect(request.get_full_path())

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Offer what can be done with the row."""
        return self._offered(request, object_id, super().get_actions_detail(request, object_id))

    def get_actions_submit_line(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Offer what can be done with it as it is saved."""
        actions = super().get_actions_submit_line(request, object_id)
        return self._offered(request, object_id, actions) if actions else actions

    def _offered(self, request: HttpRequest, object_id: Any, actions: list[Any]) -> list[Any]:
        row = self.get_object(request, str(object_id))
        offered = self.offers(row) if row else ()
        return [each for each in actions if each.path in offered]

    def page_of(self, pk: object) -> str:
        """Return the address of one row's page."""
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_change", args=[pk])

    def ask_about(self, request: HttpRequest, object_id: str, ask: Ask) -> HttpResponse:
        """Ask about one row what is asked about several in a list, and lead back to its page.

        What is not offered there any more is not asked about; confirmed, it is left with a reason.

        :raises Http404: if there is none
        """
        row = self.get_object(request, object_id)
        if row is None:
            raise Http404
        here = HttpResponseRedirect(self.page_of(row.pk))
        offered = {each.action_name for each in self.get_actions_detail(request, object_id)}
        if (
            request.method == "GET"
            and getattr(request.resolver_match, "url_name", "") not in offered
        ):
            messages.warning(request, f"No longer possible: the {self.opts.verbose_name} changed.")
            return here
        rows = self.model._default_manager.filter(pk=row.pk)  # noqa: SLF001 - Django documents it
        return ask(request, rows) or here


def confirmed(
    model_admin: Any,
    request: HttpRequest,
    rows: Any,
    *,
    about_one: str,
    about_many: str = "",
    button: str,
    leave: str = "Cancel",
    form: forms.Form | None = None,
    shown: str | Callable[[], str] = "",
) -> forms.Form | HttpResponse:
    """Return the filled-in form when an action was confirmed, else the page that asks for it.

    It asks `about_one` row, or `about_many`, with their `{count}` filled in, and shows `shown`,
    which is called only then.
    More than `MAX_SELECTED` rows are not asked about, but refused.
    """
    ids = [str(pk) for pk in rows.order_by().values_list("pk", flat=True)[: MAX_SELECTED + 1]]
    if len(ids) > MAX_SELECTED:
        messages.error(request, f"Select at most {MAX_SELECTED:,} at a time.")
        return HttpResponseRedirect(request.get_full_path())
    is_of_list = "action" in request.POST
    return asked(
        model_admin,
        request,
        subject=model_admin.named(rows[0]) if len(ids) == 1 else "",
        question=about_one if len(ids) == 1 else about_many.format(count=len(ids)),
        button=button,
        leave=leave,
        leave_to=request.get_full_path() if is_of_list else model_admin.page_of(ids[0]),
        form=form,
        shown=shown,
        ids=ids,
    )


def asked(
    model_admin: Any,
    request: HttpRequest,
    *,
    subject: str = "",
    question: str,
    button: str,
    leave_to: str,
    leave: str = "Cancel",
    form: forms.Form | None = None,
    shown: str | Callable[[], str] = "",
    ids: Collection[str] = (),
) -> forms.Form | HttpResponse:
    """Return the filled-in form when a question was answered, else the page that asks it."""
    is_sent = _CONFIRMED in request.POST
    form = form or forms.Form(request.POST if is_sent else None)
    if is_sent and form.is_valid():
        return form
    context = {
        **model_admin.admin_site.each_context(request),
        "title": f"{button}?",
        "subject": subject,
        "question": question,
        "shown": shown,
        "button": button,
        "leave": leave,
        "leave_to": leave_to,
        "form": form,
        "ids": ids,
        "ids_name": ACTION_CHECKBOX_NAME,
        "action_name": request.POST.get("action", ""),
        "confirmed_name": _CONFIRMED,
        "opts": model_admin.opts,
    }
    return TemplateResponse(request, "backoffice/confirm_action.html", context)


def report(
    model_admin: Any,
    request: HttpRequest,
    *,
    done: str,
    rows: Sequence[Any],
    left: Mapping[str, int],
    note: str | Callable[[Any], str] = "",
) -> None:
    """Say, and log, what was done to which rows, and how many were left for which reasons."""
    noun, nouns = str(model_admin.opts.verbose_name), str(model_admin.opts.verbose_name_plural)
    for row in rows:
        said = note(row) if callable(note) else note
        model_admin.log_change(request, row, f"{capfirst(done)}{f': {said}' if said else '.'}")
    if rows:
        what = capfirst(noun) if len(rows) == 1 else counted(len(rows), noun, nouns)
        messages.success(request, f"{what} {done}.")
    for why, count in left.items():
        messages.warning(request, f"{counted(count, noun, nouns)} left unchanged: {why}.")
