"""A batch API over loopback HTTP that answers at once and by rule: python -m benchmarks.server FOLDER.

It prints its address. Runs beside whatever is measured, in a process of its own, the same for all of them.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import orjson

from benchmarks import batch

_CHUNK = 1 << 20


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    files = 0

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/files":
            _Handler.files += 1
            name = f"file-{_Handler.files}"
            lines = _uploaded(body, self.headers["Content-Type"].partition("boundary=")[2].encode())
            (self.folder / name).write_bytes(lines)
            self._say({"id": name, "object": "file", "bytes": len(lines), "filename": name, "purpose": "batch"})
        else:
            self._say(_batch(_answered(self.folder, json.loads(body)["input_file_id"])))

    def do_GET(self) -> None:
        _, _, kind, name, *_ = self.path.split("/")
        if kind == "batches":
            self._say(_batch(name))
            return
        path = self.folder / name
        self.send_response(200)
        self.send_header("Content-Length", str(path.stat().st_size))
        self.end_headers()
        with path.open("rb") as source:
            while chunk := source.read(_CHUNK):
                self.wfile.write(chunk)
        path.unlink()

    def _say(self, value: dict[str, object]) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        return None


def _uploaded(body: bytes, boundary: bytes) -> bytes:
    """The file in a multipart form."""
    for part in body.split(b"--" + boundary):
        head, _, content = part.partition(b"\r\n\r\n")
        if b'name="file"' in head:
            return content.removesuffix(b"\r\n")
    return b""


def _batch(name: str) -> dict[str, object]:
    return {
        "id": name,
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "input_file_id": name.replace("batch", "file"),
        "completion_window": "24h",
        "created_at": 1_770_000_000,
        "status": "completed",
        "output_file_id": name.replace("batch", "output"),
    }


def _answered(folder: Path, file_id: str) -> str:
    """Answer every line of a file; returns the batch's id."""
    name = file_id.removeprefix("file-")
    with (folder / file_id).open("rb") as source, (folder / f"output-{name}").open("wb") as out:
        for number, line in enumerate(source):
            request = orjson.loads(line)
            user = request["body"]["messages"][1]["content"]
            out.write(batch.answer_line(request["custom_id"], batch.fingerprint(user), number) + b"\n")
    (folder / file_id).unlink()
    return f"batch-{name}"


def main(folder: str) -> None:
    """Serve until terminated."""
    _Handler.folder = Path(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    print(f"127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
