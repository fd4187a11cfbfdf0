"""Accessibility of a page in a browser: the rules of axe-core for WCAG 2.0, 2.1 and 2.2, levels A and AA."""

from __future__ import annotations

from typing import Any

TAGS = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa")
"""Tags of the rules that are run."""

SHOWN = 3
"""Maximum number of elements named for a rule."""


_SETTLE = """() => {
  // transitions would be caught halfway, with colours that no reader sees
  for (const each of document.getAnimations()) each.finish();
  // what is laid out when it is scrolled to has no true place before
  const sheet = new CSSStyleSheet();
  sheet.replaceSync("* { content-visibility: visible !important }");
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
}"""


def violations(page: Any) -> list[str]:
    """Return one line for each rule that a page breaks: rule, what it asks for, and the first elements.

    Only what is shown is checked, so open folded sections and dialogs first. A page to which no rule applies did not
    load, which is a line as well.
    """
    from axe_playwright_python.sync_playwright import Axe

    page.evaluate(_SETTLE)
    # without `preload`, axe-core does not fetch style sheets, which the policy of the pages refuses with an error
    options = {"runOnly": {"type": "tag", "values": list(TAGS)}, "resultTypes": ["violations"], "preload": False}
    response = Axe().run(page, options=options).response
    if not response["passes"]:
        return ["no rule applies: the page is empty"]
    return [_line(each) for each in response["violations"]]


def _line(violation: dict[str, Any]) -> str:
    nodes = violation["nodes"]
    elements = []
    for node in nodes[:SHOWN]:
        detail = next((each["message"] for kind in ("any", "all", "none") for each in node[kind]), "")
        elements.append(f"{node['html'][:160]} ({detail})")
    more = f" and {len(nodes) - SHOWN} more" if len(nodes) > SHOWN else ""
    return f"{violation['id']}: {violation['help']}: {'; '.join(elements)}{more}"
