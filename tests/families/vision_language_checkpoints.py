"""The tiny checkpoints of vision-language models, by the names of their rows."""

import transformers as t

from tests.families.vision_language_makers import (
    LANGUAGE,
    LLAMA,
    SIGLIP,
    SQUARE,
    TOWER,
    VisionLanguage,
    blip_2,
    gemma,
    idefics,
    llava,
    qwen,
    template,
)

__all__ = ["CHECKPOINTS", "LFM2_VL", "WIDE_GEMMA"]

#: Another size, whose tower has the same numbers.
WIDE_GEMMA = gemma(hidden_size=48)
CHECKPOINTS: dict[str, VisionLanguage] = {
    "smolvlm": idefics("SmolVLM"),
    "idefics3": idefics("Idefics3"),
    "gemma3": gemma(),
    "qwen2-vl": qwen("Qwen2VL", {"embed_dim": 32}),
    "qwen2-5-vl": qwen(
        "Qwen2_5_VL",
        {"out_hidden_size": 32, "intermediate_size": 64, "window_size": 32, "fullatt_block_indexes": [1]},
    ),
    "qwen3-vl": qwen(
        "Qwen3VL",
        {
            "depth": 3,
            "out_hidden_size": 32,
            "intermediate_size": 64,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0, 1],
        },
        head_dim=8,
    ),
    "llava": llava(
        "Llava",
        {**TOWER, "model_type": "clip_vision_model"},
        LLAMA,
        ("CLIPImageProcessorPil", {"size": {"shortest_edge": 32}, "crop_size": SQUARE}),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    ),
    "llava-siglip": llava(
        "Llava",
        {**TOWER, "model_type": "siglip_vision_model"},
        LLAMA,
        ("SiglipImageProcessorPil", {"size": SQUARE}),
        {"vision_feature_select_strategy": "full", "vision_feature_layer": -1},
        patch_size=8,
        vision_feature_select_strategy="full",
    ),
    "llava-next": llava(
        "LlavaNext",
        {**TOWER, "model_type": "clip_vision_model"},
        LLAMA,
        (
            "LlavaNextImageProcessorPil",
            {
                "size": {"shortest_edge": 32},
                "crop_size": SQUARE,
                "image_grid_pinpoints": [[32, 64], [64, 32], [64, 64]],
            },
        ),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    ),
    "llava-onevision": llava(
        "LlavaOnevision",
        {**TOWER, "model_type": "siglip_vision_model"},
        {**LANGUAGE, "model_type": "qwen2"},
        ("LlavaOnevisionImageProcessorPil", {"size": SQUARE, "image_grid_pinpoints": [[32, 64], [64, 32], [64, 64]]}),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
    ),
    "internvl": VisionLanguage(
        network=lambda ids: (
            t.InternVLForConditionalGeneration,
            t.InternVLConfig(
                image_token_id=ids["<IMG_CONTEXT>"],
                downsample_ratio=0.5,
                vision_config={**TOWER, "image_size": [32, 32], "patch_size": [8, 8]},
                text_config={**LANGUAGE, "model_type": "qwen2"},
            ),
        ),
        processor=("InternVLProcessor", {"image_seq_length": 4}),
        images=("GotOcr2ImageProcessorPil", {"size": SQUARE, "crop_to_patches": True, "max_patches": 4}),
        special={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        template=template("<IMG_CONTEXT>"),
    ),
    "mistral3": VisionLanguage(
        network=lambda ids: (
            t.Mistral3ForConditionalGeneration,
            t.Mistral3Config(
                image_token_index=ids["[IMG]"],
                spatial_merge_size=2,
                vision_config={**TOWER, "model_type": "pixtral", "head_dim": 8, "image_size": 64},
                text_config={**LANGUAGE, "model_type": "mistral", "head_dim": 8},
            ),
        ),
        processor=("PixtralProcessor", {"patch_size": 8, "spatial_merge_size": 2}),
        images=("PixtralImageProcessorPil", {"size": {"longest_edge": 64}, "patch_size": {"height": 16, "width": 16}}),
        special={"image": "[IMG]", "break": "[IMG_BREAK]", "end": "[IMG_END]"},
        template=template("[IMG]", after=""),
    ),
    "aya-vision": VisionLanguage(
        network=lambda ids: (
            t.AyaVisionForConditionalGeneration,
            t.AyaVisionConfig(
                image_token_index=ids["<|IMG_PATCH|>"],
                downsample_factor=2,
                vision_config={**TOWER, "model_type": "siglip_vision_model"},
                text_config={**LANGUAGE, "model_type": "cohere2", "sliding_window": 16, "head_dim": 8},
            ),
        ),
        processor=("AyaVisionProcessor", {"patch_size": 8, "img_size": 32, "downsample_factor": 2}),
        images=("GotOcr2ImageProcessorPil", {"size": SQUARE, "crop_to_patches": True, "max_patches": 2}),
        special={
            "image": "<image>",
            "start": "<|START_OF_IMG|>",
            "end": "<|END_OF_IMG|>",
            "patch": "<|IMG_PATCH|>",
            "line": "<|IMG_LINE_BREAK|>",
            "tile": "TILE",
            "tile_global": "TILE_GLOBAL",
        },
        template=template("<image>"),
    ),
    "paligemma": VisionLanguage(
        network=lambda ids: (
            t.PaliGemmaForConditionalGeneration,
            t.PaliGemmaConfig(
                image_token_index=ids["<image>"],
                projection_dim=32,
                vision_config=SIGLIP,
                text_config={**LANGUAGE, "vocab_size": 1400, "model_type": "gemma2", "head_dim": 8},
            ),
        ),
        processor=("PaliGemmaProcessor", {}),
        images=("SiglipImageProcessorPil", {"size": SQUARE, "image_seq_length": 16}),
        special={"image_token": "<image>"},
    ),
    "blip-2": blip_2("Blip2", "blip_2"),
    "instruct-blip": blip_2("InstructBlip", "instructblip"),
    "florence-2": VisionLanguage(
        network=lambda ids: (
            t.Florence2ForConditionalGeneration,
            t.Florence2Config(
                image_token_id=ids["<image>"],
                vision_config={
                    "depths": [1, 1],
                    "patch_size": [7, 3],
                    "patch_stride": [4, 2],
                    "patch_padding": [3, 1],
                    "patch_prenorm": [False, True],
                    "embed_dim": [16, 32],
                    "num_heads": [2, 4],
                    "num_groups": [2, 4],
                    "window_size": 4,
                    "projection_dim": 32,
                },
                text_config={
                    "model_type": "bart",
                    "d_model": 32,
                    "encoder_layers": 2,
                    "decoder_layers": 2,
                    "encoder_attention_heads": 4,
                    "decoder_attention_heads": 4,
                    "encoder_ffn_dim": 64,
                    "decoder_ffn_dim": 64,
                    "vocab_size": 160,
                    "max_position_embeddings": 256,
                    "pad_token_id": 0,
                    "bos_token_id": 1,
                    "eos_token_id": 2,
                    "decoder_start_token_id": 2,
                    "forced_eos_token_id": 2,
                },
            ),
        ),
        processor=("Florence2Processor", {"num_additional_image_tokens": 1}),
        images=("CLIPImageProcessorPil", {"size": SQUARE, "do_center_crop": False, "image_seq_length": 17}),
        special={"image_token": "<image>"},
        generation={"decoder_start_token_id": 2, "forced_eos_token_id": 2},
        deviation=0.8,
    ),
    "got-ocr2": VisionLanguage(
        network=lambda ids: (
            t.GotOcr2ForConditionalGeneration,
            t.GotOcr2Config(
                image_token_id=ids["<imgpad>"],
                vision_config={
                    "hidden_size": 32,
                    "output_channels": 8,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 4,
                    "image_size": 1024,
                    "patch_size": 16,
                    "mlp_dim": 64,
                    "window_size": 8,
                    "global_attn_indexes": [],
                },
                text_config={**LANGUAGE, "model_type": "qwen2"},
            ),
        ),
        processor=("GotOcr2Processor", {}),
        images=("GotOcr2ImageProcessorPil", {"size": {"height": 1024, "width": 1024}}),
        special={
            "start": "<|im_start|>",
            "end": "<|im_end|>",
            "img": "<img>",
            "img_end": "</img>",
            "pad": "<imgpad>",
        },
    ),
}
#: Its image processor is one that transformers has for torchvision alone: with_torchvision.py runs the whole.
LFM2_VL = VisionLanguage(
    network=lambda ids: (
        t.Lfm2VlForConditionalGeneration,
        t.Lfm2VlConfig(
            image_token_id=ids["<image>"],
            projector_hidden_size=48,
            vision_config={
                "model_type": "siglip2_vision_model",
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "patch_size": 8,
                "num_patches": 64,
            },
            text_config={
                **LANGUAGE,
                "model_type": "lfm2",
                "num_hidden_layers": 3,
                "layer_types": ["conv", "full_attention", "conv"],
                "block_multiple_of": 16,
            },
        ),
    ),
    processor=("Lfm2VlProcessor", {}),
    images=(
        "Lfm2VlImageProcessor",
        {
            "encoder_patch_size": 8,
            "tile_size": 64,
            "min_image_tokens": 4,
            "max_image_tokens": 16,
            "max_tiles": 4,
        },
    ),
    special={
        "image_token": "<image>",
        "image_start_token": "<|image_start|>",
        "image_end_token": "<|image_end|>",
        "image_thumbnail_token": "<|img_thumbnail|>",
        **{f"tile_{row}_{col}": f"<|img_row_{row}_col_{col}|>" for row in (1, 2) for col in (1, 2)},
    },
    template=template("<image>", after=""),
)
