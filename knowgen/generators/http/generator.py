"""`http:URL[,URL…]`: any model behind servers with the `/generate` API, such as those of `knowgen serve`.

knowgen run --task knowgen_mini --generator http:http://gpu1:8001,http://gpu2:8001 -g system=qwen-image-edit
"""

from __future__ import annotations

import asyncio
import base64
import io
import os
from typing import Any

from knowgen.clients.endpoint_url import endpoint_url
from knowgen.clients.http_client import HttpClient
from knowgen.clients.response_body import UnreadableBodyError, read_body
from knowgen.clients.stated_wait import retry_after
from knowgen.core.errors import ConfigError, ServiceUnavailableError, UsageError
from knowgen.core.images import open_image, read_image_file
from knowgen.core.records import GenerationRequest, GenerationStatus, ImageRef
from knowgen.core.secrets import check_variable_name, remember_secret
from knowgen.generators.contract import GeneratedImage
from knowgen.generators.http.responses import GenerateResponse, HttpOutcome, read_response
from knowgen.generators.http.servers import FIRST_PAUSE, HEALTH_TIMEOUT, NoServerError, Server, Servers

WHERE = "generator http"
_EXPECTED = "write http:http://HOST:PORT[,http://HOST:PORT]"
_MAX_RESPONSE_BYTES = 256 << 20
_CONNECT_SECONDS = 10.0
_MIME_SUBTYPES = {"PNG": "png", "JPEG": "jpeg", "WEBP": "webp"}


class HttpGenerator:
    """Generate on servers with the `/generate` API: on the least loaded one, up to the capacity each reports.

    Images depend on the served model and not on the server's URL. `system` therefore names what is served, and takes
    the place of the URLs in the run's identity. Without it the URLs are the identity.

    The defaults are those of Qwen-Image-Edit-2509 in the published table. A server may use settings of its own;
    `knowgen serve` does, and reports the ones it did not follow.

    Args:
        model: URLs, separated by commas, without `/generate`.
        system: Name of what is served, such as `qwen-image-edit-2509`.
        steps: Denoising steps, sent as `num_inference_steps`.
        true_cfg_scale: Field of the API of the same name.
        guidance_scale: Field of the API of the same name.
        negative_prompt: Field of the API of the same name; a single space means none.
        suffix: Text appended to every prompt.
        most_references: Maximum number of a request's reference images that are sent, the first ones.
        per_server: Maximum number of concurrent calls to each server; 0 takes what its `/health` reports.
        timeout: Seconds for one call.
        patience: Seconds to wait for a server with free capacity.
        health_every: Seconds between two health checks.
        health_timeout: Seconds to wait for a health check.
        first_pause: Seconds without calls to a busy server that does not say how long to wait; doubled while it stays
            busy.
        key_env: Environment variable with a token, sent as a bearer token; empty for none.

    Raises:
        UsageError: A URL or a number is not valid.
        ConfigError: A URL holds a secret, or the variable of the token is not set.

    Example:
        >>> HttpGenerator("http://gpu1:8001,http://gpu2:8001").urls
        ['http://gpu1:8001', 'http://gpu2:8001']
        >>> HttpGenerator.display_name("http://gpu1:8001", system="qwen-image-edit")
        'http:qwen-image-edit'
    """

    references = True
    concurrency = 16
    deadline = 8000.0
    revision = "1"
    identity_excludes = frozenset({"per_server", "patience", "health_every", "health_timeout", "first_pause"})

    def __init__(
        self,
        model: str,
        *,
        system: str = "",
        steps: int = 40,
        true_cfg_scale: float = 4.0,
        guidance_scale: float = 1.0,
        negative_prompt: str = " ",
        suffix: str = "",
        most_references: int = 3,
        per_server: int = 0,
        timeout: float = 1800.0,
        patience: float = 6000.0,
        health_every: float = 10.0,
        health_timeout: float = HEALTH_TIMEOUT,
        first_pause: float = FIRST_PAUSE,
        key_env: str = "",
    ) -> None:
        self.urls = server_urls(model)
        self.system, self.suffix, self.most_references = system, suffix, most_references
        self.per_server, self.timeout, self.patience, self.health_every = per_server, timeout, patience, health_every
        self.health_timeout, self.first_pause = health_timeout, first_pause
        self._settings: dict[str, Any] = {
            "num_inference_steps": steps,
            "true_cfg_scale": true_cfg_scale,
            "guidance_scale": guidance_scale,
            "negative_prompt": negative_prompt,
        }
        _check_numbers(steps=steps, timeout=timeout, patience=patience, health_every=health_every)
        _check_numbers(health_timeout=health_timeout, first_pause=first_pause)
        if per_server < 0 or most_references < 0:
            raise UsageError("per_server and most_references must be 0 or more", where=WHERE)
        self._token = _token(key_env)
        self._client: HttpClient | None = None
        self._servers: Servers | None = None

    @staticmethod
    def reference_limit(most_references: int = 3, **_: Any) -> int:
        """Return the maximum number of reference images of a request that are used."""
        return most_references

    @staticmethod
    def display_name(model: str, system: str = "", **_: Any) -> str:
        """Return the name under which results are stored and shown.

        Args:
            model: URLs as the user wrote them.
            system: Name of what is served.
        """
        return f"http:{system}" if system else f"http:{','.join(sorted(server_urls(model)))}"

    async def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Generate one image. A busy or broken server is skipped for another.

        Raises:
            ServiceUnavailableError: No server generated it within `patience`, or none generates anything.
            ConfigError: The token is wrong, or no server answers at these URLs.
        """
        servers = self._current_servers()
        body = await asyncio.to_thread(self._body, request)
        until = servers.loop.time() + self.patience
        await servers.wait_until_checked()
        if not any(server.responded for server in servers.all):
            raise self._no_server(servers)
        reason, retry_delay, busy = "", None, True
        failures, started = 0, servers.loop.time()
        while failures <= len(servers.all) and servers.loop.time() < until and not servers.silent_since(started):
            try:
                server = await servers.next_free(until)
            except NoServerError as error:
                raise self._unavailable(reason or str(error), busy, retry_delay) from error
            with servers.call(server):
                response = await self._post(server, body)
                image = self._handle(servers, server, response, request)
            if image is not None:
                return image
            reason, retry_delay = f"{server.url}: {response.reason}", response.retry_after
            if response.outcome is not HttpOutcome.BUSY:  # wait for a busy server, but limit attempts at a broken one
                failures += 1
                busy = response.reason.startswith("cannot be reached")
        raise self._unavailable(reason, busy, retry_delay)

    def _unavailable(self, reason: str, busy: bool, retry_delay: float | None) -> ServiceUnavailableError:
        service = f"http:{self.system or ','.join(self.urls)}"
        return ServiceUnavailableError(reason, service=service, busy=busy, retry_after=retry_delay)

    async def check_service(self) -> None:
        """Check that a server answers at one of the URLs.

        Raises:
            ConfigError: None does.
        """
        servers = self._current_servers()
        await servers.wait_until_checked()
        if not any(server.responded for server in servers.all):
            raise self._no_server(servers)

    def _no_server(self, servers: Servers) -> ConfigError:
        return ConfigError(
            servers.describe(), where=WHERE, fix="start it first (knowgen serve GENERATOR), or correct the URL"
        )

    def _handle(
        self, servers: Servers, server: Server, response: GenerateResponse, request: GenerationRequest
    ) -> GeneratedImage | None:
        """Return the result of a response, None when another server or a later call may give one.

        Raises:
            ConfigError: No request would succeed.
        """
        outcome, reason = response.outcome, response.reason
        if outcome is HttpOutcome.DENIED:
            raise ConfigError(
                f"{server.url} rejects the token: {reason}",
                where=WHERE,
                fix="put the token into an environment variable and name it with -g key_env=NAME",
            )
        if outcome is HttpOutcome.ABSENT and not server.has_generated:
            raise ConfigError(f"{server.url}/generate does not exist: {reason}", where=WHERE, fix="correct the URL")
        if outcome is HttpOutcome.BUSY:
            servers.mark_busy(server, response.retry_after)
            return None
        if outcome in (HttpOutcome.BROKEN, HttpOutcome.ABSENT):
            servers.mark_failed(server, reason, dead=reason.startswith("cannot be reached"))
            return None
        servers.mark_working(server)
        return self._generated_image(server, response, request)

    def _generated_image(
        self, server: Server, response: GenerateResponse, request: GenerationRequest
    ) -> GeneratedImage:
        settings = {**self._settings, "server": server.url} | ({"system": self.system} if self.system else {})
        if response.outcome is not HttpOutcome.IMAGE:
            refused = response.outcome is HttpOutcome.REFUSED
            status = GenerationStatus.REFUSED if refused else GenerationStatus.FAILED
            return GeneratedImage(request_id=request.id, status=status, reason=response.reason, settings=settings)
        metadata = dict(response.metadata or {})
        if unused := metadata.pop("unused", None):
            settings = {name: value for name, value in settings.items() if name not in unused}
        if served := metadata.pop("served", None):
            settings["served"] = served
        used = metadata.pop("used_prompt", "") or (request.prompt + self.suffix if self.suffix else "")
        return GeneratedImage(
            image=response.image, request_id=request.id, settings=settings, used_prompt=used, **metadata
        )

    def _body(self, request: GenerationRequest) -> dict[str, Any]:
        """Return the body of a request. Call it in a thread: it reads image files."""
        used = request.references[: self.most_references]
        return {
            "image_urls": [_data_url(reference) for reference in used],  # some servers reject null
            "prompt": request.prompt + self.suffix,
            "seed": request.seed,
            "num_images_per_prompt": 1,
            **self._settings,
        }

    async def _post(self, server: Server, body: dict[str, Any]) -> GenerateResponse:
        """Send a request to a server; connection errors become outcomes."""
        import aiohttp

        assert self._client is not None
        try:
            async with (
                asyncio.timeout(self.timeout),
                self._client.post(f"{server.url}/generate", json=body) as response,
            ):
                data = await read_body(response, _MAX_RESPONSE_BYTES)
                delay = retry_after(response.headers)
                return await asyncio.to_thread(read_response, response.status, data, delay, self._token)
        except UnreadableBodyError as error:
            return GenerateResponse(HttpOutcome.BROKEN, error.what)
        except aiohttp.ServerTimeoutError:
            return GenerateResponse(
                HttpOutcome.BROKEN, f"cannot be reached (no connection within {_CONNECT_SECONDS:g} s)"
            )
        except TimeoutError:
            return GenerateResponse(HttpOutcome.BROKEN, f"no image within {self.timeout:g} s")
        except aiohttp.ClientConnectorError as error:
            return GenerateResponse(HttpOutcome.BROKEN, f"cannot be reached ({type(error.os_error).__name__})")
        except (aiohttp.ClientError, ConnectionError) as error:
            return GenerateResponse(HttpOutcome.BROKEN, f"the response was lost ({type(error).__name__})")

    def _current_servers(self) -> Servers:
        """Return the servers as used in the running event loop, new ones in a new loop."""
        loop = asyncio.get_running_loop()
        if self._servers is None or self._servers.loop is not loop:
            headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
            self._client = HttpClient(headers, _CONNECT_SECONDS)
            self._servers = Servers(
                self.urls,
                self._client,
                self.per_server,
                self.health_every,
                self.health_timeout,
                self.first_pause,
                token=self._token,
            )
        return self._servers

    async def close(self) -> None:
        """Close the connections. Call it in the event loop in which they were used."""
        servers, self._servers = self._servers, None
        if servers is not None and servers.loop is asyncio.get_running_loop():
            await servers.close()


def server_urls(model: str) -> list[str]:
    """Return the URLs in a model name, without duplicates and in one spelling.

    Raises:
        UsageError: There is none, or one is not an http URL.
        ConfigError: One holds a password or a query.
    """
    urls: list[str] = []
    for part in str(model).split(","):
        if not part.strip():
            continue
        try:
            url = endpoint_url(part.strip(), WHERE).removesuffix("/generate")
            if "?" in url:
                raise ConfigError("a URL must not hold a query", where=WHERE)
        except UsageError as error:
            raise UsageError("not an http URL", where=WHERE, fix=_EXPECTED) from error
        except ConfigError as error:
            raise ConfigError(
                "a URL must not hold a user, a password or a query, because it is recorded",
                where=WHERE,
                fix="put a token into an environment variable and name it with -g key_env=NAME",
            ) from error
        if url not in urls:
            urls.append(url)
    if not urls:
        raise UsageError("no server URL is given", where=WHERE, fix=_EXPECTED)
    return urls


def _data_url(reference: ImageRef) -> str:
    """Return a reference image as a data URL: byte for byte where every server sees the same in it, else as PNG.

    Raises:
        UnreadableImageError: It has no file, or does not open.
    """
    if reference.path is None:
        raise ConfigError(f"reference image {reference.sha256[:12]} has no file on this machine", where=WHERE)
    data = read_image_file(reference.path)
    opened = open_image(data)
    subtype = _MIME_SUBTYPES.get(opened.format)
    if subtype is None or opened.notes:  # such as an EXIF turn or a colour profile, which servers may ignore
        buffer = io.BytesIO()
        opened.image.save(buffer, "PNG")
        subtype, data = "png", buffer.getvalue()
    return f"data:image/{subtype};base64,{base64.b64encode(data).decode('ascii')}"


def _check_numbers(**numbers: float) -> None:
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise UsageError(f"{name} must be a number > 0, got {value}", where=WHERE)


def _token(key_env: str) -> str:
    """Return the token in an environment variable, empty when none is named."""
    if not key_env:
        return ""
    check_variable_name(key_env, "key_env", "SERVE_TOKEN", WHERE)
    token = os.environ.get(key_env, "").strip()
    if not token:
        raise ConfigError(f"the variable {key_env} is not set", where=WHERE, fix=f"type: export {key_env}=<the token>")
    remember_secret(token)
    return token
