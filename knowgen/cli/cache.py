"""`knowgen cache`: show or clear the caches that all runs share."""

from __future__ import annotations

import click

from knowgen.core.cache import LIMITS

EPILOG = """\b
Examples:
  knowgen cache
  knowgen cache clear replies
Caches only save work and cost; clearing them never damages a run.
The environment variable KNOWGEN_CACHE sets their folder, or `off`
[$XDG_CACHE_HOME/knowgen, else ~/.cache/knowgen].
"""

CONTENT = {
    "replies": "judge replies, by exact request",
    "images": "images encoded for judges, by content and encoding",
    "embeddings": "embeddings of images and prompts, by content and weights",
    "web": "searches of a day: queries, pages, images",
}


@click.command("cache", epilog=EPILOG)
@click.argument("action", type=click.Choice(["show", "clear"]), default="show", metavar="[show|clear]")
@click.argument("names", nargs=-1, type=click.Choice(list(LIMITS)), metavar="[replies|images|embeddings|web]...")
def command(action: str, names: tuple[str, ...]) -> int:
    """Show or clear the caches that all runs share, or only the named ones [show, all]."""
    from knowgen.core.cache import Cache, FileCache, cache_folder, why_off

    folder = cache_folder()
    if folder is None:
        click.echo(f"caches are off: {why_off()}")
        return 0
    click.echo(f"folder      {folder}")
    for name in names or tuple(LIMITS):
        cache, files = Cache(name), FileCache(name, folder)
        if action == "clear":
            cache.clear()
            files.clear()
        entries, size = cache.totals() if cache.path is not None and cache.path.exists() else (0, 0)
        size += files.totals()[1]
        error = f"  {cache.error}" if cache.error else ""
        limit = LIMITS[name] / 1e6
        click.echo(f"{name:<11} {entries:>8} entries {size / 1e6:>9.1f} MB of {limit:.0f}   {CONTENT[name]}{error}")
    return 0
