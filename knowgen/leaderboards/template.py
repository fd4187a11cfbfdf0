"""The template of a `system.yaml`: every field with a comment, filled with what a run knows."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from knowgen.leaderboards.adapter import recorded_adapter
from knowgen.store.manifest import Manifest

_TEMPLATE = """\
# What the board says of the system. Fill in the empty fields; `knowgen board add` names each one that is not valid.

# Name of the system in tables, up to 80 characters. The folder of the submission is made from it.
name: {name}
# Name of this revision, also a folder: lower-case letters, digits, `.`, `_` and `-`. Each submission needs a new one.
revision: {revision}
# image_model; agent, which searches before an image model generates; or baseline.
kind: {kind}
# Names of the authors, or of the group.
authors: []
# Links to paper, code or weights, each with title and url (http or https).
links: []
#  - title: paper
#    url: https://…
# Licence of the weights or the service: an SPDX identifier such as Apache-2.0, or proprietary.
licence:
# Whether the weights can be downloaded: true or false.
open_weights:
# Whether the system searches: true or false.
search: {search}
# Number of parameters in words, such as 20B, or undisclosed.
parameters:
# What it was trained on, as far as is known.
training_data:
# Address for questions: a mail address or a URL. It is published.
contact:
# The code that ran it, so that others can run it again. It is filled with what the run recorded; the two must agree.
adapter:
  # Distribution that has the generator, with its version, as pip names it; empty for a bundled generator.
  package: {package}
  # Name of the generator or agent, as given to --generator.
  generator: {generator}
  # Version of its code or model.
  revision: {adapter_revision}
  # Commit of its code, where it is not part of a released package.{dirty}
  commit: {commit}
  # Arguments, as given to -g. Add those that others need and that decide no image, such as the device.
  arguments: {arguments}
  # Identity of its search backend; empty without one.
  search: {adapter_search}
# Further remarks for readers of the board.
notes: ""
"""


def system_template(manifest: Manifest, revision: str) -> str:
    """Return the text of a `system.yaml` for a run. Fields that only the submitter knows are empty, and not valid.

    Args:
        manifest: The record of the run.
        revision: Name of the new revision.
    """
    spec, adapter = manifest.spec, recorded_adapter(manifest)
    dirty = adapter.commit.endswith("-dirty")
    return _TEMPLATE.format(
        name=_scalar(spec.system[:80]),
        revision=_scalar(revision),
        kind="agent" if spec.agent is not None else "image_model",
        search="true" if adapter.search else "false",
        package=_scalar(adapter.package),
        generator=_scalar(adapter.generator),
        adapter_revision=_scalar(adapter.revision),
        dirty="\n  # The run was made with changes that are not committed." if dirty else "",
        commit=_scalar(adapter.commit),
        arguments=_scalar(adapter.arguments),
        adapter_search=_scalar(adapter.search),
    )


def slug_of(name: str) -> str:
    """Return the name of a system's folder; empty for a name without a letter or digit of ASCII.

    Example:
        >>> slug_of("Gen-Searcher 8B + Qwen-Image"), slug_of("../..")
        ('gen-searcher-8b-qwen-image', '')
    """
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")[:80].rstrip("-.")


def look_of(name: str) -> str:
    """Return what readers tell names apart by: letters and digits, whatever their case and form.

    Example:
        >>> look_of("GPT-Image 1"), look_of("\uff27pt image\u200b1")
        ('gptimage1', 'gptimage1')
    """
    return "".join(each for each in unicodedata.normalize("NFKC", name).casefold() if each.isalnum())


def next_revision(taken: Iterable[str]) -> str:
    """Return a name for a new revision: the number after the highest one.

    Args:
        taken: Revisions of the system.

    Example:
        >>> next_revision(["1", "2", "beta"]), next_revision([])
        ('3', '1')
    """
    numbers = [int(name) for name in taken if name.isascii() and name.isdigit()]
    return str(max(numbers, default=0) + 1)


def _scalar(value: Any) -> str:
    """Return a value as JSON, which is YAML as well."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
