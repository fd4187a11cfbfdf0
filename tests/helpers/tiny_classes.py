"""Tiny pipelines of the classes of today's models, with random weights; see `tests/helpers/tiny_pipelines.py`.

    folder = build("OvisImagePipeline", tmp_path / "ovis")

A builder returns the components of a class. Every prompt of any length has its own embeddings, and latents of different
images differ, so that an image which depends on its batch or on another's reference shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.helpers import tiny_pipelines
from tests.helpers.tiny_pipelines import (
    CHAT,
    _distinguishing,
    _letters,
    _qwen_parts,
    _qwen_text,
    _scheduler,
    _vae,
    clip_text,
    clip_tokenizer,
    qwen_tokenizer,
    t5_text,
    t5_tokenizer,
)

Parts = dict[str, Any]

CONTENT_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{{ part.text }}{% endfor %}<|im_end|>\n{% endfor %}"
)

LETTERS = "".join(chr(code) for code in range(33, 127))


def _flow() -> Any:
    return _scheduler(shift=3.0)


def _chat_tokenizer() -> Any:
    tokenizer = qwen_tokenizer()
    tokenizer.chat_template = CHAT
    return tokenizer


def _prefixed_tokenizer() -> Any:
    """Return a tokenizer that begins every text with a token, so that an empty one has a length."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = qwen_tokenizer()
    start = "<|im_start|>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{start} $A", special_tokens=[(start, tokenizer.convert_tokens_to_ids(start))]
    )
    return tokenizer


def _causal(name: str, width: int = 16, layers: int = 2, words: int = 0) -> Any:
    """Return the language model of a transformers class whose configuration has the usual names."""
    import transformers

    config_name = name.removesuffix("ForCausalLM").removesuffix("Model") + "Config"
    config = getattr(transformers, config_name)(
        vocab_size=words or len(qwen_tokenizer()), hidden_size=width, intermediate_size=width,
        num_hidden_layers=layers, num_attention_heads=2, num_key_value_heads=2, head_dim=8,
        max_position_embeddings=2048, pad_token_id=0, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return getattr(transformers, name)(config).eval()


def _gemma_tokenizer() -> Any:
    from transformers import GemmaTokenizer

    words = ["<pad>", "<eos>", "<bos>", "<unk>", "▁", *LETTERS]
    return GemmaTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[])


def _gemma(width: int) -> Any:
    from transformers import Gemma2Config, Gemma2Model

    config = Gemma2Config(
        vocab_size=len(_gemma_tokenizer()), hidden_size=width, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, head_dim=8, max_position_embeddings=2048,
        attn_implementation="eager",
    )  # fmt: skip
    return Gemma2Model(config).eval()


def _wide_vae(channels: int, levels: int = 2, **more: Any) -> Any:
    """Return an image autoencoder of FLUX.1's kind that shrinks sides by 2 ** (levels - 1)."""
    from diffusers import AutoencoderKL

    return _distinguishing(AutoencoderKL(
        sample_size=32, block_out_channels=(4, 8, 8, 8)[:levels], layers_per_block=1, latent_channels=channels,
        norm_num_groups=1, down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels, **more,
    ))  # fmt: skip


def _flux2_vae() -> Any:
    from diffusers import AutoencoderKLFlux2

    return _distinguishing(AutoencoderKLFlux2(
        sample_size=32, block_out_channels=(4, 8), layers_per_block=1, latent_channels=4, norm_num_groups=1,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    ))  # fmt: skip


def _qwen3_vl(name: str, layers: int = 2) -> Any:
    import transformers

    token_id = qwen_tokenizer().convert_tokens_to_ids
    config = transformers.Qwen3VLConfig(
        text_config={
            "vocab_size": len(qwen_tokenizer()), "hidden_size": 16, "intermediate_size": 16,
            "num_hidden_layers": layers, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
        },
        vision_config={
            "depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16,
            "patch_size": 16, "spatial_merge_size": 2, "deepstack_visual_indexes": [0],
        },
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
    )  # fmt: skip
    return getattr(transformers, name)(config).eval()


def _qwen3_vl_processor() -> Any:
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(
            patch_size=16, merge_size=2, temporal_patch_size=2, min_pixels=32 * 32, max_pixels=64 * 64
        ),
        tokenizer=qwen_tokenizer(),
        video_processor=Qwen3VLVideoProcessor(patch_size=16, merge_size=2, temporal_patch_size=2),
        chat_template=CONTENT_CHAT,
    )


def _qwen2_vl_processor() -> Any:
    from transformers import Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(
            patch_size=14, merge_size=2, temporal_patch_size=2, min_pixels=28 * 28, max_pixels=56 * 56
        ),
        tokenizer=_chat_tokenizer(),
        video_processor=Qwen2VLVideoProcessor(patch_size=14, merge_size=2, temporal_patch_size=2),
        chat_template=CHAT,
    )


def z_image() -> Parts:
    import torch
    from diffusers import ZImageTransformer2DModel

    transformer = ZImageTransformer2DModel(
        in_channels=4, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16,
        axes_dims=[8, 4, 4], axes_lens=[1024, 32, 32],
    )  # fmt: skip
    with torch.no_grad():  # these are not initialised
        transformer.x_pad_token.fill_(0.5)
        transformer.cap_pad_token.fill_(0.5)
    return {
        "transformer": transformer, "vae": _wide_vae(4, shift_factor=0.1, scaling_factor=0.4), "scheduler": _flow(),
        "tokenizer": _chat_tokenizer(),
        "text_encoder": _causal("Qwen3Model"),
    }  # fmt: skip


def z_image_omni() -> Parts:
    import torch
    from diffusers import ZImageTransformer2DModel
    from transformers import Siglip2ImageProcessor, Siglip2VisionConfig, Siglip2VisionModel

    transformer = ZImageTransformer2DModel(
        in_channels=4, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16,
        axes_dims=[8, 4, 4], axes_lens=[2048, 64, 64], siglip_feat_dim=16,
    )  # fmt: skip
    with torch.no_grad():  # these are not initialised
        for name in ("x_pad_token", "cap_pad_token", "siglip_pad_token"):
            getattr(transformer, name).fill_(0.5)
    config = Siglip2VisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_patches=16, patch_size=16
    )
    return {
        **z_image(), "transformer": transformer, "siglip": Siglip2VisionModel(config).eval(),
        "siglip_processor": Siglip2ImageProcessor(patch_size=16, max_num_patches=16),
    }  # fmt: skip


def lumina2() -> Parts:
    from diffusers import Lumina2Transformer2DModel

    return {
        "transformer": Lumina2Transformer2DModel(
            sample_size=4, patch_size=2, in_channels=4, hidden_size=8, num_layers=2, num_attention_heads=1,
            num_kv_heads=1, multiple_of=16, axes_dim_rope=[4, 2, 2], axes_lens=[512, 64, 64], cap_feat_dim=8,
        ),
        "vae": _wide_vae(4, 4, shift_factor=0.1, scaling_factor=0.4), "scheduler": _flow(),
        "text_encoder": _gemma(8), "tokenizer": _gemma_tokenizer(),
    }  # fmt: skip


def ovis() -> Parts:
    from diffusers import OvisImageTransformer2DModel

    return {
        "transformer": OvisImageTransformer2DModel(
            patch_size=1, in_channels=4, out_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=32, axes_dims_rope=(4, 4, 8),
        ),
        "vae": _vae(1), "scheduler": _scheduler(use_dynamic_shifting=True), "tokenizer": _chat_tokenizer(),
        "text_encoder": _causal("Qwen3Model", 32),
    }  # fmt: skip


def longcat() -> Parts:
    from diffusers import LongCatImageTransformer2DModel

    return {
        "transformer": LongCatImageTransformer2DModel(
            patch_size=1, in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=16, pooled_projection_dim=16, axes_dims_rope=[4, 4, 8],
        ),
        "vae": _wide_vae(16, 4, shift_factor=0.1, scaling_factor=0.4),
        "scheduler": _scheduler(use_dynamic_shifting=True), "tokenizer": qwen_tokenizer(),
        "text_encoder": _qwen_text(), "text_processor": _qwen2_vl_processor(),
    }  # fmt: skip


def hidream() -> Parts:
    from diffusers import HiDreamImageTransformer2DModel

    return {
        "transformer": HiDreamImageTransformer2DModel(
            patch_size=2, in_channels=4, out_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=8,
            num_attention_heads=4, caption_channels=[32, 16], text_emb_dim=64, num_routed_experts=4,
            num_activated_experts=2, axes_dims_rope=(4, 2, 2), max_resolution=(32, 32), llama_layers=(0, 1),
        ).eval(),
        "vae": _vae(4), "scheduler": _flow(),
        "text_encoder": clip_text(projected=True, positions=128), "tokenizer": clip_tokenizer(),
        "text_encoder_2": clip_text(projected=True, positions=128), "tokenizer_2": clip_tokenizer(),
        "text_encoder_3": t5_text(32), "tokenizer_3": t5_tokenizer(),
        "text_encoder_4": _causal("LlamaForCausalLM"), "tokenizer_4": qwen_tokenizer(),
    }  # fmt: skip


def _sana(**more: Any) -> Parts:
    from diffusers import AutoencoderDC, SanaTransformer2DModel

    blocks = ("ResBlock", "EfficientViTBlock")
    return {
        "transformer": SanaTransformer2DModel(
            patch_size=1, in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2, attention_head_dim=4,
            num_cross_attention_heads=2, cross_attention_head_dim=4, cross_attention_dim=8, caption_channels=8,
            sample_size=16, **more,
        ),
        "vae": AutoencoderDC(
            in_channels=3, latent_channels=4, attention_head_dim=2, encoder_block_types=blocks,
            decoder_block_types=blocks, encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
            encoder_qkv_multiscales=((), (5,)), decoder_qkv_multiscales=((), (5,)), encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1), downsample_block_type="conv", upsample_block_type="interpolate",
            decoder_norm_types="rms_norm", decoder_act_fns="silu", scaling_factor=0.4,
        ),
        "text_encoder": _gemma(8), "tokenizer": _gemma_tokenizer(),
    }  # fmt: skip


def sana() -> Parts:
    return {**_sana(), "scheduler": _flow()}


def sana_sprint() -> Parts:
    from diffusers import SCMScheduler

    return {**_sana(qk_norm="rms_norm_across_heads", guidance_embeds=True), "scheduler": SCMScheduler()}


def hunyuan_image() -> Parts:
    from diffusers import AutoencoderKLHunyuanImage, HunyuanImageTransformer2DModel
    from diffusers.guiders import AdaptiveProjectedMixGuidance
    from transformers import ByT5Tokenizer, T5Config, T5EncoderModel

    byt5 = T5Config(vocab_size=384, d_model=32, d_kv=8, d_ff=16, num_layers=2, num_heads=2)
    return {
        "transformer": HunyuanImageTransformer2DModel(
            in_channels=4, out_channels=4, num_attention_heads=4, attention_head_dim=8, num_layers=1,
            num_single_layers=1, num_refiner_layers=1, patch_size=(1, 1), text_embed_dim=16, text_embed_2_dim=32,
            rope_axes_dim=(4, 4),
        ),
        "vae": AutoencoderKLHunyuanImage(
            in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(32, 32, 32, 32), layers_per_block=1,
            scaling_factor=0.5, spatial_compression_ratio=8, sample_size=128,
        ).eval(),
        "scheduler": _flow(), "text_encoder": _qwen_text(), "tokenizer": qwen_tokenizer(),
        "text_encoder_2": T5EncoderModel(byt5).eval(), "tokenizer_2": ByT5Tokenizer(),
        "guider": AdaptiveProjectedMixGuidance(adaptive_projected_guidance_start_step=1),
        "ocr_guider": AdaptiveProjectedMixGuidance(adaptive_projected_guidance_start_step=1),
    }  # fmt: skip


def chroma() -> Parts:
    from diffusers import ChromaTransformer2DModel

    return {
        "transformer": ChromaTransformer2DModel(
            patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=32, axes_dims_rope=(4, 4, 8), approximator_hidden_dim=32,
            approximator_layers=1, approximator_num_channels=16,
        ),
        "vae": _vae(1), "scheduler": _scheduler(use_dynamic_shifting=True), "text_encoder": t5_text(32),
        "tokenizer": t5_tokenizer(),
    }  # fmt: skip


def cogview4() -> Parts:
    from diffusers import CogView4Transformer2DModel

    tokenizer = _prefixed_tokenizer()
    tokenizer.padding_side = "left"  # as the model's own
    return {
        "transformer": CogView4Transformer2DModel(
            patch_size=2, in_channels=4, num_layers=2, attention_head_dim=4, num_attention_heads=4, out_channels=4,
            text_embed_dim=32, time_embed_dim=8, condition_dim=4, sample_size=16,
        ),
        "vae": _wide_vae(4), "text_encoder": _causal("GlmModel", 32), "tokenizer": tokenizer,
        "scheduler": _scheduler(use_dynamic_shifting=True, time_shift_type="linear", base_image_seq_len=256),
    }  # fmt: skip


def kandinsky5() -> Parts:
    from diffusers import Kandinsky5Transformer3DModel

    return {
        "transformer": Kandinsky5Transformer3DModel(
            in_visual_dim=4, in_text_dim=16, in_text_dim2=32, time_dim=16, out_visual_dim=4, patch_size=(1, 2, 2),
            model_dim=16, ff_dim=32, num_text_blocks=1, num_visual_blocks=2, axes_dims=(1, 1, 2), visual_cond=False,
            attention_type="regular",
        ),
        "vae": _wide_vae(4, 4, shift_factor=0.1, scaling_factor=0.4), "scheduler": _flow(),
        "text_encoder": _qwen_text(), "tokenizer": _qwen2_vl_processor(),
        "text_encoder_2": clip_text(projected=False), "tokenizer_2": clip_tokenizer(),
    }  # fmt: skip


def prx() -> Parts:
    from diffusers import PRXTransformer2DModel
    from transformers.models.t5gemma.configuration_t5gemma import T5GemmaConfig, T5GemmaModuleConfig
    from transformers.models.t5gemma.modeling_t5gemma import T5GemmaEncoder

    tokenizer = _gemma_tokenizer()
    tokenizer.model_max_length = 64
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "max_position_embeddings": 64,
        "layer_types": ["full_attention"], "query_pre_attn_scalar": 4, "dropout_rate": 0.0,
    }  # fmt: skip
    module = T5GemmaModuleConfig(**sizes)
    top = module.to_dict() | {"is_encoder_decoder": False, "model_type": "t5gemma"}
    config = T5GemmaConfig(encoder=module, decoder=module, **top)
    return {
        "transformer": PRXTransformer2DModel(
            patch_size=1, in_channels=4, context_in_dim=8, hidden_size=8, mlp_ratio=2.0, num_heads=2, depth=1,
            axes_dim=[2, 2],
        ),
        "vae": _vae(4), "scheduler": _flow(), "text_encoder": T5GemmaEncoder(config).eval(), "tokenizer": tokenizer,
    }  # fmt: skip


def aura_flow() -> Parts:
    from diffusers import AuraFlowTransformer2DModel
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(vocab_size=len(t5_tokenizer()), d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4)
    return {
        "transformer": AuraFlowTransformer2DModel(
            sample_size=32, patch_size=2, in_channels=4, num_mmdit_layers=1, num_single_dit_layers=1,
            attention_head_dim=8, num_attention_heads=4, caption_projection_dim=32, joint_attention_dim=32,
            out_channels=4, pos_embed_max_size=256,
        ),
        "vae": _wide_vae(4), "scheduler": _flow(), "text_encoder": UMT5EncoderModel(config).eval(),
        "tokenizer": t5_tokenizer(),
    }  # fmt: skip


def pixart_sigma() -> Parts:
    from diffusers import DPMSolverMultistepScheduler, PixArtTransformer2DModel

    return {
        "transformer": PixArtTransformer2DModel(
            sample_size=32, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=3,
            caption_channels=32, in_channels=4, cross_attention_dim=24, out_channels=8, attention_bias=True,
            activation_fn="gelu-approximate", num_embeds_ada_norm=1000, norm_type="ada_norm_single",
            norm_elementwise_affine=False,
        ).eval(),
        "vae": _wide_vae(4), "scheduler": DPMSolverMultistepScheduler(), "text_encoder": t5_text(32),
        "tokenizer": t5_tokenizer(),
    }  # fmt: skip


def sdxl() -> Parts:
    from diffusers import EulerDiscreteScheduler, UNet2DConditionModel

    return {
        "unet": UNet2DConditionModel(
            block_out_channels=(2, 4), layers_per_block=1, sample_size=16, in_channels=4, out_channels=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=(2, 4), use_linear_projection=True,
            addition_embed_type="text_time", addition_time_embed_dim=8, transformer_layers_per_block=(1, 1),
            projection_class_embeddings_input_dim=80, cross_attention_dim=64, norm_num_groups=1,
        ).eval(),
        "vae": _wide_vae(4), "scheduler": EulerDiscreteScheduler(steps_offset=1, timestep_spacing="leading"),
        "text_encoder": clip_text(projected=False), "tokenizer": clip_tokenizer(),
        "text_encoder_2": clip_text(projected=True), "tokenizer_2": clip_tokenizer(),
    }  # fmt: skip


def krea2() -> Parts:
    from diffusers import Krea2Transformer2DModel

    return {
        "transformer": Krea2Transformer2DModel(
            in_channels=16, num_layers=2, attention_head_dim=8, num_attention_heads=4, num_key_value_heads=2,
            intermediate_size=32, timestep_embed_dim=8, text_hidden_dim=16, num_text_layers=3,
            text_num_attention_heads=2, text_num_key_value_heads=1, text_intermediate_size=16,
            num_layerwise_text_blocks=1, num_refiner_text_blocks=1, axes_dims_rope=(4, 2, 2), rope_theta=1000.0,
        ),
        "vae": _qwen_parts()["vae"], "scheduler": _scheduler(use_dynamic_shifting=True),
        "text_encoder": _qwen3_vl("Qwen3VLModel"), "tokenizer": qwen_tokenizer(),
        "text_encoder_select_layers": (0, 1, 2),
    }  # fmt: skip


def nucleus() -> Parts:
    from diffusers import NucleusMoEImageTransformer2DModel

    return {
        "transformer": NucleusMoEImageTransformer2DModel(
            patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=4,
            joint_attention_dim=16, axes_dims_rope=(8, 4, 4), moe_enabled=False, capacity_factors=[8.0, 8.0],
        ),
        "vae": _qwen_parts()["vae"], "scheduler": _flow(),
        "text_encoder": _qwen3_vl("Qwen3VLForConditionalGeneration", 8), "processor": _qwen3_vl_processor(),
    }  # fmt: skip


def ernie() -> Parts:
    from diffusers import ErnieImageTransformer2DModel

    return {
        "transformer": ErnieImageTransformer2DModel(
            hidden_size=32, num_attention_heads=2, num_layers=1, ffn_hidden_size=32, in_channels=16, out_channels=16,
            patch_size=1, text_in_dim=16, rope_axes_dim=(4, 6, 6),
        ),
        "vae": _flux2_vae(), "scheduler": _flow(), "text_encoder": _causal("Qwen3Model"),
        "tokenizer": qwen_tokenizer(),
    }  # fmt: skip


def fibo() -> Parts:
    from diffusers import AutoencoderKLWan, BriaFiboTransformer2DModel

    return {
        "transformer": BriaFiboTransformer2DModel(
            patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8,
            num_attention_heads=2, joint_attention_dim=32, text_encoder_dim=16, pooled_projection_dim=None,
            axes_dims_rope=[0, 4, 4],
        ),
        "vae": AutoencoderKLWan(
            base_dim=8, decoder_base_dim=8, dim_mult=[1, 1, 1, 1], num_res_blocks=1, out_channels=12, in_channels=12,
            patch_size=2, scale_factor_spatial=16, scale_factor_temporal=4, temperal_downsample=[False, True, True],
            z_dim=16, is_residual=True,
        ).eval(),
        "scheduler": _flow(), "text_encoder": _causal("SmolLM3ForCausalLM", words=128_001),
        "tokenizer": qwen_tokenizer(),
    }  # fmt: skip


def flux2() -> Parts:
    from diffusers import Flux2Transformer2DModel
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration

    tokenizer = qwen_tokenizer()
    tokenizer.chat_template = CONTENT_CHAT
    config = Mistral3Config(
        text_config={
            "model_type": "mistral", "vocab_size": len(tokenizer), "hidden_size": 8, "intermediate_size": 8,
            "num_hidden_layers": 31, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 4,
            "max_position_embeddings": 1024, "sliding_window": None,
        },
        vision_config={
            "model_type": "pixtral", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 8, "image_size": 28, "patch_size": 14,
        },
    )  # fmt: skip
    return {
        "transformer": Flux2Transformer2DModel(
            patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=24, axes_dims_rope=(4, 4, 4, 4),
        ),
        "vae": _flux2_vae(), "scheduler": _scheduler(use_dynamic_shifting=True),
        "text_encoder": Mistral3ForConditionalGeneration(config).eval(), "tokenizer": tokenizer,
    }  # fmt: skip


def glm_image() -> Parts:
    from diffusers import GlmImageTransformer2DModel
    from transformers import (
        GlmImageConfig,
        GlmImageForConditionalGeneration,
        GlmImageImageProcessor,
        GlmImageProcessor,
        Qwen2Tokenizer,
    )

    tokens = {"image_token": "<|image|>", "grid_bos_token": "<|grid|>", "grid_eos_token": "<|/grid|>"}
    words = [*_letters(), "<|endoftext|>", "<|im_start|>", "<|im_end|>", *tokens.values()]
    tokenizer = Qwen2Tokenizer(
        vocab={word: number for number, word in enumerate(words)}, merges=[], bos_token="<|im_start|>",
        padding_side="left", extra_special_tokens=tokens,
    )  # fmt: skip
    token_id = tokenizer.convert_tokens_to_ids
    config = GlmImageConfig(
        text_config={
            "vocab_size": len(words) + 128, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 4096,
            "vision_vocab_size": 128, "eos_token_id": None, "pad_token_id": 0,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]},
        },
        vision_config={
            "depth": 2, "hidden_size": 32, "num_heads": 2, "image_size": 32, "patch_size": 16, "intermediate_size": 32,
        },
        vq_config={"embed_dim": 32, "num_embeddings": 128, "latent_channels": 32},
        image_token_id=token_id("<|image|>"),
        image_start_token_id=token_id("<|im_start|>"),
        image_end_token_id=token_id("<|im_end|>"),
    )  # fmt: skip
    encoder = GlmImageForConditionalGeneration(config).eval()
    encoder.generation_config.do_sample = True
    encoder.generation_config.eos_token_id = None
    template = (
        "{% for message in messages %}{% for part in message.content %}"
        "{{ '<|im_start|><|image|><|im_end|>' if part.type == 'image' else part.text }}{% endfor %}{% endfor %}"
    )
    return {
        "transformer": GlmImageTransformer2DModel(
            patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2,
            text_embed_dim=32, time_embed_dim=16, condition_dim=8, prior_vq_quantizer_codebook_size=128,
        ),
        "vae": _wide_vae(4, 4, latents_mean=[0.0] * 4, latents_std=[1.0] * 4),
        "scheduler": _scheduler(use_dynamic_shifting=True), "text_encoder": t5_text(32), "tokenizer": t5_tokenizer(),
        "vision_language_encoder": encoder,
        "processor": GlmImageProcessor(
            image_processor=GlmImageImageProcessor(
                patch_size=16, merge_size=1, temporal_patch_size=1, min_pixels=32 * 32, max_pixels=128 * 128
            ),
            tokenizer=tokenizer, chat_template=template,
        ),
    }  # fmt: skip


def qwen_image_21() -> Parts:
    from diffusers import AutoencoderKLQwenImage21, QwenImage21Transformer2DModel

    return {
        "transformer": QwenImage21Transformer2DModel(
            in_channels=8, out_channels=8, num_layers=2, attention_head_dim=16, num_attention_heads=2,
            context_in_dim=16, axes_dims_rope=(4, 6, 6),
        ),
        "vae": AutoencoderKLQwenImage21(
            base_dim=4, decoder_base_dim=4, z_dim=8, dim_mult=[1, 1, 1, 1, 1], num_res_blocks=1,
            latents_mean=[0.0] * 8, latents_std=[1.0] * 8,
        ).eval(),
        "scheduler": _scheduler(use_dynamic_shifting=True),
        "text_encoder": _qwen3_vl("Qwen3VLForConditionalGeneration"), "processor": _qwen3_vl_processor(),
    }  # fmt: skip


def kandinsky5_edit() -> Parts:
    parts = kandinsky5()
    config = {**parts["transformer"].config, "visual_cond": True}
    return {**parts, "transformer": type(parts["transformer"]).from_config(config)}


def cogview3() -> Parts:
    from diffusers import CogVideoXDDIMScheduler, CogView3PlusTransformer2DModel

    return {
        "transformer": CogView3PlusTransformer2DModel(
            patch_size=2, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2, out_channels=4,
            text_embed_dim=32, time_embed_dim=8, condition_dim=4, pos_embed_max_size=64, sample_size=16,
        ),
        "vae": _wide_vae(4), "scheduler": CogVideoXDDIMScheduler(), "text_encoder": t5_text(32),
        "tokenizer": t5_tokenizer(),
    }  # fmt: skip


def prx_pixel() -> Parts:
    from diffusers import PRXTransformer2DModel

    return {
        "transformer": PRXTransformer2DModel(
            patch_size=4, in_channels=3, context_in_dim=16, hidden_size=16, mlp_ratio=2.0, num_heads=2, depth=2,
            axes_dim=[4, 4], bottleneck_size=16, resolution_embeds=True,
        ),
        "scheduler": _flow(), "text_encoder": _causal("Qwen3Model"), "tokenizer": qwen_tokenizer(),
        "prompt_max_tokens": 64,
    }  # fmt: skip


def bria() -> Parts:
    from diffusers import BriaTransformer2DModel

    return {
        "transformer": BriaTransformer2DModel(
            patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=None, axes_dims_rope=[0, 8, 8],
        ),
        "vae": _wide_vae(4, shift_factor=0.0), "scheduler": _flow(), "text_encoder": t5_text(32),
        "tokenizer": t5_tokenizer(), "image_encoder": None, "feature_extractor": None,
    }  # fmt: skip


def omnigen() -> Parts:
    from diffusers import OmniGenTransformer2DModel

    return {
        "transformer": OmniGenTransformer2DModel(
            hidden_size=32, num_attention_heads=4, num_key_value_heads=4, intermediate_size=32, num_layers=2,
            in_channels=4, time_step_dim=8, pos_embed_max_size=64,
            rope_scaling={"long_factor": [1.0] * 4, "short_factor": [1.0] * 4},
        ),
        "vae": _wide_vae(4, 4), "scheduler": _scheduler(invert_sigmas=True, num_train_timesteps=1),
        "tokenizer": qwen_tokenizer(),
    }  # fmt: skip


def _wan_vae() -> Any:
    from diffusers import AutoencoderKLWan

    return _distinguishing(AutoencoderKLWan(
        base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
    ))  # fmt: skip


def _joy(transformer: str) -> Parts:
    import diffusers

    return {
        "transformer": getattr(diffusers, transformer)(
            patch_size=[1, 2, 2], in_channels=16, hidden_size=32, num_attention_heads=2, text_dim=16, num_layers=2,
            rope_dim_list=[4, 6, 6], theta=256,
        ),
        "vae": _wan_vae(), "scheduler": _flow(), "text_encoder": _qwen3_vl("Qwen3VLForConditionalGeneration"),
        "tokenizer": qwen_tokenizer(), "processor": _qwen3_vl_processor(),
    }  # fmt: skip


def joy_edit() -> Parts:
    return _joy("JoyImageEditTransformer3DModel")


def joy_edit_plus() -> Parts:
    return _joy("JoyImageEditPlusTransformer3DModel")


def dreamlite() -> Parts:
    from diffusers import AutoencoderTiny, DreamLiteUNetModel

    return {
        "unet": DreamLiteUNetModel(
            sample_size=16, in_channels=4, out_channels=4, block_out_channels=(8, 16), cross_attention_dim=16,
            down_block_types=("DreamLiteCrossAttnNoSelfAttnDownBlock2D", "DreamLiteCrossAttnDownBlock2D"),
            up_block_types=("DreamLiteCrossAttnUpBlock2D", "DreamLiteUpBlock2D"), attention_head_dim=8,
            layers_per_block=1, norm_num_groups=4, transformer_layers_per_block=1,
        ),
        "vae": AutoencoderTiny(
            in_channels=3, out_channels=3, encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1), latent_channels=4,
        ),
        "scheduler": _flow(), "text_encoder": _qwen3_vl("Qwen3VLForConditionalGeneration"),
        "tokenizer": qwen_tokenizer(), "processor": _qwen3_vl_processor(),
    }  # fmt: skip


def ideogram4() -> Parts:
    from diffusers import Ideogram4Transformer2DModel

    tokenizer = qwen_tokenizer()
    tokenizer.chat_template = CONTENT_CHAT
    sizes: dict[str, Any] = {
        "in_channels": 16, "num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2,
        "intermediate_size": 32, "adaln_dim": 16, "llm_features_dim": 16 * 13, "mrope_section": (4, 2, 2),
    }  # fmt: skip
    other = Ideogram4Transformer2DModel(**sizes)
    return {
        "transformer": Ideogram4Transformer2DModel(**sizes), "unconditional_transformer": other, "vae": _flux2_vae(),
        "scheduler": _flow(), "text_encoder": _qwen3_vl("Qwen3VLModel", 36), "tokenizer": tokenizer,
        "prompt_enhancer_head": None,
    }  # fmt: skip


def fibo2() -> Parts:
    from diffusers import BriaFibo2Transformer2DModel

    return {
        "transformer": BriaFibo2Transformer2DModel(
            in_channels=4, patch_size=2, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, cap_feat_dim=48,
            injection_layer_ids=(0,), perceiver_num_layers=1, min_num_gist_tokens=4, max_num_gist_tokens=8,
            gist_step=4, gist_min_text_len=8, gist_max_text_len=64, axes_dims=(8, 4, 4), axes_lens=(2048, 64, 64),
        ),
        "vae": _flux2_vae(), "scheduler": _scheduler(use_dynamic_shifting=True),
        "text_encoder": _qwen3_vl("Qwen3VLForConditionalGeneration", 36), "processor": _qwen3_vl_processor(),
    }  # fmt: skip


def flux2_klein_kv() -> Parts:
    from diffusers import Flux2Transformer2DModel

    return {
        "transformer": Flux2Transformer2DModel(
            patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=48, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False,
        ),
        "vae": _flux2_vae(), "scheduler": _scheduler(use_dynamic_shifting=True),
        "text_encoder": _causal("Qwen3ForCausalLM", layers=28), "tokenizer": _chat_tokenizer(),
    }  # fmt: skip


def qwen_image_edit() -> Parts:
    import torch

    parts = _qwen_parts()
    with torch.no_grad():
        parts["vae"].decoder.conv_out.weight *= 4  # otherwise images of different references are alike
    return {**parts, "processor": _qwen2_vl_processor()}


BUILDERS: dict[str, Callable[[], Parts]] = {
    "AuraFlowPipeline": aura_flow,
    "QwenImageEditPipeline": qwen_image_edit,
    "PRXPixelPipeline": prx_pixel,
    "OmniGenPipeline": omnigen,
    "Kandinsky5I2IPipeline": kandinsky5_edit,
    "JoyImageEditPlusPipeline": joy_edit_plus,
    "JoyImageEditPipeline": joy_edit,
    "Ideogram4Pipeline": ideogram4,
    "Flux2KleinKVPipeline": flux2_klein_kv,
    "DreamLitePipeline": dreamlite,
    "DreamLiteMobilePipeline": dreamlite,
    "CogView3PlusPipeline": cogview3,
    "BriaPipeline": bria,
    "BriaFibo2Pipeline": fibo2,
    "BriaFiboPipeline": fibo,
    "ChromaPipeline": chroma,
    "CogView4Pipeline": cogview4,
    "ErnieImagePipeline": ernie,
    "Flux2Pipeline": flux2,
    "GlmImagePipeline": glm_image,
    "HiDreamImagePipeline": hidream,
    "HunyuanImagePipeline": hunyuan_image,
    "Kandinsky5T2IPipeline": kandinsky5,
    "Krea2Pipeline": krea2,
    "LongCatImageEditPipeline": longcat,
    "LongCatImagePipeline": longcat,
    "Lumina2Pipeline": lumina2,
    "NucleusMoEImagePipeline": nucleus,
    "OvisImagePipeline": ovis,
    "PRXPipeline": prx,
    "PixArtSigmaPipeline": pixart_sigma,
    "QwenImage21Pipeline": qwen_image_21,
    "SanaPipeline": sana,
    "SanaSprintPipeline": sana_sprint,
    "StableDiffusionXLPipeline": sdxl,
    "ZImageOmniPipeline": z_image_omni,
    "ZImagePipeline": z_image,
}


FAINT = {
    "DreamLiteMobilePipeline",
    "Flux2KleinKVPipeline",
    "JoyImageEditPlusPipeline",
    "PRXPipeline",
    "QwenImageEditPipeline",
}
"""Classes whose images would follow prompt or references by too little."""
OLDER_BUILDERS: dict[str, Callable[[Path], Path]] = {
    "Flux2KleinPipeline": tiny_pipelines.flux2_klein,
    "FluxKontextPipeline": tiny_pipelines.kontext,
    "FluxPipeline": tiny_pipelines.flux,
    "QwenImageEditPlusPipeline": tiny_pipelines.qwen_image_edit,
    "QwenImagePipeline": tiny_pipelines.qwen_image,
    "StableDiffusion3Pipeline": tiny_pipelines.sd3,
}
"""Classes that `tiny_pipelines` saves; their denoisers are enlarged here."""


def build(name: str, folder: Path, seed: int = 0) -> Path:
    """Save a tiny pipeline of a class."""
    import diffusers
    import torch

    if name in OLDER_BUILDERS:
        _enlarge(name, OLDER_BUILDERS[name](folder))
        return folder
    torch.manual_seed(seed)
    parts = BUILDERS[name]()
    _reading_text(parts.get("transformer") or parts["unet"], 4.0 if name in FAINT else 2.0)
    getattr(diffusers, name)(**parts).save_pretrained(folder, safe_serialization=True)
    return folder


def builder(root: Path) -> Callable[[str], str]:
    """Return a function that returns the folder of a class, which is built at the first call."""

    def folder(name: str) -> str:
        path = root / name
        if not path.exists():
            build(name, path)
        return str(path)

    return folder


def _enlarge(name: str, folder: Path) -> None:
    """Enlarge the weights of the denoiser in a folder, see `_reading_text`."""
    import diffusers

    pipeline = getattr(diffusers, name).from_pretrained(folder, local_files_only=True)
    _reading_text(pipeline.transformer, 4.0 if name.startswith("Qwen") else 2.0)
    pipeline.transformer.save_pretrained(folder / "transformer")


def _reading_text(denoiser: Any, factor: float) -> None:
    """Enlarge the weights of a random denoiser, some of which start as zeros, so that its images follow its prompt."""
    import torch

    with torch.no_grad():
        for weights in denoiser.parameters():
            if weights.dim() > 1:
                weights.mul_(factor) if weights.any() else weights.normal_(0, 0.1)


def lower_sizes(pipe: Any) -> None:
    """Have a pipeline draw small images that otherwise draws at the sizes of its training alone."""
    if hasattr(pipe, "resolutions"):
        pipe.resolutions = [(64, 64)]
    if type(pipe).__name__.startswith("JoyImageEdit"):
        processor = getattr(pipe, "vae_image_processor", None) or pipe.image_processor
        processor.get_default_height_width = lambda image, height=None, width=None: (64, 64)
    if type(pipe).__name__ == "BriaFibo2Pipeline":
        pipe.default_sample_size = 32
