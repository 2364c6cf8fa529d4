"""An address on this machine that notes who asks for it: what must never be fetched."""

import http.server
import threading
from contextlib import contextmanager


@contextmanager
def listening():
    """-> (host:port, the paths that were asked for)."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", asked
        server.shutdown()
