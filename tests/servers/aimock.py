"""aimock, a stand-in for OpenAI's APIs that was written elsewhere: it completes a batch at its second look.

https://aimock.copilotkit.dev. Lenient with what it is sent, and it gives every request the same answer.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers.process import serving

NODE = Path(__file__).parents[2] / ".node"
ANSWER = "Mock batch completion"


@contextmanager
def aimock() -> Iterator[str]:
    """The address of a server, e.g. `http://127.0.0.1:34567`; its API is below `/v1`."""
    node, program = NODE / "bin" / "node", NODE / "node_modules" / "@copilotkit" / "aimock" / "dist" / "cli.js"
    if not (node.exists() and program.exists()):
        raise RuntimeError(f"aimock is not in {NODE}: run infra/dev/node.sh, or make test")
    with tempfile.TemporaryDirectory(prefix="aimock-") as folder:
        # It will not start without an answer to give, even where none is asked for.
        fixtures = Path(folder) / "fixtures.json"
        fixtures.write_text('{"fixtures": [{"match": {"userMessage": "hello"}, "response": {"content": "hello"}}]}')

        def command(port: int) -> list[str]:
            address = ["--host", "127.0.0.1", "--port", str(port)]
            return [str(node), str(program), *address, "--fixtures", str(fixtures), "--log-level", "warn"]

        with serving(command, ready="/v1/models") as url:
            yield url
