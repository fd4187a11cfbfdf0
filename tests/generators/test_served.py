"""Published systems behind a server that runs them, against the stand-in of that server."""

from __future__ import annotations

from pathlib import Path

import pytest

from knowgen.core.errors import UsageError
from knowgen.generators.hosted.served import ServedImages, served_presets
from tests.helpers.engine_servers import EngineServer, drawn, vllm_of
from tests.helpers.hosted_generation import PROMPT, generate, image, reference

ROOT = Path(__file__).parents[2]
BAGEL = vllm_of("ByteDance-Seed/BAGEL-7B-MoT")


def test_bagel_is_drawn_through_vllm_omni_as_published(tmp_path: Path) -> None:
    with EngineServer(BAGEL) as server:
        generator = ServedImages(model="bagel", base_url=server.base)
        (plain, edited) = generate(generator) + generate(generator, reference(tmp_path, 1), reference(tmp_path, 2))
        one, two = server.calls
    prompt = f"<|im_start|>{PROMPT}<|im_end|>"
    assert one.path == "/v1/chat/completions"
    assert one.fields == {
        "model": "ByteDance-Seed/BAGEL-7B-MoT",
        "messages": [{"role": "user", "content": [{"type": "text", "text": prompt}]}],
        "modalities": ["image"],
        "extra_body": {
            "width": 1024,
            "height": 1024,
            "seed": 7,
            "num_inference_steps": 50,
            "cfg_text_scale": 4.0,
            "cfg_img_scale": 1.0,
            "cfg_interval": [0.4, 1.0],
            "timestep_shift": 3.0,
            "cfg_renorm_min": 0.0,
            "cfg_renorm_type": "global",
        },
    }
    assert server.read == [call.fields["extra_body"] for call in server.calls]  # nothing is ignored
    assert two.fields["extra_body"]["cfg_img_scale"] == 2.0 and len(two.fields["messages"][0]["content"]) == 2
    assert image(plain) == drawn(prompt, 7) and image(edited) == drawn(prompt, 7, 1)
    assert (plain.settings["preset"], plain.settings["row"]) == ("bagel", "BAGEL")
    assert not plain.used_prompt and plain.settings["prompt_format"] == "<|im_start|>{prompt}<|im_end|>"


def test_hunyuanimage_is_drawn_through_vllm_omni_as_published(tmp_path: Path) -> None:
    model = "tencent/HunyuanImage-3.0"
    with EngineServer(vllm_of(model)) as server:
        generator = ServedImages(model="HunyuanImage-3.0", base_url=server.base, fields={"guidance_scale": 4.0})
        (result,) = generate(generator, reference(tmp_path, 1))
        (call,) = server.calls
    assert call.path == "/v1/images/generations" and server.read == [call.fields]
    assert {name: call.fields[name] for name in ("model", "size", "num_inference_steps", "guidance_scale", "seed")} == {
        "model": model, "size": "1024x1024", "num_inference_steps": 50, "guidance_scale": 4.0, "seed": 7,
    }  # fmt: skip
    assert image(result) == drawn(PROMPT, 7)
    assert result.settings["references_dropped"].startswith("1 past") and result.settings["operation"] == "generations"


def test_every_open_row_of_the_published_table_has_a_preset() -> None:
    import csv

    from knowgen.generators.diffusers.presets import presets

    with (ROOT / "leaderboards/knowgen-official/published.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if "open" in row.values()]
    known = {preset.row for preset in presets() if not preset.unsupported} | {each.row for each in served_presets()}
    systems = {next(iter(row.values())) for row in rows}
    assert len(systems) > 10
    assert {system for system in systems if "Searcher" not in str(system)} - known == set()
    with pytest.raises(UsageError, match="served:bagel"):
        ServedImages(model="nothing")
