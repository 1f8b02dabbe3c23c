"""Networks no one here wrote: tiny random-weight configurations of the architectures in `transformers`.

Reads   the table below
Writes  modules of one tensor to one tensor, and examples of their input

Images have 3 channels. Sequences are as long as there are positions, and there is one type of token, so that every row
of every table of a network acts on its output.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import Tensor, nn

WORDS = 11
"""In the vocabulary of every language model."""
TOKENS = 5
"""In every text."""


@dataclass(frozen=True, kw_only=True)
class AtlasNetwork:
    """An architecture of `transformers`, in a configuration as small as its parts allow."""

    family: str
    model: str
    """Its class in `transformers`."""
    config: dict[str, Any]
    """What its configuration is given."""
    size: int = 0
    """Edge of the images it reads, in pixels; 0 if it reads text."""
    output: str = "last_hidden_state"
    """Which of its results is returned."""
    options: dict[str, Any] = field(default_factory=dict)
    """What its class is given beside the configuration."""
    removed: tuple[str, ...] = ()
    """Parameters taken out of it, because they serve training alone and never act on what it computes."""
    numbered: bool = False
    """Whether it is told the positions of its tokens, which it would else count among those that are no padding."""

    def build(self) -> nn.Module:
        """The network with random weights, in eval mode."""
        torch.manual_seed(0)
        model_class = getattr(transformers, self.model)
        config = model_class.config_class(**self.config)
        config._attn_implementation = "eager"
        model = model_class(config, **self.options)
        for name in self.removed:
            path, _, last = name.rpartition(".")
            setattr(model.get_submodule(path), last, None)
        return OneResult(model, self.output, self.numbered).eval()

    def example(self) -> Tensor:
        """An input of it."""
        if self.size:
            return torch.zeros(1, 3, self.size, self.size)
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


def _vision(
    family: str, model: str, size: int, output: str = "logits", removed: tuple[str, ...] = (), **config: Any
) -> AtlasNetwork:
    if output == "logits":
        config["num_labels"] = 3
    return AtlasNetwork(family=family, model=model, config=config, size=size, output=output, removed=removed)


def _text(
    family: str,
    model: str,
    output: str = "last_hidden_state",
    numbered: bool = False,
    pooler: bool = True,
    **config: Any,
) -> AtlasNetwork:
    config = {"vocab_size": WORDS, **config}
    options = {} if pooler else {"add_pooling_layer": False}
    return AtlasNetwork(family=family, model=model, config=config, output=output, numbered=numbered, options=options)


VIT: dict[str, Any] = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "image_size": 16,
}
PATCHES: dict[str, Any] = {"patch_size": 8}
BERT: dict[str, Any] = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": TOKENS,
    "type_vocab_size": 1,
    "pad_token_id": 0,
}
DECODER: dict[str, Any] = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": TOKENS,
    "use_cache": False,
}

NETWORKS: tuple[AtlasNetwork, ...] = (
    _vision(
        "ResNet",
        "ResNetForImageClassification",
        32,
        embedding_size=4,
        hidden_sizes=[4, 6],
        depths=[1, 1],
        layer_type="basic",
    ),
    _vision(
        "ResNet, bottleneck",
        "ResNetForImageClassification",
        32,
        embedding_size=4,
        hidden_sizes=[8, 12],
        depths=[1, 1],
        layer_type="bottleneck",
    ),
    _vision(
        "RegNet",
        "RegNetForImageClassification",
        32,
        embedding_size=4,
        hidden_sizes=[4, 8],
        depths=[1, 1],
        groups_width=2,
        layer_type="y",
    ),
    _vision("ConvNeXt", "ConvNextForImageClassification", 32, num_stages=2, hidden_sizes=[4, 6], depths=[1, 1]),
    _vision("ConvNeXtV2", "ConvNextV2ForImageClassification", 32, num_stages=2, hidden_sizes=[4, 6], depths=[1, 1]),
    _vision("MobileNetV1", "MobileNetV1ForImageClassification", 64, image_size=64, depth_multiplier=0.1, min_depth=4),
    _vision(
        "MobileNetV2",
        "MobileNetV2ForImageClassification",
        64,
        image_size=64,
        depth_multiplier=0.1,
        depth_divisible_by=4,
        min_depth=4,
    ),
    _vision(
        "EfficientNet",
        "EfficientNetForImageClassification",
        32,
        image_size=32,
        width_coefficient=0.0125,
        depth_coefficient=0.1,
        depth_divisor=4,
        hidden_dim=16,
        kernel_sizes=[3, 3],
        in_channels=[32, 40],
        out_channels=[40, 60],
        strides=[1, 2],
        num_block_repeats=[1, 1],
        expand_ratios=[1, 4],
    ),
    _vision(
        "BiT", "BitForImageClassification", 32, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_groups=2
    ),
    _vision(
        "DINOv3 ConvNeXt",
        "DINOv3ConvNextModel",
        128,
        "last_hidden_state",
        hidden_sizes=[4, 4, 6, 6],
        depths=[1, 1, 1, 1],
        image_size=128,
    ),
    _vision(
        "TextNet",
        "TextNetForImageClassification",
        32,
        hidden_sizes=[4, 4, 4, 6, 6],
        conv_layer_kernel_sizes=[[[3, 3]], [[3, 1]], [[1, 3]], [[3, 3]]],
        conv_layer_strides=[[1], [1], [1], [1]],
        stem_out_channels=4,
    ),
    _vision(
        "HGNetV2",
        "HGNetV2ForImageClassification",
        32,
        embedding_size=4,
        hidden_sizes=[8, 8],
        depths=[1, 1],
        stem_channels=[3, 4, 4],
        stage_in_channels=[4, 8],
        stage_mid_channels=[4, 4],
        stage_out_channels=[8, 8],
        stage_num_blocks=[1, 1],
        stage_downsample=[False, True],
        stage_light_block=[False, True],
        stage_kernel_size=[3, 5],
        stage_numb_of_layers=[2, 2],
    ),
    _vision("PoolFormer", "PoolFormerForImageClassification", 64, hidden_sizes=[4, 4, 6, 6], depths=[1, 1, 1, 1]),
    _vision(
        "FocalNet",
        "FocalNetForImageClassification",
        32,
        image_size=32,
        embed_dim=4,
        depths=[1, 1],
        hidden_sizes=[4, 8],
        focal_levels=[2, 2],
        focal_windows=[3, 3],
    ),
    _vision("ViT", "ViTForImageClassification", 16, **VIT, **PATCHES),
    _vision("DeiT", "DeiTForImageClassification", 16, **VIT, **PATCHES),
    _vision("BEiT", "BeitForImageClassification", 16, **VIT, **PATCHES, use_relative_position_bias=True),
    _vision(
        "Data2Vec Vision", "Data2VecVisionForImageClassification", 16, **VIT, **PATCHES, use_relative_position_bias=True
    ),
    _vision("ViT-MSN", "ViTMSNForImageClassification", 16, **VIT, **PATCHES),
    _vision("DINOv2", "Dinov2ForImageClassification", 16, **{**VIT, "mlp_ratio": 2}, **PATCHES, use_mask_token=False),
    _vision(
        "DINOv2 with registers",
        "Dinov2WithRegistersForImageClassification",
        16,
        removed=("dinov2_with_registers.embeddings.mask_token",),
        **{**VIT, "mlp_ratio": 2},
        **PATCHES,
        num_register_tokens=2,
    ),
    _vision(
        "DINOv3 ViT",
        "DINOv3ViTModel",
        16,
        "last_hidden_state",
        removed=("embeddings.mask_token",),
        **VIT,
        **PATCHES,
        num_register_tokens=1,
    ),
    _vision("SigLIP vision", "SiglipVisionModel", 16, "last_hidden_state", **VIT, **PATCHES, vision_use_head=False),
    _vision("CLIP vision", "CLIPVisionModel", 16, "pooler_output", **VIT, **PATCHES),
    _vision("I-JEPA", "IJepaForImageClassification", 16, **VIT, **PATCHES),
    _vision(
        "Swin",
        "SwinForImageClassification",
        16,
        image_size=16,
        patch_size=2,
        embed_dim=4,
        depths=[2, 1],
        num_heads=[2, 2],
        window_size=4,
    ),
    _vision(
        "Swin V2",
        "Swinv2ForImageClassification",
        16,
        image_size=16,
        patch_size=2,
        embed_dim=4,
        depths=[2, 1],
        num_heads=[2, 2],
        window_size=4,
    ),
    _vision(
        "PVT",
        "PvtForImageClassification",
        32,
        image_size=32,
        num_encoder_blocks=2,
        depths=[1, 1],
        sequence_reduction_ratios=[2, 1],
        hidden_sizes=[4, 8],
        patch_sizes=[4, 2],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
    ),
    _vision(
        "PVTv2",
        "PvtV2ForImageClassification",
        32,
        image_size=32,
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[4, 8],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
    ),
    _vision(
        "SegFormer",
        "SegformerForImageClassification",
        32,
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[4, 8],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
    ),
    _vision(
        "CvT",
        "CvtForImageClassification",
        64,
        embed_dim=[4, 6, 8],
        depth=[1, 2, 3],
        num_heads=[1, 2, 2],
        mlp_ratio=[2.0, 2.0, 2.0],
    ),
    _vision(
        "LeViT",
        "LevitForImageClassification",
        64,
        image_size=64,
        hidden_sizes=[8, 8, 8],
        num_attention_heads=[2, 2, 2],
        depths=[1, 1, 1],
        key_dim=[4, 4, 4],
        mlp_ratio=[2, 2, 2],
        attention_ratio=[2, 2, 2],
    ),
    _vision(
        "MobileViT",
        "MobileViTForImageClassification",
        64,
        image_size=64,
        hidden_sizes=[8, 8, 8],
        neck_hidden_sizes=[4, 4, 6, 6, 6, 6, 8],
        num_attention_heads=2,
        output_stride=32,
    ),
    _vision(
        "MobileViTV2",
        "MobileViTV2ForImageClassification",
        64,
        image_size=64,
        width_multiplier=0.1,
        base_attn_unit_dims=[8, 8, 8],
        n_attn_blocks=[1, 1, 1],
    ),
    _vision(
        "SwiftFormer",
        "SwiftFormerForImageClassification",
        64,
        image_size=64,
        depths=[1, 1, 1, 1],
        embed_dims=[4, 4, 8, 8],
        mlp_ratio=2,
    ),
    _vision(
        "Hiera",
        "HieraForImageClassification",
        32,
        image_size=[32, 32],
        embed_dim=4,
        depths=[1, 1],
        num_heads=[2, 2],
        patch_size=[7, 7],
        patch_stride=[4, 4],
        patch_padding=[3, 3],
        mlp_ratio=2.0,
        masked_unit_size=[4, 4],
        masked_unit_attention=[True, False],
        query_stride=[2, 2],
        num_query_pool=1,
        embed_dim_multiplier=2.0,
    ),
    _vision(
        "Perceiver",
        "PerceiverForImageClassificationLearned",
        8,
        image_size=8,
        num_latents=3,
        d_latents=8,
        d_model=8,
        num_blocks=1,
        num_self_attends_per_block=1,
        num_self_attention_heads=2,
        num_cross_attention_heads=1,
    ),
    _text("BERT", "BertModel", **BERT, pooler=False),
    _text("RoBERTa", "RobertaModel", **BERT, pooler=False, numbered=True),
    _text(
        "RoBERTa, counting its own positions",
        "RobertaModel",
        **{**BERT, "max_position_embeddings": TOKENS + 1},
        pooler=False,
    ),
    _text("ELECTRA", "ElectraModel", **BERT, embedding_size=4),
    _text("ALBERT", "AlbertModel", **{**BERT, "num_hidden_layers": 2}, embedding_size=4, pooler=False),
    _text(
        "DistilBERT",
        "DistilBertModel",
        dim=8,
        n_layers=1,
        n_heads=2,
        hidden_dim=12,
        max_position_embeddings=TOKENS,
        pad_token_id=0,
    ),
    _text(
        "MobileBERT",
        "MobileBertModel",
        **BERT,
        embedding_size=4,
        intra_bottleneck_size=4,
        true_hidden_size=4,
        num_feedforward_networks=2,
        pooler=False,
    ),
    _text(
        "DeBERTa-v2",
        "DebertaV2Model",
        **{**BERT, "type_vocab_size": 0},
        relative_attention=True,
        position_buckets=4,
        max_relative_positions=4,
        pos_att_type=["p2c", "c2p"],
    ),
    _text(
        "SqueezeBERT",
        "SqueezeBertForSequenceClassification",
        "logits",
        **BERT,
        embedding_size=8,
        q_groups=2,
        k_groups=2,
        v_groups=2,
        post_attention_groups=1,
        intermediate_groups=2,
        output_groups=2,
    ),
    _text("FNet", "FNetModel", **{**BERT, "pad_token_id": 3}),
    _text("ModernBERT", "ModernBertModel", **DECODER, pad_token_id=0, global_attn_every_n_layers=1),
    _text(
        "GPT-2",
        "GPT2LMHeadModel",
        "logits",
        n_positions=TOKENS,
        n_embd=8,
        n_layer=1,
        n_head=2,
        n_inner=12,
        use_cache=False,
    ),
    _text("GPT-1", "OpenAIGPTModel", n_positions=TOKENS, n_embd=8, n_layer=1, n_head=2),
    _text(
        "GPT-Neo",
        "GPTNeoModel",
        hidden_size=8,
        num_layers=2,
        num_heads=2,
        attention_types=[[["global", "local"], 1]],
        window_size=2,
        intermediate_size=12,
        max_position_embeddings=TOKENS,
        use_cache=False,
    ),
    _text("GPT-NeoX", "GPTNeoXModel", **DECODER),
    _text(
        "GPT-J",
        "GPTJModel",
        n_positions=TOKENS,
        n_embd=8,
        n_layer=1,
        n_head=2,
        n_inner=12,
        rotary_dim=2,
        use_cache=False,
    ),
    _text("BLOOM", "BloomModel", hidden_size=8, n_layer=1, n_head=2, use_cache=False),
    _text("LLaMA", "LlamaModel", **DECODER, num_key_value_heads=1),
    _text("Mistral", "MistralModel", **DECODER, num_key_value_heads=1),
    _text("Qwen2", "Qwen2Model", **DECODER, num_key_value_heads=1),
    _text("Gemma", "GemmaModel", **DECODER, num_key_value_heads=1, head_dim=4, pad_token_id=0),
    _text("Mixtral", "MixtralModel", **DECODER, num_key_value_heads=1, num_local_experts=2, num_experts_per_tok=1),
    _text(
        "OPT",
        "OPTModel",
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        ffn_dim=12,
        max_position_embeddings=TOKENS,
        word_embed_proj_dim=8,
        use_cache=False,
        pad_token_id=0,
    ),
    _text(
        "T5 encoder",
        "T5EncoderModel",
        d_model=8,
        d_kv=4,
        d_ff=12,
        num_layers=1,
        num_heads=2,
        relative_attention_num_buckets=4,
        relative_attention_max_distance=4,
    ),
    _text(
        "Mamba",
        "MambaModel",
        hidden_size=8,
        state_size=2,
        num_hidden_layers=1,
        conv_kernel=3,
        time_step_rank=2,
        use_cache=False,
    ),
    _text(
        "RWKV",
        "RwkvModel",
        hidden_size=8,
        num_hidden_layers=2,
        attention_hidden_size=8,
        intermediate_size=12,
        context_length=TOKENS,
        use_cache=False,
    ),
)
"""Convolutional networks, then vision transformers and their relatives, then language models."""
