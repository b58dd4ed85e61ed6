"""The sidebar: the same sections in both services, in the same order."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse

from servicekit.backoffice.elsewhere import other_admin
from servicekit.dead_letters.selectors import waiting_count


@dataclass(frozen=True)
class Entry:
    """An entry of the sidebar that leads to a model's list."""

    title: str
    icon: str
    app: str
    model: str

    def navigation(self, badge: str = "") -> dict[str, Any]:
        """Return it as unfold takes it, shown to those who may see the list."""
        item: dict[str, Any] = {
            "title": self.title,
            "icon": self.icon,
            "link": reverse(f"admin:{self.app}_{self.model}_changelist"),
            "permission": lambda request: request.user.has_perm(f"{self.app}.view_{self.model}"),
        }
        return item | ({"badge": badge, "badge_variant": "danger"} if badge else {})


def sections(request: HttpRequest, title: str, entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Return the sidebar of a service: its own lists under `title`, and what every service has."""
    waiting, other = waiting_count(), other_admin(request)
    dead_letters = Entry("Dead letters", "report", "dead_letters", "deadletter")
    return [
        {
            "items": [
                {"title": "Dashboard", "icon": "monitoring", "link": reverse("admin:index")},
                {"title": "System", "icon": "monitor_heart", "link": reverse("system")},
                *([_page(settings.OTHER_SERVICE["name"], "open_in_new", other)] if other else []),
            ]
        },
        {"title": title, "items": [entry.navigation() for entry in entries]},
        {
            "title": "Failed messages",
            "items": [
                dead_letters.navigation(badge=str(waiting) if waiting else ""),
                Entry("Outbox", "outbox", "outbox", "outgoingevent").navigation(),
            ],
        },
        {
            "title": "Accounts",
            "items": [
                Entry("Users", "person", "auth", "user").navigation(),
                Entry("Groups", "group", "auth", "group").navigation(),
                Entry("API keys", "key", "access", "apikey").navigation(),
            ],
        },
        {
            "title": "Developers",
            "items": [
                _page("API", "api", "/"),
                _page("Documentation", "menu_book", "/docs"),
            ],
        },
    ]


def _page(title: str, icon: str, link: str) -> dict[str, Any]:
    # Never the page one is on; unfold would take "/" for the root of every page.
    return {"title": title, "icon": icon, "link": link, "active": lambda _request: False}
