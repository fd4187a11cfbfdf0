"""`knowgen verify`: check that a run's figures follow from its stored replies and images."""

from __future__ import annotations

import json
from pathlib import Path

import click

EPILOG = """\b
Example:
  knowgen verify reports/open_book
Exit codes: 0 nothing found; 3 something does not follow.
"""

MAX_FINDINGS = 20
"""Maximum number of printed findings; --json has all of them."""

EXIT_FINDINGS = 3


@click.command("verify", epilog=EPILOG)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all findings.")
def command(run: Path, as_json: bool) -> int:
    """Check that a run's figures follow from its stored replies and images; takes seconds and calls no judge.

    Replies are parsed again, images hashed, keys made again, the columns of run.sqlite compared with its records, and
    summary.json and the tables with what the rows give.
    """
    from knowgen.core.text import one_line
    from knowgen.workflows.verify import closing_line, verify

    verification = verify(run)
    if as_json:
        click.echo(json.dumps(verification.to_json(), indent=1, ensure_ascii=False))
    else:
        for finding in verification.findings[:MAX_FINDINGS]:
            click.echo(one_line(finding))
        if rest := verification.findings[MAX_FINDINGS:]:
            click.echo(f"and {len(rest)} more (see --json)")
        for note in verification.notes:
            click.echo(f"note: {one_line(note)}")
        click.echo(f"{run}: {closing_line(verification)}")
    return 0 if verification.ok else EXIT_FINDINGS
