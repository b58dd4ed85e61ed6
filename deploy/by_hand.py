"""What is written down for processes that people start by hand (`servicekit.environment`)."""

from collections.abc import Mapping
from pathlib import Path

from deploy.settings import ROOT

DIRECTORY = ROOT / ".run"


def write_addresses(installation: Mapping[str, str], directory: Path = DIRECTORY) -> None:
    """Write the secrets and addresses in use by the names that the settings of a service read.

    For each service there is `<service>.env`, and `<service>-owner.env` for what changes tables.
    """
    directory.mkdir(exist_ok=True)
    for service, prefix in (("products", "PRODUCT"), ("orders", "ORDER")):
        name = f"{service.upper()}_DATABASE_URL"
        # Where there is one URL only, of a server of somebody else, it serves for everything.
        owner, broker = installation[name], installation["BROKER_URL"]
        names = ("SECRET_KEY", "CACHE_URL", "PRODUCT_API_URL", "ORDER_API_URL")
        known = {each: installation[each] for each in names}
        known["BROKER_URL"] = installation.get(f"{service.upper()}_BROKER_URL", broker)
        known["PUBLIC_URL"] = installation.get(f"{prefix}_PUBLIC_URL", "")
        runtime = installation.get(f"{service.upper()}_RUNTIME_DATABASE_URL", owner)
        _write(directory / f"{service}.env", {**known, name: runtime})
        # A migration may take longer than any request.
        patience = {"DATABASE_STATEMENT_TIMEOUT_MS": "3600000"}
        _write(directory / f"{service}-owner.env", {**known, name: owner, **patience})


def _write(path: Path, variables: Mapping[str, str]) -> None:
    path.touch(mode=0o600)
    lines = (f"{name}={value}\n" for name, value in variables.items())
    path.write_text("".join(["# Written by each `make up`.\n", *lines]))
