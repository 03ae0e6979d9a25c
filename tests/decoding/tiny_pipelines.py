"""Pipelines of diffusers with tiny random weights, written as the folders that users have. No network."""

import json
from pathlib import Path

import torch

DIM = 32  # of the embeddings that they take


def _vae():
    from diffusers import AutoencoderKL

    return AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 2,
                         up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, layers_per_block=1)  # fmt: skip


def _tokenizer(folder: Path):
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    letters = [*"abc", *[f"{letter}</w>" for letter in "abc"], "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({letter: place for place, letter in enumerate(letters)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16)


def _text_config():
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        bos_token_id=6,
        eos_token_id=7,
        pad_token_id=7,
        hidden_size=32,
        projection_dim=32,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=2,
        vocab_size=8,
        max_position_embeddings=16,
    )


def _vision():
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=32,
        projection_dim=DIM,
        num_hidden_layers=1,
        num_attention_heads=4,
        image_size=16,
        intermediate_size=37,
        patch_size=8,
    )
    return CLIPVisionModelWithProjection(config)


def _unet(**options):
    from diffusers import UNet2DConditionModel

    usual = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "use_linear_projection": True,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (2, 4),
        "cross_attention_dim": 32,
        "norm_num_groups": 8,
    }
    return UNet2DConditionModel(**usual | options)


def write_unclip(folder: Path, *, dim: int = DIM) -> Path:
    from diffusers import DDIMScheduler, DDPMScheduler, StableUnCLIPImg2ImgPipeline
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
    from transformers import CLIPImageProcessor, CLIPTextModel

    torch.manual_seed(0)
    StableUnCLIPImg2ImgPipeline(
        feature_extractor=CLIPImageProcessor(crop_size=16, size=16),
        image_encoder=_vision(),
        image_normalizer=StableUnCLIPImageNormalizer(embedding_dim=dim),
        image_noising_scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        tokenizer=_tokenizer(folder.with_name("words")),
        text_encoder=CLIPTextModel(_text_config()),
        unet=_unet(class_embed_type="projection", projection_class_embeddings_input_dim=2 * dim),
        scheduler=DDIMScheduler(prediction_type="v_prediction"),
        vae=_vae(),
    ).save_pretrained(folder)
    return folder


def write_sdxl(folder: Path, *, adapter: bool = True) -> Path:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
    from safetensors.torch import save_file
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    unet = _unet(
        attention_head_dim=(2, 4),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 1),
        projection_class_embeddings_input_dim=80,
        cross_attention_dim=64,
    )
    StableDiffusionXLPipeline(
        unet=unet,
        scheduler=EulerDiscreteScheduler(),
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config()),
        tokenizer=_tokenizer(folder.with_name("words")),
        text_encoder_2=CLIPTextModelWithProjection(_text_config()),
        tokenizer_2=_tokenizer(folder.with_name("words")),
    ).save_pretrained(folder)
    if adapter:
        (folder / "ip_adapter").mkdir()
        save_file(_adapter(unet), folder / "ip_adapter" / "adapter.safetensors")
    return folder


def _adapter(unet) -> dict[str, torch.Tensor]:
    """The weights of an IP-Adapter for this UNet: a projection to 4 tokens, and keys and values of each cross-attention."""
    width = unet.config.cross_attention_dim
    state = {
        "image_proj.proj.weight": torch.randn(4 * width, DIM),
        "image_proj.proj.bias": torch.zeros(4 * width),
        "image_proj.norm.weight": torch.ones(width),
        "image_proj.norm.bias": torch.zeros(width),
    }
    number = 1
    for name in unet.attn_processors:
        if name.endswith("attn2.processor"):
            hidden = unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
            for kind in ("k", "v"):
                state[f"ip_adapter.{number}.to_{kind}_ip.weight"] = torch.randn(hidden, width)
            number += 2
    return state


def write_kandinsky(folder: Path) -> Path:
    from diffusers import DDIMScheduler, KandinskyV22Pipeline, VQModel

    torch.manual_seed(0)
    unet = _unet(
        out_channels=8,
        addition_embed_type="image",
        encoder_hid_dim=DIM,
        encoder_hid_dim_type="image_proj",
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        attention_head_dim=4,
        resnet_time_scale_shift="scale_shift",
        class_embed_type=None,
    )
    movq = VQModel(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=8,
        norm_type="spatial",
        num_vq_embeddings=12,
        vq_embed_dim=4,
    )
    KandinskyV22Pipeline(unet=unet, scheduler=DDIMScheduler(), movq=movq).save_pretrained(folder)
    return folder
