"""An HTTPS server that sends one JSON line a request to a datagram socket, as mod_reqin_log does.

Usage: server.py ADDRESS PORT CERTIFICATE KEY SOCKET
"""

import json
import socket
import ssl
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Handler(BaseHTTPRequestHandler):
    """Answers everything; the log line carries when the request line was read, before the answer."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Sends the log line, then the answer: a client that has its answer knows that the line is on its way."""
        body = b"hello\n"
        target = urlsplit(self.path)
        local = self.connection.getsockname()
        line = {
            "timestamp": self.read_at, "src_ip": self.client_address[0], "src_port": self.client_address[1],
            "dst_ip": local[0], "dst_port": local[1], "method": self.command, "scheme": "https",
            "host": self.headers.get("Host", ""), "path": target.path, "query": target.query,
            "http_version": self.request_version, "status_code": 200, "response_size": len(body), "duration_ms": 0,
            "has_cookie": "Cookie" in self.headers,
        } | {f"header_{name}": value for name, value in self.headers.items() if name != "Host"}
        self.server.log.send(json.dumps(line).encode())
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def parse_request(self) -> bool:
        """Notes the time of the request line."""
        self.read_at = time.time_ns()
        return super().parse_request()

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing on the terminal."""


class Server(ThreadingHTTPServer):
    """TLS on each connection, in the connection's own thread."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext, log: socket.socket) -> None:
        super().__init__(address, Handler)
        self.context, self.log = context, log

    def finish_request(self, request: socket.socket, client_address: object) -> None:
        """The handshake, then the requests."""
        with self.context.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no news."""


def main() -> None:
    """Serves until it is ended."""
    address, port, certificate, key, path = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    log.connect(path)
    Server((address, int(port)), context, log).serve_forever()


if __name__ == "__main__":
    main()
