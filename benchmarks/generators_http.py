"""`knowgen serve` against a server whose requests poll for a free GPU, and what serving costs beside drawing.

    python benchmarks/generators_http.py [--images 64] [--seconds 0.5] [--clients 16] [--poll 5]

Both servers have one GPU, which is a pause of `--seconds`, and the same clients: each asks for a picture, waits for it
and asks for the next, until all are drawn. The polling server looks for a free GPU when a request comes and every
`--poll` seconds after, as the published server does; it is written here with the standard library. The cost of serving
is measured with a generator that takes no time, as the whole time divided by the pictures.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

GOAL_SECONDS = 0.005
"""Scheduling overhead an image."""

MAKER = '''
import io, time
from PIL import Image
from knowgen.generators.contract import GeneratedImage

buffer = io.BytesIO()
Image.new("RGB", (64, 64), (9, 9, 9)).save(buffer, "PNG")
PICTURE = buffer.getvalue()


class Pause:
    """One at a time."""
    revision = "1"

    def __init__(self, seconds=0.5):
        self.seconds = seconds

    def draw(self, prompt, references, seed):
        time.sleep(self.seconds)
        return PICTURE


class BatchPause(Pause):
    """A batch takes as long as one picture."""
    batch_size = 8
    draw = None

    def generate_batch(self, requests):
        time.sleep(self.seconds)
        for one in requests:
            yield GeneratedImage(image=PICTURE, request_id=one.id)
'''


def picture() -> str:
    """Returns the picture of the polling server in base64."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (9, 9, 9)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@contextmanager
def polling_server(seconds: float, poll: float) -> Iterator[str]:
    """Serves with one GPU for which every request polls; yields the address."""
    gpu = threading.Lock()
    answer = json.dumps({"success": True, "image": picture()}).encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            while not gpu.acquire(blocking=False):
                time.sleep(poll)
            try:
                time.sleep(seconds)
            finally:
                gpu.release()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def knowgen_serve(generator: str, seconds: float) -> Iterator[str]:
    """Runs `knowgen serve`; yields the address."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "maker.py").write_text(MAKER)
        words = ["serve", f"maker.py:{generator}", "-g", f"seconds={seconds}", "--port", "0"]
        process = subprocess.Popen(
            [sys.executable, "-m", "knowgen", *words],
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            url = "http://" + process.stdout.readline().partition("http://")[2].split()[0]
            while _get(url)["status"] != "healthy":
                time.sleep(0.05)
            yield url
        finally:
            process.terminate()
            process.wait()


def _get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/health", timeout=30) as response:
        return dict(json.loads(response.read()))


def ask(url: str, number: int) -> None:
    """Asks for one picture."""
    body = json.dumps({"prompt": f"number {number}", "image_urls": [], "seed": number}).encode()
    call = urllib.request.Request(f"{url}/generate", data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(call, timeout=3600) as response:
        assert json.loads(response.read())["success"] is True


def drive(url: str, images: int, clients: int) -> float:
    """Returns the seconds in which so many clients draw so many pictures."""
    ask(url, 0)
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(lambda number: ask(url, number), range(images)))
    return time.perf_counter() - began


def against_polling(images: int, seconds: float, clients: int, poll: float) -> None:
    """Prints how much sooner the pictures are there without polling."""
    floor = images * seconds
    print(f"{images} pictures, {clients} clients, one GPU, {seconds:g} s a picture: {floor:.1f} s at best")
    with knowgen_serve("Pause", seconds) as url:
        own = drive(url, images, clients)
    print(f"knowgen serve          {own:7.1f} s   {100 * floor / own:5.1f} % of the GPU")
    with knowgen_serve("BatchPause", seconds) as url:
        batched = drive(url, images, clients)
    print(f"knowgen serve, by 8    {batched:7.1f} s   where a batch of 8 takes as long as one")
    with polling_server(seconds, poll) as url:
        other = drive(url, images, clients)
    print(f"polling every {poll:g} s     {other:7.1f} s   {100 * floor / other:5.1f} % of the GPU")
    print(f"ratio                  {other / own:7.1f} x   ({other / batched:.1f} x with batches)")


def overhead(images: int, clients: int) -> bool:
    """Prints what serving costs an image; tells whether the goal is met."""
    met = True
    for many in (1, clients):
        with knowgen_serve("Pause", 0) as url:
            took = min(drive(url, images, many) for _ in range(3)) / images
        with polling_server(0, 0.0001) as url:
            plain = min(drive(url, images, many) for _ in range(3)) / images
        met = met and took < GOAL_SECONDS
        verdict = "met" if took < GOAL_SECONDS else "MISSED"
        print(
            f"{many:>2} client{'s' if many > 1 else ' '}: {1000 * took:.2f} ms an image, client included "
            f"(a bare server: {1000 * plain:.2f} ms); goal under {1000 * GOAL_SECONDS:g} ms {verdict}"
        )
    return met


def main() -> int:
    """Measures; ends with 1 when the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--poll", type=float, default=5.0)
    options = parser.parse_args()
    met = overhead(300, options.clients)
    against_polling(options.images, options.seconds, options.clients, options.poll)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
