"""Zoos of other people: names of models, and how each is made with random weights.

kimm and keras-hub are no dependencies: `pip install kimm keras-hub`. keras-hub's models are made small, of
every block that they have; those of kimm are the smallest of each family.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

SIDES = (64, 71, 75, 96, 128, 224, 331)  # the first that a model takes
OPEN = 224


def applications(default: bool = False) -> dict[str, Callable[[], Any]]:
    """All models of keras.applications; `default`: at their own sizes, else at the smallest of `SIDES`."""
    import keras

    makers = {name: make for name, make in vars(keras.applications).items() if inspect.isfunction(make)}
    return {name: lambda make=makers[name]: _application(make, default) for name in sorted(makers)}


def _application(make: Callable, default: bool) -> Any:
    """Its logits, as softmax hides differences."""
    logits = "classifier_activation" in inspect.signature(make).parameters
    more = {"classifier_activation": None} if logits else {}
    if default:
        model = make(weights=None, **more)
        sizes = model.input_shape[1:3]  # MobileNetV3 leaves them open; its weights were trained at 224
        return model if None not in sizes else make(weights=None, input_shape=(OPEN, OPEN, 3), **more)
    return _smallest(lambda side: make(weights=None, input_shape=(side, side, 3), **more))


def _smallest(make: Callable[[int], Any]) -> Any:
    refused = None
    for side in SIDES:
        try:
            return make(side)
        except ValueError as error:
            refused = error
    raise refused or ValueError


KIMM = (
    "ConvMixer736D32", "ConvNeXtAtto", "DenseNet121", "EfficientNetB0", "EfficientNetLiteB0",
    "EfficientNetV2B0", "GhostNetW050", "GhostNetV2W100", "GhostNetV3W050", "HGNetTiny", "HGNetV2B0",
    "InceptionNeXtTiny",
    "InceptionV3", "LCNet035", "MobileNetV2W050", "MobileNetV3W050Small", "MobileOneS0", "MobileViTXXS",
    "MobileViTV2W050", "RegNetX002", "RegNetY002", "RepVGGA0", "ResNet18", "TinyNetE", "VGG11",
    "VisionTransformerTiny16", "Xception",
)  # fmt: skip


def kimm() -> dict[str, Callable[[], Any]]:
    """The smallest model of each family of kimm."""
    models = importlib.import_module("kimm").models

    def made(name: str) -> Any:
        make = getattr(models, name)
        options = {"weights": None, "include_preprocessing": False, "classifier_activation": None}
        return _smallest(lambda side: make(input_shape=[side, side, 3], **options))

    return {name: lambda name=name: made(name) for name in KIMM}


SIDE = 64
IMAGE = {"image_shape": (SIDE, SIDE, 3)}
VIT = {"patch_size": 16, "num_layers": 2, "num_heads": 4, "hidden_dim": 64}
MOBILENET = {
    "stackwise_expansion": [[40, 56], [64, 144]],
    "stackwise_num_blocks": [2, 2],
    "stackwise_num_filters": [[16, 16], [24, 24]],
    "stackwise_kernel_size": [[3, 3], [5, 5]],
    "stackwise_num_strides": [[2, 1], [2, 1]],
    "stackwise_se_ratio": [[None, None], [0.25, 0.25]],
    "stackwise_activation": [["relu", "relu"], ["hard_swish", "hard_swish"]],
    "stackwise_padding": [[1, 1], [2, 2]],
    "output_num_filters": 96,
    "depthwise_filters": 8,
    "depthwise_stride": 2,
    "depthwise_residual": False,
    "last_layer_filter": 96,
    "squeeze_and_excite": 0.5,
}
MOBILENET_V5 = {
    "stackwise_block_types": [["er"], ["uir", "uir"], ["mqa"]],
    "stackwise_num_blocks": [1, 2, 1],
    "stackwise_num_filters": [[24], [48, 48], [48]],
    "stackwise_strides": [[2], [2, 1], [1]],
    "stackwise_act_layers": [["relu"], ["relu", "relu"], ["relu"]],
    "stackwise_exp_ratios": [[4.0], [6.0, 6.0], [0.0]],
    "stackwise_se_ratios": [[0.0], [0.0, 0.0], [0.0]],
    "stackwise_dw_kernel_sizes": [[0], [5, 5], [3]],
    "stackwise_dw_start_kernel_sizes": [[0], [0, 0], [0]],
    "stackwise_dw_end_kernel_sizes": [[0], [0, 0], [0]],
    "stackwise_exp_kernel_sizes": [[3], [0, 0], [0]],
    "stackwise_pw_kernel_sizes": [[1], [0, 0], [0]],
    "stackwise_num_heads": [[0], [0, 0], [4]],
    "stackwise_key_dims": [[0], [0, 0], [16]],
    "stackwise_value_dims": [[0], [0, 0], [16]],
    "stackwise_kv_strides": [[0], [0, 0], [1]],
    "stackwise_use_cpe": [[False], [False, False], [False]],
    "use_msfa": False,
}
HGNET = {
    "depths": [1, 1, 2, 1],
    "embedding_size": 16,
    "hidden_sizes": [32, 48, 64, 96],
    "stem_channels": [3, 16, 16],
    "hidden_act": "relu",
    "use_learnable_affine_block": True,
    "stackwise_stage_filters": [
        (16, 16, 32, 1, 3, 3), (32, 16, 48, 1, 3, 3), (48, 24, 64, 2, 3, 5), (64, 32, 96, 1, 3, 5),
    ],
    "apply_downsample": [False, True, True, True],
    "use_lightweight_conv_block": [False, False, True, True],
}  # fmt: skip
RESNET = {
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [7],
    "stackwise_num_filters": [64, 64, 96, 128],
    "stackwise_num_blocks": [1, 1, 1, 1],
    "stackwise_num_strides": [1, 2, 2, 2],
}
BASNET = RESNET | {"input_conv_filters": [64], "block_type": "basic_block"}  # it reads such
EFFICIENTNET = {
    "stackwise_kernel_sizes": [3, 3, 5],
    "stackwise_num_repeats": [1, 2, 2],
    "stackwise_input_filters": [16, 16, 24],
    "stackwise_output_filters": [16, 24, 40],
    "stackwise_expansion_ratios": [1, 4, 6],
    "stackwise_strides": [1, 2, 2],
    "stackwise_squeeze_and_excite_ratios": [0.0, 0.25, 0.25],
    "stackwise_width_coefficients": [1.0] * 3,
    "stackwise_depth_coefficients": [1.0] * 3,
}
MIT = {
    "layerwise_depths": [2, 2],
    "num_layers": 2,
    "layerwise_num_heads": [1, 2],
    "layerwise_sr_ratios": [4, 2],
    "max_drop_path_rate": 0.1,
    "layerwise_patch_sizes": [7, 3],
    "layerwise_strides": [4, 2],
    "hidden_dims": [16, 32],
}
SWIN = {"embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4, "drop_path": 0.0}
VIT_DET = {
    "hidden_size": 64, "num_layers": 2, "intermediate_dim": 128, "num_heads": 4,
    "global_attention_layer_indices": [1], "patch_size": 16, "num_output_channels": 32, "window_size": 2,
}  # fmt: skip
DINO = {"patch_size": 16, "num_layers": 2, "hidden_dim": 64, "num_heads": 4, "intermediate_dim": 128}
D_FINE = {
    "decoder_in_channels": [32, 32], "encoder_hidden_dim": 32, "num_denoising": 0, "num_labels": 5,
    "hidden_dim": 32, "learn_initial_query": False, "num_queries": 10, "anchor_image_size": (SIDE, SIDE),
    "feat_strides": [16, 32], "num_feature_levels": 2, "encoder_in_channels": [64, 96],
    "encode_proj_layers": [1], "num_attention_heads": 4, "encoder_ffn_dim": 64, "num_encoder_layers": 1,
    "hidden_expansion": 0.5, "depth_multiplier": 0.5, "eval_idx": -1, "num_decoder_layers": 2,
    "decoder_attention_heads": 4, "decoder_ffn_dim": 64, "decoder_n_points": [3, 3], "lqe_hidden_dim": 16,
    "num_lqe_layers": 2, "out_features": ["stage3", "stage4"], "seed": 0,
}  # fmt: skip


def _backbones(models: Any) -> dict[str, Callable[[], Any]]:
    """Every vision backbone of keras-hub."""

    def backbone(name: str, **options: Any) -> Any:
        return getattr(models, f"{name}Backbone")(**options, **IMAGE)

    def resnet(kind: str = "basic_block", **more: Any) -> Any:
        return backbone("ResNet", **RESNET, block_type=kind, **more)

    def hgnet(**more: Any) -> Any:
        return backbone("HGNetV2", **HGNET, **more)

    return {
        "CSPNet": lambda: backbone("CSPNet", stem_filters=16, stem_kernel_size=3, stem_strides=1,
                                   stackwise_depth=[1, 2], stackwise_strides=[2, 2],
                                   stackwise_num_filters=[32, 64], block_type="dark_block", stage_type="csp",
                                   expand_ratio=[2.0, 1.0], bottle_ratio=[0.5, 1.0], block_ratio=[1.0, 0.5],
                                   down_growth=True),
        "DeiT": lambda: backbone("DeiT", **VIT, intermediate_dim=128),
        "DenseNet": lambda: backbone("DenseNet", stackwise_num_repeats=[2, 2, 2], growth_rate=8),
        "DINOV2": lambda: backbone("DINOV2", **DINO, position_embedding_shape=(SIDE, SIDE, 3)),
        "DINOV3": lambda: backbone("DINOV3", **DINO),
        "EfficientNet": lambda: _hub_efficientnet(models, "v1"),
        "EfficientNet fused": lambda: _hub_efficientnet(models, "fused"),
        "HGNetV2": hgnet,
        "MiT": lambda: backbone("MiT", **MIT),
        "MobileNet": lambda: backbone("MobileNet", **MOBILENET),
        "MobileNetV5": lambda: backbone("MobileNetV5", **MOBILENET_V5),
        "ResNet": resnet,
        "ResNet bottleneck v2": lambda: resnet("bottleneck_block", use_pre_activation=True),
        "SwinTransformer": lambda: backbone("SwinTransformer", **SWIN),
        "VGG": lambda: backbone("VGG", stackwise_num_repeats=[1, 1, 2], stackwise_num_filters=[16, 24, 32]),
        "ViT": lambda: backbone("ViT", **VIT, mlp_dim=128),
        "ViTDet": lambda: models.ViTDetBackbone(**VIT_DET, **IMAGE),
        "Xception": lambda: backbone("Xception", stackwise_conv_filters=[[16, 24], [32, 32]],
                                     stackwise_pooling=[True, False]),
        "CLIP vision": lambda: _hub("clip.clip_vision_encoder", "CLIPVisionEncoder")(
            **VIT, intermediate_dim=128, **IMAGE),
        "SigLIP vision": lambda: _hub("siglip.siglip_vision_encoder", "SigLIPVisionEncoder")(
            **VIT, intermediate_dim=128, **IMAGE),
        "RetinaNet": lambda: backbone("RetinaNet", image_encoder=resnet(), min_level=3, max_level=5,
                                      use_p5=False),
        "DeepLabV3": lambda: backbone("DeepLabV3", image_encoder=resnet(), spatial_pyramid_pooling_key="P4",
                                      upsampling_size=4, dilation_rates=[2, 4],
                                      low_level_feature_key="P2", projection_filters=8),
        "SegFormer": lambda: models.SegFormerBackbone(image_encoder=backbone("MiT", **MIT),
                                                      projection_filters=16),
        "DepthAnything": lambda: models.DepthAnythingBackbone(
            image_encoder=backbone("DINOV2", **DINO | {"num_layers": 4, "patch_size": 8},
                                   position_embedding_shape=(SIDE, SIDE)),
            reassemble_factors=[4, 2, 1, 0.5], neck_hidden_dims=[16, 16, 32, 32], fusion_hidden_dim=32,
            head_hidden_dim=16, head_in_index=-1, feature_keys=["stage1", "stage2", "stage3", "stage4"]),
        "BASNet": lambda: backbone("BASNet", image_encoder=models.ResNetBackbone(**BASNET), num_classes=1,
                                   projection_filters=64),
        "DFine": lambda: backbone("DFine", backbone=hgnet(out_features=["stage3", "stage4"]), **D_FINE),
    }  # fmt: skip


def keras_hub() -> dict[str, Callable[[], Any]]:
    """Every vision backbone of keras-hub, and every task: classifier, segmenter, detector."""
    models = importlib.import_module("keras_hub").models
    backbones = _backbones(models)
    classes = {"num_classes": 5, "preprocessor": None}

    def task(name: str, of: str, **options: Any) -> Callable[[], Any]:
        return lambda: getattr(models, name)(backbone=backbones[of](), **{**classes, **options})

    tasks = {
        f"{name} classifier": task(f"{name}ImageClassifier", name)
        for name in ("CSPNet", "DeiT", "DenseNet", "EfficientNet", "MiT", "MobileNet", "MobileNetV5",
                     "ResNet", "SwinTransformer", "VGG", "ViT", "Xception")
    }  # fmt: skip
    return {
        **backbones,
        **tasks,
        "HGNetV2 classifier": task("HGNetV2ImageClassifier", "HGNetV2", head_filters=64),
        "DeepLabV3 segmenter": task("DeepLabV3ImageSegmenter", "DeepLabV3"),
        "SegFormer segmenter": task("SegFormerImageSegmenter", "SegFormer"),
        "RetinaNet detector": lambda: models.RetinaNetObjectDetector(
            backbone=backbones["RetinaNet"](), num_classes=5, bounding_box_format="yxyx",
            use_prediction_head_norm=True,
        ),
    }  # fmt: skip


def _hub(module: str, name: str) -> Any:
    """A part of keras-hub that it does not export by itself."""
    return getattr(importlib.import_module(f"keras_hub.src.models.{module}"), name)


def _hub_efficientnet(models: Any, kind: str) -> Any:
    return models.EfficientNetBackbone(
        **EFFICIENTNET, stackwise_block_types=[kind] * 3, input_shape=(SIDE, SIDE, 3), activation="swish"
    )


ZOOS = {"applications": applications, "kimm": kimm, "keras_hub": keras_hub}
"""Name → function that gives, by name, what makes each model."""
