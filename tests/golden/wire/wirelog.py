#!/usr/bin/env python3
"""A small logging reverse proxy for HTTP/1.1.

    python wirelog.py LISTEN_PORT TARGET_HOST:PORT LOG.json [--add-location]

Every request is passed on with its Host header unchanged and written to the log with its answer.  Bodies are streamed;
the log holds their size and sha256, and the text itself when it is small JSON.  --add-location adds a Location header
to a 200 answer to GET /v2/.../blobs/sha256:... (see README.md).
"""

import hashlib
import http.client
import http.server
import json
import sys
import threading


class LogProxy:
    def __init__(self, target, port=0, add_location=False, inline=20000):
        self.log, self.lock = [], threading.Lock()
        self.target, self.add_location, self.inline = target, add_location, inline
        outer = self

        class H(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *a):
                pass

            def any(self):
                outer.pass_on(self)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = any

        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", port), H)
        self.httpd.daemon_threads = True
        self.httpd.handle_error = lambda *a: None
        self.port = self.httpd.server_address[1]
        self.host = f"127.0.0.1:{self.port}"
        threading.Thread(target=self.httpd.serve_forever, daemon=True).start()

    def take(self):
        with self.lock:
            out, self.log = self.log, []
        return out

    def pass_on(self, h):
        path, _, query = h.path.partition("?")
        e = {"method": h.command, "path": path}
        if query:
            e["query"] = query
        e["headers"] = {k: v for k, v in h.headers.items()}
        with self.lock:
            self.log.append(e)
        host, _, port = self.target.partition(":")
        c = http.client.HTTPConnection(host, int(port or 80), timeout=300)
        c.putrequest(h.command, h.path, skip_host=True, skip_accept_encoding=True)
        for k, v in h.headers.items():
            if k.lower() not in ("connection",):
                c.putheader(k, v)
        c.endheaders()
        e["request_body"] = self.copy(
            self.reader(h), c.send, h.headers.get("Transfer-Encoding", "").lower() == "chunked"
        )
        r = c.getresponse()
        hdrs = [
            (k, v)
            for k, v in r.getheaders()
            if k.lower() not in ("connection", "transfer-encoding", "date")
        ]
        e["status"] = r.status
        if (
            self.add_location
            and h.command == "GET"
            and r.status == 200
            and "/blobs/sha256:" in path
        ):
            hdrs.append(("Location", f"http://{h.headers['Host']}{path}"))
        e["response_headers"] = dict(hdrs)
        chunked = (
            r.getheader("Content-Length") is None
            and h.command != "HEAD"
            and r.status not in (204, 304)
        )
        if chunked:
            e["response_headers"]["Transfer-Encoding"] = "chunked"
        h.send_response_only(r.status)
        for k, v in hdrs:
            h.send_header(k, v)
        if chunked:
            h.send_header("Transfer-Encoding", "chunked")
        h.end_headers()
        if h.command == "HEAD":
            r.read()
            e["response_body"] = None
        else:

            def gen():
                while True:
                    b = r.read1(1 << 16)
                    if not b:
                        return
                    yield b

            try:
                e["response_body"] = self.copy(gen(), h.wfile.write, chunked, h.wfile.flush)
            except (BrokenPipeError, ConnectionResetError):
                e["response_body"] = (
                    "(the client closed the connection while the answer was being sent)"
                )
                h.close_connection = True
        c.close()
        e.pop("request_body") if e["request_body"] is None else None
        e.pop("response_body") if e["response_body"] is None else None

    @staticmethod
    def reader(h):
        if h.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while True:
                n = int(h.rfile.readline().strip() or b"0", 16)
                if n == 0:
                    h.rfile.readline()
                    return
                yield h.rfile.read(n)
                h.rfile.readline()
        left = int(h.headers.get("Content-Length") or 0)
        while left:
            b = h.rfile.read(min(left, 1 << 16))
            if not b:
                return
            left -= len(b)
            yield b

    def copy(self, chunks, write, chunked, flush=None):
        n, sha, keep = 0, hashlib.sha256(), b""
        for b in chunks:
            n += len(b)
            sha.update(b)
            if len(keep) <= self.inline:
                keep += b
            write(b"%x\r\n" % len(b) + b + b"\r\n" if chunked else b)
            if flush:
                flush()
        if chunked:
            write(b"0\r\n\r\n")
        if n == 0:
            return None
        if n <= self.inline:
            try:
                t = keep.decode()
                try:
                    return {"size": n, "sha256": sha.hexdigest(), "json": json.loads(t)}
                except ValueError:
                    if t.isprintable() or "\n" in t:
                        lines = (
                            [json.loads(x) for x in t.split("\n") if x.strip()]
                            if t.lstrip().startswith("{")
                            else None
                        )
                        return (
                            {"size": n, "ndjson": lines}
                            if lines
                            else {"size": n, "sha256": sha.hexdigest(), "text": t}
                        )
            except (UnicodeDecodeError, ValueError):
                pass
        return {"size": n, "sha256": sha.hexdigest()}


def main():
    port, target, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    p = LogProxy(target, port, "--add-location" in sys.argv)
    print(f"{p.host} -> {target}; ctrl-c writes {out}")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        json.dump(p.take(), open(out, "w"), indent=1)


if __name__ == "__main__":
    main()
