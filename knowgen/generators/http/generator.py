"""`http:URL[,URL…]`: any model behind servers of the `/generate` format, such as `knowgen serve` offers.

knowgen run --task knowgen_mini --generator http:http://gpu1:8001,http://gpu2:8001 -g system=qwen-image-edit
"""

from __future__ import annotations

import asyncio
import base64
import os
from typing import TYPE_CHECKING, Any

from knowgen.clients.endpoint_url import endpoint_url, is_loopback, retry_after
from knowgen.core.errors import ConfigError, TransientError, UsageError
from knowgen.core.records import GenerationRequest, GenerationStatus, ImageRef
from knowgen.core.secrets import check_variable_name, remember_secret
from knowgen.generators.contract import GeneratedImage
from knowgen.generators.http.responses import GenerateResponse, HttpOutcome, read_reply
from knowgen.generators.http.servers import FIRST_PAUSE, HEALTH_SECONDS, NoServerError, Server, Servers

if TYPE_CHECKING:
    from aiohttp import ClientSession

WHERE = "generator http"
_FORM = "write http:http://HOST:PORT[,http://HOST:PORT]"
_MOST_BYTES = 256 << 20
_CONNECT_SECONDS = 10.0
_TYPES = {"PNG": "png", "JPEG": "jpeg", "WEBP": "webp", "GIF": "gif", "BMP": "bmp"}


class HttpGenerator:
    """Has servers of the `/generate` format draw: the least busy one, never more than they have places.

    What a server gives depends on what it serves, not on where it stands. So `system` names what is served, and takes
    the addresses' place in the run's identity; without it nothing but the addresses tells one system from another, and
    they stay in.

    The defaults are those of Qwen-Image-Edit-2509 in the published table; a server may keep to settings of its own
    (`knowgen serve` does, and names those it did not follow).

    Args:
        model: Addresses, separated by commas, without `/generate`.
        system: Name of what is served, such as `qwen-image-edit-2509`.
        steps: `num_inference_steps`.
        true_cfg_scale: As the format has it.
        guidance_scale: As the format has it.
        negative_prompt: As the format has it; one space means none to models that need one.
        suffix: Put after every prompt.
        most_references: Only so many of a request's reference images are sent, the first ones.
        per_server: Calls at once to each server; 0 takes what its `/health` says.
        timeout: Seconds one call may take.
        patience: Seconds to wait for a server with room.
        health_every: Seconds between two looks at the servers' health.
        health_timeout: Seconds to wait for a server's health.
        first_pause: Seconds a busy server is left alone when it does not say how long; doubled while it stays busy.
        key_env: Environment variable with a token that is sent as a bearer token; empty for none.

    Raises:
        UsageError: An address or a number is not possible.
        ConfigError: An address holds a secret, or the variable of the token is not set.
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
        health_timeout: float = HEALTH_SECONDS,
        first_pause: float = FIRST_PAUSE,
        key_env: str = "",
    ) -> None:
        self.urls = addresses(model)
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
            raise UsageError("per_server and most_references cannot be negative", where=WHERE)
        self._token = _token(key_env)
        self._client: ClientSession | None = None
        self._servers: Servers | None = None

    @staticmethod
    def display_name(model: str, system: str = "", **_: Any) -> str:
        """Returns the name under which results are kept and shown.

        Args:
            model: Addresses as the user wrote them.
            system: Name of what is served.
        """
        return f"http:{system}" if system else f"http:{','.join(sorted(addresses(model)))}"

    async def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Draws one picture; a server that is busy or down is passed over for another.

        Raises:
            TransientError: No server drew it within `patience`.
            ConfigError: The servers want another token, or there are none at these addresses.
        """
        servers = self._here()
        body = await asyncio.to_thread(self._body, request)
        until = servers.loop.time() + self.patience
        await servers.known()
        if not any(server.seen for server in servers.all):
            raise ConfigError(
                servers.state(), where=WHERE, fix="start it first (knowgen serve GENERATOR), or mend the address"
            )
        words, wait = "", None
        faults = 0
        while faults <= len(servers.all) and servers.loop.time() < until:
            try:
                server = await servers.next_free(until)
            except NoServerError as error:
                raise TransientError(words or str(error), retry_after=wait) from error
            with servers.place(server):
                reply = await self._ask(server, body)
                drawing = self._taken(servers, server, reply, request)
            if drawing is not None:
                return drawing
            words, wait = f"{server.url}: {reply.words}", reply.retry_after
            faults += (
                reply.came is not HttpOutcome.BUSY
            )  # a busy server is waited for, a broken one is not asked for ever
        raise TransientError(words, retry_after=wait)

    def _taken(
        self, servers: Servers, server: Server, reply: GenerateResponse, request: GenerationRequest
    ) -> GeneratedImage | None:
        """Returns the drawing an answer brings, or None when another server, or a later call, may bring one.

        Raises:
            ConfigError: No request would fare better.
        """
        if reply.came is HttpOutcome.DENIED:
            raise ConfigError(
                f"{server.url} lets nobody in without the right token: {reply.words}",
                where=WHERE,
                fix="put the token into an environment variable and name it with -g key_env=NAME",
            )
        if reply.came is HttpOutcome.ABSENT and not server.gave:
            raise ConfigError(f"{server.url}/generate is not there: {reply.words}", where=WHERE, fix="mend the address")
        if reply.came is HttpOutcome.BUSY:
            servers.busy(server, reply.retry_after)
            return None
        if reply.came in (HttpOutcome.BROKEN, HttpOutcome.ABSENT):
            servers.fault(server, reply.words, dead=reply.words.startswith("cannot be reached"))
            return None
        servers.good(server)
        return self._drawing(server, reply, request)

    def _drawing(self, server: Server, reply: GenerateResponse, request: GenerationRequest) -> GeneratedImage:
        settings = {**self._settings, "server": server.url} | ({"system": self.system} if self.system else {})
        if reply.came is not HttpOutcome.PICTURE:
            status = GenerationStatus.REFUSED if reply.came is HttpOutcome.REFUSED else GenerationStatus.FAILED
            return GeneratedImage(request_id=request.id, status=status, reason=reply.words, settings=settings)
        told = dict(reply.told or {})
        if unused := told.pop("unused", None):
            settings = {name: value for name, value in settings.items() if name not in unused}
        if served := told.pop("served", None):
            settings["served"] = served
        used = told.pop("used_prompt", "") or (request.prompt + self.suffix if self.suffix else "")
        return GeneratedImage(image=reply.picture, request_id=request.id, settings=settings, used_prompt=used, **told)

    def _body(self, request: GenerationRequest) -> dict[str, Any]:
        """Returns the body of a request; in a thread, because it reads pictures."""
        chosen = request.references[: self.most_references]
        return {
            "image_urls": [_data_url(reference) for reference in chosen],  # some servers take no null
            "prompt": request.prompt + self.suffix,
            "seed": request.seed,
            "num_images_per_prompt": 1,
            **self._settings,
        }

    async def _ask(self, server: Server, body: dict[str, Any]) -> GenerateResponse:
        import aiohttp

        assert self._client is not None
        try:
            async with (
                asyncio.timeout(self.timeout),
                self._client.post(f"{server.url}/generate", json=body, allow_redirects=False) as response,
            ):
                data = bytearray()
                async for chunk in response.content.iter_chunked(1 << 18):
                    data += chunk
                    if len(data) > _MOST_BYTES:
                        return GenerateResponse(
                            HttpOutcome.BROKEN, f"the answer is longer than {_MOST_BYTES >> 20} MiB"
                        )
                wait = retry_after(response.headers)
                return await asyncio.to_thread(read_reply, response.status, bytes(data), wait, self._token)
        except aiohttp.ServerTimeoutError:
            return GenerateResponse(
                HttpOutcome.BROKEN, f"cannot be reached (no connection within {_CONNECT_SECONDS:g} s)"
            )
        except TimeoutError:
            return GenerateResponse(HttpOutcome.BROKEN, f"no picture within {self.timeout:g} s")
        except aiohttp.ClientConnectorError as error:
            return GenerateResponse(HttpOutcome.BROKEN, f"cannot be reached ({type(error.os_error).__name__})")
        except (aiohttp.ClientError, ConnectionError) as error:
            return GenerateResponse(HttpOutcome.BROKEN, f"the answer was lost ({type(error).__name__})")

    def _here(self) -> Servers:
        """Returns the servers, as seen from the running loop."""
        import aiohttp

        loop = asyncio.get_running_loop()
        if self._servers is None or self._servers.loop is not loop:
            headers = {"User-Agent": "knowgen"}
            if self._token:
                headers["Authorization"] = f"Bearer {self._token}"
            self._client = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
                trust_env=not all(is_loopback(url) for url in self.urls),
                headers=headers,
            )
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
        """Closes connections, in the loop they were used in."""
        servers, self._servers = self._servers, None
        if servers is not None and servers.loop is asyncio.get_running_loop():
            await servers.close()


def addresses(model: str) -> list[str]:
    """Returns the addresses in a model's name, each once, in one spelling.

    Raises:
        UsageError: There is none, or one is no http address.
        ConfigError: One holds a password or a query.
    """
    found: list[str] = []
    for part in str(model).split(","):
        if not part.strip():
            continue
        try:
            url = endpoint_url(part.strip(), WHERE).removesuffix("/generate")
        except UsageError as error:
            raise UsageError("names no http address", where=WHERE, fix=_FORM) from error
        except ConfigError as error:
            raise ConfigError(
                "an address must not hold a user, a password or a query, for it is recorded",
                where=WHERE,
                fix="put a token into an environment variable and name it with -g key_env=NAME",
            ) from error
        if url not in found:
            found.append(url)
    if not found:
        raise UsageError("names no server", where=WHERE, fix=_FORM)
    return found


def _data_url(reference: ImageRef) -> str:
    """Returns a reference image as a data URL, byte for byte."""
    if reference.path is None:
        raise ConfigError(f"reference image {reference.sha256[:12]} has no file on this machine", where=WHERE)
    kind = _TYPES.get(reference.format.upper(), "png")
    return f"data:image/{kind};base64,{base64.b64encode(reference.path.read_bytes()).decode('ascii')}"


def _check_numbers(**numbers: float) -> None:
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise UsageError(f"{name}={value} is not possible", where=WHERE, fix="give a number above 0")


def _token(key_env: str) -> str:
    if not key_env:
        return ""
    check_variable_name(key_env, "key_env", "SERVE_TOKEN", WHERE)
    token = os.environ.get(key_env, "").strip()
    if not token:
        raise ConfigError(f"the variable {key_env} is not set", where=WHERE, fix=f"type: export {key_env}=<the token>")
    remember_secret(token)
    return token
