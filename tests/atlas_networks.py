"""Networks no one here wrote: tiny random-weight configurations of the architectures in `transformers`.

Reads   the table at the end
Writes  modules of one tensor to one tensor, and examples of their input

Images have 3 channels. Sequences are as long as there are positions, and there is one type of token, so that every row
of every table of a network acts on its output.
"""

from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn

WORDS = 11
"""In the vocabulary of every language model."""
TOKENS = 5
"""In every text."""
CLASSES = 3
"""Of every classifier."""


@dataclass(frozen=True, kw_only=True)
class AtlasNetwork:
    """An architecture of `transformers`, in a configuration as small as its parts allow."""

    family: str
    model: str
    """Its class in `transformers`."""
    config: dict[str, Any]
    """What its configuration is given."""
    pixels: int = 0
    """Along an edge of the images it reads; 0 if it reads text."""
    output: str = "last_hidden_state"
    """Which of its results is returned."""
    removed: tuple[str, ...] = ()
    """Modules and parameters taken out of it, because they do not act on that result."""
    numbered: bool = False
    """Whether it is told the positions of its tokens, which it would else count among those that are no padding."""

    def build(self) -> nn.Module:
        """The network with random weights, in eval mode."""
        torch.manual_seed(0)
        model_class = getattr(transformers, self.model)
        model = model_class(model_class.config_class(**self.config, attn_implementation="eager"))
        for name in self.removed:
            path, _, last = name.rpartition(".")
            setattr(model.get_submodule(path), last, None)
        return OneResult(model, self.output, self.numbered).eval()

    def example(self) -> Tensor:
        """An input of it."""
        if self.pixels:
            return torch.zeros(1, 3, self.pixels, self.pixels)
        return torch.zeros(1, TOKENS, dtype=torch.int64)


class OneResult(nn.Module):
    """A model of `transformers` that returns one tensor instead of a record."""

    def __init__(self, model: nn.Module, output: str, numbered: bool) -> None:
        super().__init__()
        self.model = model
        self.output = output
        self.numbered = numbered

    def forward(self, x: Tensor) -> Tensor:
        more = {"position_ids": torch.arange(x.shape[1])[None]} if self.numbered else {}
        return getattr(self.model(x, **more), self.output)


def _image(
    family: str, model: str, pixels: int, output: str = "logits", removed: tuple[str, ...] = (), **config: Any
) -> AtlasNetwork:
    config = {"num_labels": CLASSES, **config}
    return AtlasNetwork(family=family, model=model, config=config, pixels=pixels, output=output, removed=removed)


def _text(
    family: str,
    model: str,
    output: str = "last_hidden_state",
    removed: tuple[str, ...] = (),
    numbered: bool = False,
    **config: Any,
) -> AtlasNetwork:
    config = {"vocab_size": WORDS, **config}
    return AtlasNetwork(family=family, model=model, config=config, output=output, removed=removed, numbered=numbered)


ENCODER: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
VIT: dict[str, Any] = {**ENCODER, "image_size": 16, "patch_size": 8}
DINO: dict[str, Any] = {**VIT, "mlp_ratio": 2}
BERT: dict[str, Any] = {**ENCODER, "max_position_embeddings": TOKENS, "type_vocab_size": 1, "pad_token_id": 0}
DECODER: dict[str, Any] = {**ENCODER, "max_position_embeddings": TOKENS, "use_cache": False}
GPT: dict[str, Any] = {"n_positions": TOKENS, "n_embd": 8, "n_layer": 1, "n_head": 2, "use_cache": False}

# Laid out by hand: with one keyword to a line, what tells two networks apart is hard to see.
# fmt: off
CONVOLUTIONAL: tuple[AtlasNetwork, ...] = (
    _image("ResNet", "ResNetForImageClassification", 32, layer_type="basic",
           embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1]),
    _image("ResNet, bottleneck", "ResNetForImageClassification", 32, layer_type="bottleneck",
           embedding_size=4, hidden_sizes=[8, 12], depths=[1, 1]),
    _image("RegNet", "RegNetForImageClassification", 32, layer_type="y",
           embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], groups_width=2),
    _image("ConvNeXt", "ConvNextForImageClassification", 32, num_stages=2, hidden_sizes=[4, 6], depths=[1, 1]),
    _image("ConvNeXtV2", "ConvNextV2ForImageClassification", 32, num_stages=2, hidden_sizes=[4, 6], depths=[1, 1]),
    _image("MobileNetV1", "MobileNetV1ForImageClassification", 64, image_size=64, depth_multiplier=0.1, min_depth=4),
    _image("MobileNetV2", "MobileNetV2ForImageClassification", 64, image_size=64, depth_multiplier=0.1, min_depth=4,
           depth_divisible_by=4),
    _image("EfficientNet", "EfficientNetForImageClassification", 32, image_size=32, hidden_dim=16,
           width_coefficient=0.0125, depth_coefficient=0.1, depth_divisor=4, kernel_sizes=[3, 3], strides=[1, 2],
           in_channels=[32, 40], out_channels=[40, 60], num_block_repeats=[1, 1], expand_ratios=[1, 4]),
    _image("BiT", "BitForImageClassification", 32,
           embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_groups=2),
    _image("DINOv3 ConvNeXt", "DINOv3ConvNextModel", 128, "last_hidden_state", image_size=128,
           hidden_sizes=[4, 4, 6, 6], depths=[1, 1, 1, 1]),
    _image("TextNet", "TextNetForImageClassification", 32, stem_out_channels=4, hidden_sizes=[4, 4, 4, 6, 6],
           conv_layer_kernel_sizes=[[[3, 3]], [[3, 1]], [[1, 3]], [[3, 3]]], conv_layer_strides=[[1], [1], [1], [1]]),
    _image("HGNetV2", "HGNetV2ForImageClassification", 32, embedding_size=4, hidden_sizes=[8, 8], depths=[1, 1],
           stem_channels=[3, 4, 4], stage_in_channels=[4, 8], stage_mid_channels=[4, 4], stage_out_channels=[8, 8],
           stage_num_blocks=[1, 1], stage_downsample=[False, True], stage_light_block=[False, True],
           stage_kernel_size=[3, 5], stage_numb_of_layers=[2, 2]),
    _image("PoolFormer", "PoolFormerForImageClassification", 64, hidden_sizes=[4, 4, 6, 6], depths=[1, 1, 1, 1]),
    _image("FocalNet", "FocalNetForImageClassification", 32, image_size=32,
           embed_dim=4, depths=[1, 1], hidden_sizes=[4, 8], focal_levels=[2, 2], focal_windows=[3, 3]),
)

VISION_TRANSFORMERS: tuple[AtlasNetwork, ...] = (
    _image("ViT", "ViTForImageClassification", 16, **VIT),
    _image("DeiT", "DeiTForImageClassification", 16, **VIT),
    _image("BEiT", "BeitForImageClassification", 16, **VIT, use_relative_position_bias=True),
    _image("Data2Vec Vision", "Data2VecVisionForImageClassification", 16, **VIT, use_relative_position_bias=True),
    _image("ViT-MSN", "ViTMSNForImageClassification", 16, **VIT),
    _image("DINOv2", "Dinov2ForImageClassification", 16, **DINO, use_mask_token=False),
    _image("DINOv2 with registers", "Dinov2WithRegistersForImageClassification", 16, **DINO, num_register_tokens=2,
           removed=("dinov2_with_registers.embeddings.mask_token",)),
    _image("DINOv3 ViT", "DINOv3ViTModel", 16, "last_hidden_state", **VIT, num_register_tokens=1,
           removed=("embeddings.mask_token",)),
    _image("SigLIP vision", "SiglipVisionModel", 16, "last_hidden_state", **VIT, vision_use_head=False),
    _image("CLIP vision", "CLIPVisionModel", 16, "pooler_output", **VIT),
    _image("I-JEPA", "IJepaForImageClassification", 16, **VIT),
    _image("Swin", "SwinForImageClassification", 16, image_size=16, patch_size=2,
           embed_dim=4, depths=[2, 1], num_heads=[2, 2], window_size=4),
    _image("Swin V2", "Swinv2ForImageClassification", 16, image_size=16, patch_size=2,
           embed_dim=4, depths=[2, 1], num_heads=[2, 2], window_size=4),
    _image("PVT", "PvtForImageClassification", 32, image_size=32, num_encoder_blocks=2, depths=[1, 1],
           hidden_sizes=[4, 8], num_attention_heads=[1, 2], mlp_ratios=[2, 2],
           sequence_reduction_ratios=[2, 1], patch_sizes=[4, 2], strides=[4, 2]),
    _image("PVTv2", "PvtV2ForImageClassification", 32, image_size=32, num_encoder_blocks=2, depths=[1, 1],
           hidden_sizes=[4, 8], num_attention_heads=[1, 2], mlp_ratios=[2, 2],
           sr_ratios=[2, 1], patch_sizes=[7, 3], strides=[4, 2]),
    _image("SegFormer", "SegformerForImageClassification", 32, num_encoder_blocks=2, depths=[1, 1],
           hidden_sizes=[4, 8], num_attention_heads=[1, 2], mlp_ratios=[2, 2],
           sr_ratios=[2, 1], patch_sizes=[7, 3], strides=[4, 2]),
    _image("CvT", "CvtForImageClassification", 64,
           embed_dim=[4, 6, 8], depth=[1, 2, 3], num_heads=[1, 2, 2], mlp_ratio=[2.0, 2.0, 2.0]),
    _image("LeViT", "LevitForImageClassification", 64, image_size=64, hidden_sizes=[8, 8, 8], depths=[1, 1, 1],
           num_attention_heads=[2, 2, 2], key_dim=[4, 4, 4], mlp_ratio=[2, 2, 2], attention_ratio=[2, 2, 2]),
    _image("MobileViT", "MobileViTForImageClassification", 64, image_size=64, hidden_sizes=[8, 8, 8],
           neck_hidden_sizes=[4, 4, 6, 6, 6, 6, 8], num_attention_heads=2, output_stride=32),
    _image("MobileViTV2", "MobileViTV2ForImageClassification", 64, image_size=64, width_multiplier=0.1,
           base_attn_unit_dims=[8, 8, 8], n_attn_blocks=[1, 1, 1]),
    _image("SwiftFormer", "SwiftFormerForImageClassification", 64, image_size=64,
           depths=[1, 1, 1, 1], embed_dims=[4, 4, 8, 8], mlp_ratio=2),
    _image("Hiera", "HieraForImageClassification", 32, image_size=[32, 32], embed_dim=4, embed_dim_multiplier=2.0,
           depths=[1, 1], num_heads=[2, 2], mlp_ratio=2.0, patch_size=[7, 7], patch_stride=[4, 4], patch_padding=[3, 3],
           masked_unit_size=[4, 4], masked_unit_attention=[True, False], query_stride=[2, 2], num_query_pool=1),
    _image("Perceiver", "PerceiverForImageClassificationLearned", 8, image_size=8,
           num_latents=3, d_latents=8, d_model=8, num_blocks=1, num_self_attends_per_block=1,
           num_self_attention_heads=2, num_cross_attention_heads=1),
)

LANGUAGE_MODELS: tuple[AtlasNetwork, ...] = (
    _text("BERT", "BertModel", **BERT, removed=("pooler",)),
    _text("RoBERTa", "RobertaModel", **BERT, removed=("pooler",), numbered=True),
    _text("RoBERTa, counting its own positions", "RobertaModel",
          **{**BERT, "max_position_embeddings": TOKENS + 1}, removed=("pooler",)),
    _text("ELECTRA", "ElectraModel", **BERT, embedding_size=4),
    _text("ALBERT", "AlbertModel", **{**BERT, "num_hidden_layers": 2}, embedding_size=4, removed=("pooler",)),
    _text("DistilBERT", "DistilBertModel",
          dim=8, n_layers=1, n_heads=2, hidden_dim=12, max_position_embeddings=TOKENS, pad_token_id=0),
    _text("MobileBERT", "MobileBertModel", **BERT, embedding_size=4, intra_bottleneck_size=4, true_hidden_size=4,
          num_feedforward_networks=2, removed=("pooler",)),
    _text("DeBERTa-v2", "DebertaV2Model", **{**BERT, "type_vocab_size": 0}, relative_attention=True,
          position_buckets=4, max_relative_positions=4, pos_att_type=["p2c", "c2p"]),
    _text("SqueezeBERT", "SqueezeBertForSequenceClassification", "logits", **BERT, embedding_size=8,
          q_groups=2, k_groups=2, v_groups=2, post_attention_groups=1, intermediate_groups=2, output_groups=2),
    _text("FNet", "FNetModel", **{**BERT, "pad_token_id": 3}),
    _text("ModernBERT", "ModernBertModel", **DECODER, pad_token_id=0, global_attn_every_n_layers=1),
    _text("GPT-2", "GPT2LMHeadModel", "logits", **GPT, n_inner=12),
    _text("GPT-1", "OpenAIGPTModel", **GPT),
    _text("GPT-Neo", "GPTNeoModel", hidden_size=8, num_layers=2, num_heads=2, intermediate_size=12,
          attention_types=[[["global", "local"], 1]], window_size=2, max_position_embeddings=TOKENS, use_cache=False),
    _text("GPT-NeoX", "GPTNeoXModel", **DECODER),
    _text("GPT-J", "GPTJModel", **GPT, n_inner=12, rotary_dim=2),
    _text("BLOOM", "BloomModel", hidden_size=8, n_layer=1, n_head=2, use_cache=False),
    _text("LLaMA", "LlamaModel", **DECODER, num_key_value_heads=1),
    _text("Mistral", "MistralModel", **DECODER, num_key_value_heads=1),
    _text("Qwen2", "Qwen2Model", **DECODER, num_key_value_heads=1),
    _text("Gemma", "GemmaModel", **DECODER, num_key_value_heads=1, head_dim=4, pad_token_id=0),
    _text("Mixtral", "MixtralModel", **DECODER, num_key_value_heads=1, num_local_experts=2, num_experts_per_tok=1),
    _text("OPT", "OPTModel", hidden_size=8, num_hidden_layers=1, num_attention_heads=2, ffn_dim=12,
          max_position_embeddings=TOKENS, word_embed_proj_dim=8, use_cache=False, pad_token_id=0),
    _text("T5 encoder", "T5EncoderModel", d_model=8, d_kv=4, d_ff=12, num_layers=1, num_heads=2,
          relative_attention_num_buckets=4, relative_attention_max_distance=4),
    _text("Mamba", "MambaModel", hidden_size=8, state_size=2, num_hidden_layers=1, conv_kernel=3, time_step_rank=2,
          use_cache=False),
    _text("RWKV", "RwkvModel", hidden_size=8, num_hidden_layers=2, attention_hidden_size=8, intermediate_size=12,
          context_length=TOKENS, use_cache=False),
)
# fmt: on

NETWORKS = (*CONVOLUTIONAL, *VISION_TRANSFORMERS, *LANGUAGE_MODELS)
