"""Tiny pipelines of the real classes with random weights, saved in the real format without any download.

    folder = sd3(tmp_path / "sd3")      # also flux, kontext, flux2_klein, qwen_image, qwen_image_edit

Their images are noise, but every component is there: tokenizers, text encoders, transformer, VAE, scheduler.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

QWEN_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>",
)  # fmt: skip


def builder(root: Path) -> Callable[[str], str]:
    """Return a function that returns the folder of a pipeline by name, which is built at the first call."""

    def folder(name: str) -> str:
        path = root / name
        if not path.exists():
            globals()[name](path)
        return str(path)

    return folder


def _letters() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def clip_tokenizer() -> Any:
    """Return a CLIP tokenizer of single letters."""
    from transformers import CLIPTokenizer

    letters = _letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: token_id for token_id, word in enumerate(words)}, merges=[], model_max_length=77)


def t5_tokenizer() -> Any:
    """Return a T5 tokenizer of single letters."""
    from transformers import T5Tokenizer

    letters = ["▁", *(chr(code) for code in range(33, 127))]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), *((letter, -2.0) for letter in letters)]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=77)


def qwen_tokenizer() -> Any:
    """Return a Qwen tokenizer of single bytes and the special tokens of chats."""
    from transformers import Qwen2Tokenizer

    vocab = {word: token_id for token_id, word in enumerate([*_letters(), *QWEN_SPECIAL])}
    return Qwen2Tokenizer(vocab=vocab, merges=[], additional_special_tokens=list(QWEN_SPECIAL), model_max_length=4096)


def clip_text(*, projected: bool, positions: int = 77) -> Any:
    """Return a CLIP text encoder with 32 dimensions."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    tokenizer = clip_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=37, projection_dim=32, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=positions, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()


def t5_text(width: int) -> Any:
    """Return a T5 encoder of a width."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(t5_tokenizer()), d_model=width, d_kv=8, d_ff=37, num_layers=2, num_heads=4, pad_token_id=0,
        eos_token_id=1,
    )  # fmt: skip
    return T5EncoderModel(config).eval()


def _distinguishing(vae: Any) -> Any:
    """Scale the weights of a random VAE, so that the latents of different images differ."""
    import torch

    with torch.no_grad():
        vae.encoder.conv_out.weight *= 30
    return vae.eval()


def _vae(channels: int) -> Any:
    from diffusers import AutoencoderKL

    return _distinguishing(AutoencoderKL(
        sample_size=32, block_out_channels=(4, 8), layers_per_block=1, latent_channels=channels, norm_num_groups=1,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, use_quant_conv=False,
        use_post_quant_conv=False, shift_factor=0.06, scaling_factor=1.5,
    ))  # fmt: skip


def _scheduler(**config: Any) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**config)


def sd3(folder: Path, seed: int = 0, side: int = 32) -> Path:
    """Save a Stable Diffusion 3."""
    import torch
    from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline

    torch.manual_seed(seed)
    pipeline = StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=side, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=4,
            caption_projection_dim=32, joint_attention_dim=64, pooled_projection_dim=64, out_channels=4,
        ),
        scheduler=_scheduler(shift=3.0),
        vae=_vae(4),
        text_encoder=clip_text(projected=True),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip_text(projected=True),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5_text(64),
        tokenizer_3=t5_tokenizer(),
    )  # fmt: skip
    return _save(pipeline, folder)


def _flux_parts() -> dict[str, Any]:
    from diffusers import FluxTransformer2DModel

    return {
        "transformer": FluxTransformer2DModel(
            patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8),
            guidance_embeds=True,
        ),
        "scheduler": _scheduler(use_dynamic_shifting=True),
        "vae": _vae(1),
        "text_encoder": clip_text(projected=False),
        "tokenizer": clip_tokenizer(),
        "text_encoder_2": t5_text(32),
        "tokenizer_2": t5_tokenizer(),
    }  # fmt: skip


def flux(folder: Path, seed: int = 0) -> Path:
    """Save a FLUX.1."""
    import torch
    from diffusers import FluxPipeline

    torch.manual_seed(seed)
    return _save(FluxPipeline(**_flux_parts()), folder)


def kontext(folder: Path, seed: int = 1) -> Path:
    """Save a FLUX.1 Kontext."""
    import torch
    from diffusers import FluxKontextPipeline

    torch.manual_seed(seed)
    return _save(FluxKontextPipeline(**_flux_parts()), folder)


def _qwen_text() -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    tokenizer = qwen_tokenizer()
    token_id = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 8192,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
        },
        vision_config={
            "depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16,
            "patch_size": 14, "spatial_merge_size": 2, "window_size": 112, "fullatt_block_indexes": [1],
        },
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        bos_token_id=token_id("<|endoftext|>"),
        eos_token_id=token_id("<|im_end|>"),
    )  # fmt: skip
    return Qwen2_5_VLForConditionalGeneration(config).eval()


def _qwen_parts() -> dict[str, Any]:
    from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel

    return {
        "transformer": QwenImageTransformer2DModel(
            patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=16, guidance_embeds=False, axes_dims_rope=(8, 4, 4),
        ),
        "vae": _distinguishing(AutoencoderKLQwenImage(
            base_dim=8, z_dim=4, dim_mult=[1, 2, 2], num_res_blocks=1, temperal_downsample=[False, True],
            latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
        )),
        "scheduler": _scheduler(use_dynamic_shifting=True),
        "text_encoder": _qwen_text(),
        "tokenizer": qwen_tokenizer(),
    }  # fmt: skip


def qwen_image(folder: Path, seed: int = 0) -> Path:
    """Save a Qwen-Image."""
    import torch
    from diffusers import QwenImagePipeline

    torch.manual_seed(seed)
    return _save(QwenImagePipeline(**_qwen_parts()), folder)


def qwen_image_edit(folder: Path, seed: int = 1) -> Path:
    """Save a Qwen-Image-Edit Plus, which takes several reference images."""
    import torch
    from diffusers import QwenImageEditPlusPipeline
    from transformers import Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

    torch.manual_seed(seed)
    parts = _qwen_parts()
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=14, merge_size=2, temporal_patch_size=2),
        tokenizer=parts["tokenizer"],
        video_processor=Qwen2VLVideoProcessor(patch_size=14, merge_size=2, temporal_patch_size=2),
        chat_template="{{ messages }}",
    )
    return _save(QwenImageEditPlusPipeline(processor=processor, **parts), folder)


CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def flux2_klein(folder: Path, seed: int = 0) -> Path:
    """Save a FLUX.2 klein, which generates with and without reference images."""
    import torch
    from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline, Flux2Transformer2DModel
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    tokenizer = qwen_tokenizer()
    tokenizer.chat_template = CHAT
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=28, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=1024, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    vae = AutoencoderKLFlux2(
        sample_size=32, block_out_channels=(4, 8), layers_per_block=1, latent_channels=4, norm_num_groups=1,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    pipeline = Flux2KleinPipeline(
        transformer=Flux2Transformer2DModel(
            patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=48, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False,
        ),
        scheduler=_scheduler(use_dynamic_shifting=True),
        vae=_distinguishing(vae),
        text_encoder=Qwen3ForCausalLM(config).eval(),
        tokenizer=tokenizer,
        is_distilled=True,
    )  # fmt: skip
    return _save(pipeline, folder)


def _save(pipeline: Any, folder: Path) -> Path:
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder
