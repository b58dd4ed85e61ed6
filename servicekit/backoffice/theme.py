"""How an admin looks: unfold's settings, the same for both services but for name and colour.

Read by the settings, before there are models; what needs those is named as text.
"""

from typing import Any

from django.templatetags.static import static

Palette = dict[str, str]

INDIGO: Palette = {
    "50": "oklch(96.2% .018 272.314)",
    "100": "oklch(93% .034 272.788)",
    "200": "oklch(87% .065 274.039)",
    "300": "oklch(78.5% .115 274.713)",
    "400": "oklch(67.3% .182 276.935)",
    "500": "oklch(66% .185 277.117)",
    "600": "oklch(51.1% .262 276.966)",
    "700": "oklch(45.7% .24 277.023)",
    "800": "oklch(39.8% .195 277.366)",
    "900": "oklch(35.9% .144 278.697)",
    "950": "oklch(25.7% .09 281.288)",
}
TEAL: Palette = {
    "50": "oklch(98.4% .014 180.72)",
    "100": "oklch(95.3% .051 180.801)",
    "200": "oklch(91% .096 180.426)",
    "300": "oklch(85.5% .138 181.071)",
    "400": "oklch(77.7% .152 181.912)",
    "500": "oklch(70.4% .14 182.503)",
    "600": "oklch(52% .1 184.704)",
    "700": "oklch(48% .092 186.391)",
    "800": "oklch(43.7% .078 188.216)",
    "900": "oklch(38.6% .063 188.416)",
    "950": "oklch(27.7% .046 192.524)",
}


def unfold(
    *, title: str, subtitle: str, symbol: str, palette: Palette, dashboard: str, sidebar: str
) -> dict[str, Any]:
    """Return Django's `UNFOLD` setting of one service."""
    return {
        "SITE_TITLE": title,
        "SITE_HEADER": title,
        "SITE_SUBHEADER": subtitle,
        "SITE_SYMBOL": symbol,
        "SITE_URL": "/",
        "LOGIN": {"form": "servicekit.backoffice.login.LoginForm"},
        "SITE_FAVICONS": [
            {
                "rel": "icon",
                "type": "image/svg+xml",
                "href": lambda _request: static(f"backoffice/{symbol}.svg"),
            }
        ],
        "COLORS": {"primary": palette},
        "BORDER_RADIUS": "8px",
        "SHOW_VIEW_ON_SITE": False,
        "SHOW_BACK_BUTTON": True,
        "STYLES": [lambda _request: static("backoffice/pages.css")],
        "SCRIPTS": [
            lambda _request: static("backoffice/keyboard.js"),
            lambda _request: static("backoffice/times.js"),
        ],
        "DASHBOARD_CALLBACK": dashboard,
        "SIDEBAR": {"navigation": sidebar},
    }
