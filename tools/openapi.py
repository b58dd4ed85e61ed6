"""`make schema`: the OpenAPI documents in `docs/openapi/`, written anew or compared.

They are what `/schema` answers. A change of the API is seen in them before it is merged, and
clients are generated from them without a running service.
"""

import difflib
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from deploy.addresses import addresses_of
from deploy.native.ports import Ports
from deploy.settings import ROOT

DIRECTORY = ROOT / "docs" / "openapi"
DOCUMENTS = {
    "products_project": DIRECTORY / "product-service.yaml",
    "orders_project": DIRECTORY / "order-service.yaml",
}

# No server is reached; the settings only want the variables to be there.
_NOWHERE = Ports(postgres=1, redis=1, rabbitmq=1, product=1)
_ENVIRONMENT = {**addresses_of(_NOWHERE, defaultdict(str)), "SECRET_KEY": "for the schema only"}


def generate(project: str) -> str:
    """Return a project's document, which is valid by the meta-schema of OpenAPI 3.1.

    :raises subprocess.CalledProcessError: if something of it is undocumented or invalid
    """
    with tempfile.TemporaryDirectory() as directory:
        written = Path(directory, "schema.yaml")
        command = [sys.executable, f"{project}/manage.py", "spectacular", "--file", str(written)]
        settings = {"DJANGO_SETTINGS_MODULE": f"{project}.config.settings"}
        subprocess.run(
            [*command, "--validate", "--fail-on-warn"],
            cwd=ROOT,
            env={**os.environ, **_ENVIRONMENT, **settings},
            check=True,
        )
        return written.read_text()


def write_or_compare(path: Path, text: str, *, compare: bool, command: str) -> bool:
    """Write a generated file, or only say how it differs; return whether all is well."""
    if not compare:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return True
    present = path.read_text() if path.exists() else ""
    if present == text:
        return True
    name = str(path.relative_to(ROOT))
    texts = present.splitlines(), text.splitlines()
    difference = difflib.unified_diff(*texts, name, "generated", lineterm="", n=2)
    print("\n".join(list(difference)[:60]))
    print(
        f"\n{name} is not what the code says. If the change is meant: `{command}`, and commit it."
    )
    return False


def main(arguments: Sequence[str]) -> int:
    """Write the documents, or with `--check` compare them; return 0 if all is well."""
    compare = "--check" in arguments
    try:
        results = [
            write_or_compare(path, generate(project), compare=compare, command="make schema")
            for project, path in DOCUMENTS.items()
        ]
    except subprocess.CalledProcessError:
        return 1
    return int(not all(results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
