"""`knowgen serve`: serve a generator over HTTP."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from knowgen.cli.common import command_line
from knowgen.cli.options import run_option

if TYPE_CHECKING:
    from knowgen.engine.components import GeneratorHandle
    from knowgen.serving.settings import ServiceSettings

EPILOG = """\b
Examples:
  knowgen serve my_model.py:MyModel -g steps=20 --port 8001
  knowgen run --task knowgen_mini --generator http:http://127.0.0.1:8001
Clients send prompt, seed and reference images; settings of the generator (-g) are set here.
"""

PACKAGES = {"fastapi": "fastapi", "uvicorn": "uvicorn", "prometheus_client": "prometheus-client"}
"""Modules that a server needs, with the packages that have them."""


@click.command("serve", epilog=EPILOG, context_settings={"max_content_width": 100})
@click.argument("generator")
@run_option("generator_args")
@click.option("--host", default="127.0.0.1", metavar="HOST", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8001,
    metavar="PORT",
    show_default=True,
    help="TCP port, 0 for any free one.",
)
@run_option("workers")
@click.option("--batch", type=click.IntRange(1), metavar="N", help="Maximum requests per batch [the plugin's own].")
@click.option("--queue", type=click.IntRange(0), default=64, metavar="N", help="Maximum queued requests [64].")
@click.option("--token-env", metavar="NAME", help="Environment variable with the bearer token that clients must send.")
@run_option("timeout")
@click.option(
    "--max-body",
    type=click.FloatRange(0, min_open=True),
    default=64.0,
    metavar="MIB",
    help="Maximum size of a request in MiB [64].",
)
@click.option(
    "--max-pixels",
    type=click.FloatRange(0, min_open=True),
    default=50.0,
    metavar="MP",
    help="Maximum megapixels of a reference image [50].",
)
@click.option("--fetch", is_flag=True, help="Fetch reference images from public http addresses.")
def command(generator: str, **options: Any) -> int:
    """Serve a generator over HTTP until Ctrl-C or SIGTERM."""
    _check_installed()
    handle = _handle(generator, options)
    settings = _settings(handle, options)
    from knowgen.serving.server import address_of, listen, serve

    sock = listen(settings)
    address = address_of(sock)
    if settings.open_to_all:
        click.echo("warning: other machines can reach this server without a token; give --token-env", err=True)
    click.echo(f"serving  {generator} at {address}{_execution(handle, settings)}")
    click.echo(f"use      {command_line('run', '--task', 'knowgen_mini', '--generator', f'http:{address}')}")
    serve(handle, settings, sock)
    click.echo("stopped")
    return 0


def _check_installed() -> None:
    from importlib.util import find_spec

    from knowgen.core.errors import MissingDependencyError

    if missing := [package for module, package in PACKAGES.items() if find_spec(module) is None]:
        raise MissingDependencyError(f"needs {', '.join(missing)}", where="serve", fix="pip install 'knowgen[serve]'")


def _handle(generator: str, options: dict[str, Any]) -> GeneratorHandle:
    import dataclasses

    from knowgen.core.errors import UsageError
    from knowgen.workflows.resolve import resolve_generator

    handle = resolve_generator(generator, dict(options["generator_args"]), None, in_worker=options["workers"] != 0)
    if handle.capabilities.privileged:
        raise UsageError(f"generator {generator!r} needs the ground truth, which requests do not have", where="serve")
    if (batch := options["batch"]) is None:
        return handle
    if handle.capabilities.shape != "generate_batch":
        raise UsageError(f"generator {generator!r} takes no batches", where="serve", fix="leave --batch out")
    return dataclasses.replace(handle, capabilities=dataclasses.replace(handle.capabilities, batch_size=batch))


def _settings(handle: GeneratorHandle, options: dict[str, Any]) -> ServiceSettings:
    from knowgen.core.errors import UsageError
    from knowgen.engine.options import EngineOptions
    from knowgen.engine.placement import generator_workers, gpus_for
    from knowgen.serving.settings import MEBIBYTE, ServiceSettings

    if options["workers"] and handle.component_ref is None:
        raise UsageError(
            "cannot be built in a worker process", where=f"generator {handle.spec.name!r}", fix="leave --workers out"
        )
    gpus = gpus_for(handle) if options["workers"] is None else 0
    return ServiceSettings(
        host=options["host"],
        port=options["port"],
        workers=generator_workers(handle, EngineOptions(workers=options["workers"], gpus=gpus)),
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


def _execution(handle: GeneratorHandle, settings: ServiceSettings) -> str:
    """Return how images are generated, if not one after the other in this process."""
    parts = [f"{settings.workers} worker processes"] if settings.workers else []
    if handle.capabilities.shape == "generate_batch":
        parts.append(f"batches of up to {handle.capabilities.batch_size}")
    return f" ({', '.join(parts)})" if parts else ""
