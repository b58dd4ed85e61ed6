"""What the routes of both services have in common."""

from rest_framework.routers import APIRootView, DefaultRouter

UUID_PATTERN = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
"""A UUID in a path. Anything else is a path that leads nowhere, so it is 404 and not 400."""


def router(root: type[APIRootView]) -> DefaultRouter:
    """Return a router without trailing slashes, whose root page is `root`."""
    made = DefaultRouter(trailing_slash=False)
    made.APIRootView = root
    made.include_format_suffixes = False
    return made
