"""Azurite, Microsoft's stand-in for Azure Blob Storage. It checks the signature of every request."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers.process import serving

NODE = Path(__file__).parents[2] / ".node"
ACCOUNT = "devstoreaccount1"
# The same for every Azurite: https://learn.microsoft.com/azure/storage/common/storage-connect-azurite
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@contextmanager
def azurite() -> Iterator[str]:
    """The address of a server whose data lie in a temporary folder, e.g. `http://127.0.0.1:34567`."""
    node, program = NODE / "bin" / "node", NODE / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    if not (node.exists() and program.exists()):
        raise RuntimeError(f"Azurite is not in {NODE}: run infra/dev/node.sh, or make test")
    with tempfile.TemporaryDirectory(prefix="azurite-") as folder:

        def command(port: int) -> list[str]:
            address = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", folder]
            # It asks for no API version that it does not know, and tells nobody that it runs.
            return [str(node), str(program), *address, "--silent", "--skipApiVersionCheck", "--disableTelemetry"]

        with serving(command) as url:
            yield url


def connection_string(url: str) -> str:
    """What the Azure libraries are told to reach that server."""
    scheme = url.partition(":")[0]
    return f"DefaultEndpointsProtocol={scheme};AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={url}/{ACCOUNT};"


def environ(url: str) -> dict[str, str]:
    """The environment under which Lowtide and adlfs talk to that server."""
    return {"AZURE_STORAGE_CONNECTION_STRING": connection_string(url)}
