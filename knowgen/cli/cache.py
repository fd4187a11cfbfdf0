"""`knowgen cache`: what is kept between runs, and how to be rid of it."""

from __future__ import annotations

import click

from knowgen.core.cache import HOME, LIMITS

EPILOG = """\b
Examples:
  knowgen cache
  knowgen cache clear replies
A cache only saves work: run directories need none of it.
KNOWGEN_CACHE names its folder, or turns caches off.
"""

WHAT = {
    "replies": "of judges, by the exact request",
    "pictures": "encoded for judges, by content and form",
    "embeddings": "of pictures and prompts, by content and weights",
}


@click.command("cache", epilog=EPILOG)
@click.argument("action", type=click.Choice(["show", "clear"]), default="show")
@click.argument("names", nargs=-1, type=click.Choice(list(LIMITS)))
def command(action: str, names: tuple[str, ...]) -> int:
    """Show what is kept between runs, or clear it: all of it, or only NAMES."""
    from knowgen.core.cache import Cache, FileCache, cache_folder

    folder = cache_folder()
    if folder is None:
        click.echo(f"caches are off ({HOME})")
        return 0
    click.echo(f"folder      {folder}")
    for name in names or tuple(LIMITS):
        cache, files = Cache(name), FileCache(name, folder)
        if action == "clear":
            cache.clear()
            files.clear()
        entries, size = cache.totals() if cache.path is not None and cache.path.exists() else (0, 0)
        size += files.totals()[1]
        fault = f"  {cache.fault}" if cache.fault else ""
        click.echo(
            f"{name:<11} {entries:>8} entries {size / 1e6:>9.1f} MB of {LIMITS[name] / 1e6:.0f}   {WHAT[name]}{fault}"
        )
    return 0
