"""The dynamic part of the site, behind mod_proxy on the server's loopback.

POST /login answers 303 and a session cookie for the right password and 401 for any other;
GET /search, GET /api/session, GET /api/status and POST /api/cart answer something small.

Usage: app.py PORT
"""

import html
import json
import secrets
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

# The only account; the password is public because nothing outside the recording accepts it.
ACCOUNT = ("reader", "correct-horse")


class Site(BaseHTTPRequestHandler):
    """Answers one request; mod_proxy keeps the connection."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = urlsplit(self.path)
        if url.path == "/search":
            query = html.escape(parse_qs(url.query).get("q", [""])[0])
            self.answer(200, "text/html", f"<!doctype html><title>search</title><h1>{query}</h1><p>3 results.</p>"
                        '<a href="/garden/1.html">garden</a> <a href="/travel/2.html">travel</a>')
        elif url.path == "/api/session":
            user = ACCOUNT[0] if "session=" in self.headers.get("Cookie", "") else None
            self.answer(200, "application/json", json.dumps({"user": user}))
        elif url.path == "/api/status":
            self.answer(200, "application/json", '{"status":"green"}')
        else:
            self.answer(404, "text/plain", "not found\n")

    do_HEAD = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/cart":
            self.answer(201, "application/json", '{"items":1}')
        elif self.path == "/login":
            form = parse_qs(body.decode("utf-8", "replace"))
            given = (form.get("user", [""])[0], form.get("password", [""])[0])
            if given == ACCOUNT:
                cookie = f"session={secrets.token_hex(16)}; Path=/; Secure; HttpOnly; SameSite=Lax"
                self.answer(303, "text/plain", "", {"Location": "/", "Set-Cookie": cookie})
            else:
                self.answer(401, "text/html", "<!doctype html><title>sign in</title><p>Wrong user or password.</p>")
        else:
            self.answer(404, "text/plain", "not found\n")

    def answer(self, status, kind, text, headers=None):
        """Sends one complete answer; a HEAD request gets no body."""
        body = text.encode("utf-8")
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Cache-Control": "no-store", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        """Apache's log is the request log."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Site).serve_forever()
