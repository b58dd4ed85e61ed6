"""Links between the admins of the two services."""

from typing import Any
from uuid import UUID

from django.apps import apps
from django.conf import settings
from django.http import HttpRequest
from django.http.request import split_domain_port
from django.utils.html import format_html
from django.utils.safestring import SafeString

from servicekit.backoffice.display import code, link


def other_admin(request: HttpRequest) -> str:
    """Return where this browser finds the other service's admin; nothing if nobody has said so."""
    other = settings.OTHER_SERVICE
    host, _port = split_domain_port(request.get_host())
    ported = f"{request.scheme}://{host}:{other['port']}" if other["port"] else ""
    site = other["public"] or ported
    return site and f"{site}/admin/"


def address(path: str, elsewhere: str) -> str:
    """Return where a page is, `orders/order/`: in this admin, or in the other one, if known."""
    is_ours = path.partition("/")[0] in apps.app_configs
    base = "/admin/" if is_ours else elsewhere
    return base and base + path


def is_id(value: object) -> bool:
    """Return whether this can be an id of ours: a UUID."""
    try:
        return bool(UUID(str(value)))
    except ValueError:
        return False


def page_link(row: Any, model: str, pk: object) -> SafeString:
    """Return a link from a row to the page of `orders/order` or the like; text if it has none."""
    # The order of another producer may have another id; then no service has a page for it.
    target = is_id(pk) and address(f"{model}/{pk}/change/", row.other_admin)
    return link(target, code(pk)) if target else code(pk)


def icon_link(target: str, title: str) -> SafeString:
    """Return a symbol that leads to a page beside what is shown; nothing without an address."""
    markup = (
        '<a class="material-symbols-outlined text-base" href="{0}" title="{1}" aria-label="{1}">'
        "open_in_new</a>"
    )
    return format_html(markup, target, title) if target else SafeString()
