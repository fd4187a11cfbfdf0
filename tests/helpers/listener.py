"""The HTTP listener of the servers that tests start."""

from __future__ import annotations

from http.server import ThreadingHTTPServer


class Listener(ThreadingHTTPServer):
    """Answers each connection in a thread of its own, for hundreds of connections at once."""

    daemon_threads = True
    request_queue_size = 256
