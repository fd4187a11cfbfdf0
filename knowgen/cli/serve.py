"""`knowgen serve`: a generator offered to others over HTTP."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from knowgen.cli.options import run_option

if TYPE_CHECKING:
    from knowgen.engine.components import GeneratorHandle
    from knowgen.serving.settings import ServiceSettings

EPILOG = """\b
Examples:
  knowgen serve my_model.py:MyModel -g steps=20 --port 8001
  knowgen run --task knowgen_mini --generator http:http://127.0.0.1:8001
Settings (-g) are the server's; prompt, seed and reference images the request's.
"""

NEEDED = {"fastapi": "fastapi", "uvicorn": "uvicorn", "prometheus_client": "prometheus-client"}


@click.command("serve", epilog=EPILOG, context_settings={"max_content_width": 100})
@click.argument("generator")
@run_option("generator_args")
@click.option("--host", default="127.0.0.1", metavar="H", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8001, metavar="P", show_default=True, help="0: any.")
@run_option("workers")
@click.option("--batch", type=click.IntRange(1), metavar="N", help="Maximum requests per batch [as declared].")
@click.option("--queue", type=click.IntRange(0), default=64, metavar="N", help="Maximum queued requests [64].")
@click.option("--token-env", metavar="NAME", help="Environment variable with the token that clients must bring.")
@run_option("timeout")
@click.option(
    "--max-body", type=click.FloatRange(0, min_open=True), default=64.0, metavar="MIB", help="Longest request [64]."
)
@click.option(
    "--max-pixels", type=click.FloatRange(0, min_open=True), default=50.0, metavar="MP", help="Of a reference [50]."
)
@click.option("--fetch", is_flag=True, help="Fetch reference images from public http addresses.")
def command(generator: str, **options: Any) -> int:
    """Offer a generator to others over HTTP, until Ctrl-C or SIGTERM."""
    _check_installed()
    handle = _handle(generator, options)
    service = _service(handle, options)
    from knowgen.serving.server import address_of, listen, serve

    sock = listen(service)
    address = address_of(sock)
    if service.open_to_all:
        click.echo(
            "warning: other machines can reach this server and no token keeps them out; give --token-env", err=True
        )
    click.echo(f"serving  {generator} at {address}{_manner(handle, service)}")
    click.echo(f"use      knowgen run --task knowgen_mini --generator http:{address}")
    serve(handle, service, sock)
    click.echo("stopped")
    return 0


def _check_installed() -> None:
    from importlib.util import find_spec

    from knowgen.core.errors import MissingDependencyError

    if missing := [package for module, package in NEEDED.items() if find_spec(module) is None]:
        raise MissingDependencyError(f"needs {', '.join(missing)}", where="serve", fix="pip install 'knowgen[serve]'")


def _handle(generator: str, options: dict[str, Any]) -> GeneratorHandle:
    import dataclasses

    from knowgen.core.errors import UsageError
    from knowgen.workflows.resolve import resolve_generator

    handle = resolve_generator(generator, dict(options["generator_args"]), None)
    if handle.traits.privileged:
        raise UsageError(f"generator {generator!r} wants the ground truth, which requests do not carry", where="serve")
    if (batch := options["batch"]) is None:
        return handle
    if handle.traits.shape != "generate_batch":
        raise UsageError(f"generator {generator!r} draws no batches", where="serve", fix="leave --batch out")
    return dataclasses.replace(handle, traits=dataclasses.replace(handle.traits, batch_size=batch))


def _service(handle: GeneratorHandle, options: dict[str, Any]) -> ServiceSettings:
    from knowgen.core.errors import UsageError
    from knowgen.engine.placement import workers_for
    from knowgen.serving.settings import MEBIBYTE, ServiceSettings

    if options["workers"] and handle.remake is None:
        raise UsageError(
            "cannot be made in a worker process", where=f"generator {handle.spec.name!r}", fix="leave --workers out"
        )
    return ServiceSettings(
        host=options["host"],
        port=options["port"],
        workers=workers_for(handle) if options["workers"] is None else options["workers"],
        queue=options["queue"],
        timeout=options["timeout"],
        token=_token(options["token_env"]),
        max_body=int(options["max_body"] * MEBIBYTE),
        max_pixels=int(options["max_pixels"] * 1e6),
        fetch=options["fetch"],
    )


def _token(name: str | None) -> str:
    from knowgen.core.errors import ConfigError
    from knowgen.core.secrets import check_variable_name

    if name is None:
        return ""
    check_variable_name(name, "--token-env", "SERVE_TOKEN")
    token = os.environ.get(name, "").strip()
    if not token:
        raise ConfigError(f"the variable {name} is not set", where="--token-env", fix=f"type: export {name}=<a secret>")
    return token


def _manner(handle: GeneratorHandle, service: ServiceSettings) -> str:
    """Says how it draws, where that is not one after the other in this process."""
    parts = [f"{service.workers} worker processes"] if service.workers else []
    if handle.traits.shape == "generate_batch":
        parts.append(f"batches of up to {handle.traits.batch_size}")
    return f" ({', '.join(parts)})" if parts else ""
