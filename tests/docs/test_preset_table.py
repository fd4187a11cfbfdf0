"""The reference's table of presets is made from the data file, and has all of them."""

from __future__ import annotations

from pathlib import Path

from knowgen.generators.diffusers.presets import pipeline_traits, presets
from tests.docs.test_training_guide import hook

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "plugins.md").read_text(encoding="utf-8")


def test_every_preset_is_in_the_table_of_the_site() -> None:
    pages = hook()
    made = pages.on_page_markdown(PAGE, page=None, config=None, files=None)
    assert pages.PRESETS in PAGE and pages.PRESETS not in made
    rows = {line.split("<br>")[0].strip("| "): line for line in made.splitlines() if line.startswith("| `")}
    for preset in presets():
        if preset.unsupported:
            assert f"`{preset.name}`" not in rows
            continue
        row = rows[f"`{preset.name}`"]
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[0].split("<br>")[1:] == [f"`{preset.model}`", f"`{preset.pipeline}`"]
        assert cells[1:3] == [preset.size, str(preset.steps or "")]
        assert all(f"{name}={scale:g}" in cells[3] for name, scale in preset.guidance.items())
        assert (cells[4], cells[6]) == (preset.references, pipeline_traits(preset.pipeline).since)
        assert (preset.license or "not confirmed") in cells[5] and ("gated" in cells[5]) == preset.gated
        assert preset.note in cells[7] and preset.source in cells[7]
