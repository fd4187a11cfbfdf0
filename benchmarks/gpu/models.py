"""Models of real width with random weights, saved as folders that the project's own code loads.

    folder = qwen3_vl(Path("/tmp/policy"), WIDTHS["real"], "cuda:0")
    folder = flux(Path("/tmp/painter"), WIDTHS["real"], "cuda:0")

Width and number of layers decide time and memory; the weights do not. The numbers of Qwen3-VL-8B are those of its
published configuration as torchtitan repeats it (experiments/qwen3_vl, read 2026-11-28): width 4096, 36 layers, 32
heads of which 8 for keys, 12288 inside, vocabulary 151936; vision tower 1152 wide, 27 layers, 4304 inside. Those of
FLUX.1 are the defaults of diffusers' FluxTransformer2DModel: 24 heads of 128, 19 double and 38 single layers, text 4096
wide. Fewer layers are built than the real models have, so that building and saving them takes seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers import qwen_vocabulary, tiny_models, tiny_pipelines


@dataclass(frozen=True)
class Width:
    """Sizes of the models of a check.

    Attributes:
        layers: Layers of the language model; the real one has 36.
        vision_layers: Layers of its vision tower; the real one has 27.
        double: Double layers of the diffusion transformer; the real one has 19.
        single: Single layers of the diffusion transformer; the real one has 38.
        side: Width and height of an image in pixels.
        steps: Denoising steps of an image.
        tokens: Tokens of a conversation.
        real: Whether the models have their real width; otherwise they are the tiny ones of the tests.
    """

    layers: int = 2
    vision_layers: int = 2
    double: int = 1
    single: int = 1
    side: int = 64
    steps: int = 2
    tokens: int = 256
    real: bool = False


WIDTHS = {
    "tiny": Width(),
    "real": Width(layers=12, vision_layers=27, double=4, single=8, side=1024, steps=8, tokens=8192, real=True),
}


def qwen3_vl(folder: Path, width: Width, device: str) -> Path:
    """Save a Qwen3-VL with random weights in bfloat16, with its processor."""
    if not width.real:
        return tiny_models.tiny_vlm(folder)
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    processor = _processor()
    number = processor.tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": width.layers,
            "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 262144,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 5000000.0, "mrope_section": [24, 20, 20],
                "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": width.vision_layers, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16,
            "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 4096,
            "num_position_embeddings": 2304,
            "deepstack_visual_indexes": [each for each in (8, 16, 24) if each < width.vision_layers],
        },
        image_token_id=number("<|image_pad|>"),
        video_token_id=number("<|video_pad|>"),
        vision_start_token_id=number("<|vision_start|>"),
        vision_end_token_id=number("<|vision_end|>"),
        tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = _built(lambda: Qwen3VLForConditionalGeneration(config), device)
    model.generation_config.eos_token_id = [number("<|im_end|>"), number("<|endoftext|>")]
    model.generation_config.pad_token_id = number("<|endoftext|>")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _processor() -> Any:
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    size = {"shortest_edge": 256 * 256, "longest_edge": 4096 * 4096}
    patches = {"patch_size": 16, "merge_size": 2, "temporal_patch_size": 2}
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3, **patches),
        tokenizer=qwen_vocabulary.qwen_tokenizer(),
        video_processor=Qwen3VLVideoProcessor(**patches),
        chat_template=tiny_models.TEMPLATE,
    )


def flux(folder: Path, width: Width, device: str) -> Path:
    """Save a FLUX.1 with random weights in bfloat16, with tiny text encoders whose outputs have the real width."""
    if not width.real:
        return tiny_pipelines.flux(folder)
    import torch
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    torch.manual_seed(0)
    blocks = (128, 256, 512, 512)
    FluxPipeline(
        transformer=_built(
            lambda: FluxTransformer2DModel(
                num_layers=width.double, num_single_layers=width.single, guidance_embeds=True, joint_attention_dim=4096,
            ),
            device,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=_built(
            lambda: AutoencoderKL(
                block_out_channels=blocks, layers_per_block=2, latent_channels=16, sample_size=1024,
                down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
                use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1159, scaling_factor=0.3611,
            ),
            device,
        ),
        text_encoder=_clip(768),
        tokenizer=tiny_pipelines.clip_tokenizer(),
        text_encoder_2=tiny_pipelines.t5_text(4096),
        tokenizer_2=tiny_pipelines.t5_tokenizer(),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def _clip(width: int) -> Any:
    """Return a text encoder of one layer with a width."""
    from transformers import CLIPTextConfig, CLIPTextModel

    words = tiny_pipelines.clip_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=width, intermediate_size=width, num_hidden_layers=1, num_attention_heads=12,
        max_position_embeddings=77, bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )  # fmt: skip
    return CLIPTextModel(config).eval()


def _built(build: Any, device: str) -> Any:
    """Return a model that is built on a device in bfloat16, which takes seconds where a CPU takes minutes."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            return build().eval()
    finally:
        torch.set_default_dtype(before)
