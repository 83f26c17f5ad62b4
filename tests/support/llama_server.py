"""A program in place of llama-server: `/health` and `/completion` on its Unix socket.

Run as a program of its own; it says `--model`'s file name and the key of its environment.
"""

import json
import os
import socketserver
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    """Says one word, then ends."""

    def address_string(self) -> str:
        return "socket"

    def do_GET(self) -> None:
        self.answer(b'{"status":"ok"}')

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != f"Bearer {os.environ['LLAMA_API_KEY']}":
            self.send_error(401)
            return
        word = Path(argument("--model")).name[:10]
        frame = {"content": word, "tokens": [1], "stop": True, "stop_type": "eos"}
        self.answer(b"data: " + json.dumps(frame).encode() + b"\n\n")

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def argument(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


if __name__ == "__main__":
    print("0.00.001 I load_tensors: CPU model buffer size = 3.00 MiB", file=sys.stderr, flush=True)
    wish = os.environ.get("OMP_TEST", "")
    if wish == "refuse":
        sys.exit("0.00.002 E llama_model_load: error loading model: not today")
    if wish and not Path(wish).exists():  # memory is short until that file is there
        Path(wish).touch()
        sys.exit("0.00.002 E ggml_backend: failed to allocate buffer of size 99")
    with socketserver.ThreadingUnixStreamServer(argument("--host"), Handler) as server:
        server.serve_forever()
