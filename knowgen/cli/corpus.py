"""`knowgen corpus`: build a folder of pages and images that a search backend searches."""

from __future__ import annotations

from pathlib import Path

import click

EPILOG = """\b
Example:
  knowgen corpus build my_pages
  knowgen run --task knowgen_mini --generator gen_searcher -g search=corpus:my_pages …
"""


@click.group("corpus", epilog=EPILOG)
def command() -> None:
    """Build a corpus: pages and images on disk that are searched without a key or a network."""


@command.command("build", epilog=EPILOG, short_help="Index the pages and images of a folder.")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the corpus [DIR/.corpus].")
@click.option(
    "--url",
    "prefix",
    default="https://corpus.invalid/",
    show_default=True,
    metavar="URL",
    help="URL that stands for DIR in the URLs of files that name none.",
)
@click.option("--workers", type=click.IntRange(0), metavar="N", help="Processes that read files [one per core].")
def build(folder: Path, out: Path | None, prefix: str, workers: int | None) -> int:
    """Index HTML, text, JSONL, WARC and image files below DIR, for the search backend `corpus:DIR`.

    A JSONL row is a page (`url`, `title`, `text` or `html`, `links`) or an image (`image`, a path beside the file,
    `title`, `url`, `page_url`). The caption of an image is its row's title, the text of `NAME.caption.txt` beside it,
    the `alt` text of a page that shows it, or its file name.
    """
    from knowgen.core.text import count, escape_controls
    from knowgen.search.corpus.build import build_corpus

    built = build_corpus(folder, out, prefix=prefix, workers=workers)
    for each in built.skipped[:5]:
        click.echo(escape_controls(f"skipped: {each.where}: {each.reason}"), err=True)
    if built.skipped_count > len(built.skipped[:5]):
        click.echo(f"… {built.skipped_count} skipped in total", err=True)
    repeated = f", {built.duplicates} repeated URLs left out" if built.duplicates else ""
    total = f"{count(built.pages, 'page')}, {count(built.images, 'image')}{repeated}"
    click.echo(f"{total} in {built.folder} ({built.seconds:.1f} s)")
    click.echo(f"search it with: -g search=corpus:{folder if out is None else out}")
    return 0
