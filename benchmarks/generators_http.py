"""Measure `knowgen serve`: throughput compared with a server that polls for a free GPU, and overhead per image.

    python benchmarks/generators_http.py [--images 64] [--seconds 0.5] [--clients 16] [--poll 5]

Both servers simulate one GPU by a pause of `--seconds` per image. Each client requests an image, waits for it and
requests the next. The polling server looks for a free GPU when a request arrives and every `--poll` seconds after, as
the published server does. The overhead is measured with a generator that takes no time.

Prints the milliseconds of overhead per image and whether the goal is met, then the seconds of each server, its share of
the GPU's time in use, and the ratio of both. Exits with 1 when the goal is missed.
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
"""Goal: maximum overhead per image, in seconds."""

GENERATORS = '''
import io, time
from PIL import Image
from knowgen.generators.contract import GeneratedImage

buffer = io.BytesIO()
Image.new("RGB", (64, 64), (9, 9, 9)).save(buffer, "PNG")
IMAGE = buffer.getvalue()


class Pause:
    """Generates one image at a time."""
    revision = "1"

    def __init__(self, seconds=0.5):
        self.seconds = seconds

    def draw(self, prompt, references, seed):
        time.sleep(self.seconds)
        return IMAGE


class BatchPause(Pause):
    """Generates a batch in the time of one image."""
    batch_size = 8
    draw = None

    def generate_batch(self, requests):
        time.sleep(self.seconds)
        for request in requests:
            yield GeneratedImage(image=IMAGE, request_id=request.id)
'''


def image_base64() -> str:
    """Return the image of the polling server in base64."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (9, 9, 9)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@contextmanager
def polling_server(seconds: float, poll: float) -> Iterator[str]:
    """Run a server with one GPU for which every request polls; yield its URL."""
    gpu = threading.Lock()
    response = json.dumps({"success": True, "image": image_base64()}).encode()

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
            self.send_header("Content-Length", str(len(response)))
            self.end_headers()
            self.wfile.write(response)

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

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
    """Run `knowgen serve` with a generator of `GENERATORS`; yield its URL."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "simulated.py").write_text(GENERATORS)
        arguments = ["serve", f"simulated.py:{generator}", "-g", f"seconds={seconds}", "--port", "0"]
        process = subprocess.Popen(
            [sys.executable, "-m", "knowgen", *arguments],
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            url = "http://" + process.stdout.readline().partition("http://")[2].split()[0]
            while _health(url)["status"] != "healthy":
                time.sleep(0.05)
            yield url
        finally:
            process.terminate()
            process.wait()


def _health(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/health", timeout=30) as response:
        return dict(json.loads(response.read()))


def generate(url: str, number: int) -> None:
    """Request one image and wait for it."""
    body = json.dumps({"prompt": f"number {number}", "image_urls": [], "seed": number}).encode()
    call = urllib.request.Request(f"{url}/generate", data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(call, timeout=3600) as response:
        assert json.loads(response.read())["success"] is True


def measure(url: str, images: int, clients: int) -> float:
    """Return the seconds in which `clients` clients generate `images` images."""
    generate(url, 0)
    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(lambda number: generate(url, number), range(images)))
    return time.perf_counter() - start


def against_polling(images: int, seconds: float, clients: int, poll: float) -> None:
    """Print the seconds of both servers and their ratio."""
    optimum = images * seconds
    print(f"{images} images, {clients} clients, one GPU, {seconds:g} s per image: {optimum:.1f} s at best")
    with knowgen_serve("Pause", seconds) as url:
        served = measure(url, images, clients)
    print(f"knowgen serve          {served:7.1f} s   {100 * optimum / served:5.1f} % of the GPU")
    with knowgen_serve("BatchPause", seconds) as url:
        batched = measure(url, images, clients)
    print(f"knowgen serve, by 8    {batched:7.1f} s   if a batch of 8 takes as long as one image")
    with polling_server(seconds, poll) as url:
        polling = measure(url, images, clients)
    print(f"polling every {poll:g} s     {polling:7.1f} s   {100 * optimum / polling:5.1f} % of the GPU")
    print(f"ratio                  {polling / served:7.1f} x   ({polling / batched:.1f} x with batches)")


def overhead(images: int, clients: int) -> bool:
    """Print the overhead per image; return whether the goal is met."""
    all_met = True
    for count in (1, clients):
        with knowgen_serve("Pause", 0) as url:
            served = min(measure(url, images, count) for _ in range(3)) / images
        with polling_server(0, 0.0001) as url:
            bare = min(measure(url, images, count) for _ in range(3)) / images
        all_met = all_met and served < GOAL_SECONDS
        outcome = "met" if served < GOAL_SECONDS else "MISSED"
        print(
            f"{count:>2} client{'s' if count > 1 else ' '}: {1000 * served:.2f} ms per image, client included "
            f"(a bare server: {1000 * bare:.2f} ms); goal under {1000 * GOAL_SECONDS:g} ms: {outcome}"
        )
    return all_met


def main() -> int:
    """Run both measurements; return 1 when the goal is missed."""
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
