"""What fairseq calls the layers of wav2vec 2.0, XLS-R and HuBERT, and what transformers calls the same layers.

Source: `MAPPING` and `load_conv_layer` in transformers' convert_wav2vec2_original_pytorch_checkpoint_to_pytorch.py, and
fairseq's models/wav2vec/wav2vec2.py. Both keep the same tensors in the same shapes: only names differ.
"""

from __future__ import annotations

import re

# A name that every such model has, as each of the two writes it: what comes before it is where the model is.
FAIRSEQ_ANCHOR = "encoder.layers.0.self_attn.k_proj.weight"
TRANSFORMERS_ANCHOR = "encoder.layers.0.attention.k_proj.weight"

_PRETRAINING_ONLY = ("quantizer.", "project_q.", "final_proj.", "target_glu.", "label_embs_concat")

# In this order, the first that fits. A convolution is a Sequential of itself, dropout and a norm, which has the number
# 2; a layer norm lies between two transpositions there and so has a number of its own, 1.
_RULES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"feature_extractor\.conv_layers\.(\d+)\.0\.", r"feature_extractor.conv_layers.\1.conv."),
        (r"feature_extractor\.conv_layers\.(\d+)\.2\.(?:1\.)?", r"feature_extractor.conv_layers.\1.layer_norm."),
        (r"post_extract_proj\.", "feature_projection.projection."),
        (r"layer_norm\.", "feature_projection.layer_norm."),
        (r"mask_emb$", "masked_spec_embed"),
        # Weight normalisation: length and direction, by their names in torch before 2.0 and since.
        (r"encoder\.pos_conv\.0\.weight_g$", "encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
        (r"encoder\.pos_conv\.0\.weight_v$", "encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
        (r"encoder\.pos_conv\.0\.", "encoder.pos_conv_embed.conv."),
        (r"encoder\.layers\.(\d+)\.self_attn\.", r"encoder.layers.\1.attention."),
        (r"encoder\.layers\.(\d+)\.self_attn_layer_norm\.", r"encoder.layers.\1.layer_norm."),
        (r"encoder\.layers\.(\d+)\.fc1\.", r"encoder.layers.\1.feed_forward.intermediate_dense."),
        (r"encoder\.layers\.(\d+)\.fc2\.", r"encoder.layers.\1.feed_forward.output_dense."),
    )
)


def transformers_name(name: str) -> str:
    """Return what transformers' Wav2Vec2Model calls a tensor of fairseq's; a name that both have stays as it is.

    >>> transformers_name("encoder.layers.3.fc1.bias")
    'encoder.layers.3.feed_forward.intermediate_dense.bias'
    >>> transformers_name("feature_extractor.conv_layers.0.2.1.weight")
    'feature_extractor.conv_layers.0.layer_norm.weight'
    """
    for pattern, replacement in _RULES:
        if pattern.match(name):
            return pattern.sub(replacement, name, count=1)
    return name


def is_for_pretraining_only(name: str) -> bool:
    """Whether a tensor of fairseq's is part of the task of pretraining, and no layer's output depends on it.

    >>> is_for_pretraining_only("quantizer.vars"), is_for_pretraining_only("encoder.layer_norm.bias")
    (True, False)
    """
    return name.startswith(_PRETRAINING_ONLY)
