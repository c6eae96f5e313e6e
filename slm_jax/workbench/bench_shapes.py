"""Shapes of the cases of `bench`: fields of a `config.json` that differ from what the family has by default."""

from typing import Any

NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
"""Both sides would draw different masks."""
GPT2_SMALL: dict[str, Any] = {**NO_DROPOUT}
LLAMA_160M: dict[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 2048,
}
MUSICGEN_12: dict[str, Any] = {
    "vocab_size": 2048,
    "num_codebooks": 4,
    "hidden_size": 768,
    "ffn_dim": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "pad_token_id": 2048,
    "bos_token_id": 2048,
}
OPT_350M: dict[str, Any] = {
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "vocab_size": 504,
    "max_position_embeddings": 2048,
    "hidden_size": 1024,
    "ffn_dim": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "word_embed_proj_dim": 512,
    "do_layer_norm_before": False,
}
"""TWIST-350M: 500 units and what goes with them."""
OPT_1_3B: dict[str, Any] = OPT_350M | {
    "hidden_size": 2048,
    "ffn_dim": 8192,
    "num_attention_heads": 32,
    "word_embed_proj_dim": 2048,
    "do_layer_norm_before": True,
}
HIFIGAN_V1: dict[str, Any] = {
    "resblock": "1",
    "upsample_rates": [8, 8, 2, 2],
    "upsample_kernel_sizes": [16, 16, 4, 4],
    "upsample_initial_channel": 512,
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    "num_mels": 80,
    "n_fft": 1024,
    "hop_size": 256,
    "win_size": 1024,
    "sampling_rate": 22050,
}
WHISPER_BASE: dict[str, Any] = {
    "d_model": 512,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 8,
    "encoder_ffn_dim": 2048,
    "decoder_ffn_dim": 2048,
}
ENCODEC_6KBPS: dict[str, Any] = {"target_bandwidths": [6.0]}
"""24 kHz, 8 books."""
DAC_16KHZ: dict[str, Any] = {"downsampling_ratios": [2, 4, 5, 8], "n_codebooks": 12, "sampling_rate": 16_000}
MIMI: dict[str, Any] = {
    "model_type": "mimi",
    "num_filters": 64,
    "hidden_size": 512,
    "codebook_dim": 256,
    "vector_quantization_hidden_dimension": 256,
    "codebook_size": 2048,
    "num_quantizers": 8,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 2048,
    "upsampling_ratios": [8, 6, 5, 4],
    "sliding_window": 250,
    "upsample_groups": 512,
}
"""24 kHz, with the 8 books that Moshi uses."""
AUDIOLM_COARSE: dict[str, Any] = {
    "model_type": "t5_stack",
    "is_decoder": True,
    "vocab_size": 5_128,
    "d_model": 1024,
    "d_kv": 64,
    "d_ff": 4096,
    "num_heads": 16,
    "num_layers": 12,
    "tie_word_embeddings": False,
}
"""The coarse stage as `sequence_models.presets.audiolm_stage` has it: 1,024 units, four books of 1,024, signs."""
MOSHI_12: dict[str, Any] = {
    "vocab_size": 32_000,
    "audio_vocab_size": 2048,
    "num_codebooks": 8,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "ffn_dim": 6144,
    "depth_decoder_config": {
        "hidden_size": 512,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "ffn_dim": 2816,
    },
}
"""Moshi's form at a fiftieth of its size: what is timed are 17 streams, a step over time and eight over books."""
QUICK: dict[str, dict[str, Any]] = {
    "moshi": {"vocab_size": 31, "audio_vocab_size": 17, "num_codebooks": 3, "hidden_size": 36, "ffn_dim": 52}
    | {"num_hidden_layers": 2, "num_attention_heads": 3}
    | {"depth_decoder_config": {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "ffn_dim": 40}},
    "gpt2": {"n_layer": 2, "n_embd": 48, "n_head": 3, "vocab_size": 101, "n_positions": 64},
    "llama": {"num_hidden_layers": 2, "hidden_size": 48, "intermediate_size": 80, "num_attention_heads": 3}
    | {"vocab_size": 101, "max_position_embeddings": 64},
    "opt": {"num_hidden_layers": 2, "hidden_size": 48, "ffn_dim": 80, "num_attention_heads": 3}
    | {"word_embed_proj_dim": 48, "vocab_size": 101, "max_position_embeddings": 64},
    "hubert": {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 80}
    | {"conv_dim": [16] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4},
    "hifigan": {"upsample_initial_channel": 32},
    "whisper": {"d_model": 48, "encoder_layers": 2, "decoder_layers": 2, "vocab_size": 101, "num_mel_bins": 20}
    | {"encoder_attention_heads": 3, "decoder_attention_heads": 3, "encoder_ffn_dim": 80, "decoder_ffn_dim": 80}
    | {"max_source_positions": 50, "max_target_positions": 64}
    | dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"), 0),
    "encodec": {"num_filters": 4, "hidden_size": 12, "codebook_size": 32, "upsampling_ratios": [4, 2]}
    | {"target_bandwidths": [30.0], "num_lstm_layers": 1},
    "dac": {"encoder_hidden_size": 4, "decoder_hidden_size": 16, "downsampling_ratios": [2, 4], "codebook_size": 32}
    | {"codebook_dim": 4, "n_codebooks": 3},
    "musicgen_decoder": {"vocab_size": 41, "num_codebooks": 3, "hidden_size": 36, "ffn_dim": 50}
    | {"num_hidden_layers": 2, "num_attention_heads": 3, "pad_token_id": 41, "bos_token_id": 41},
    "t5_stack": {"vocab_size": 101, "d_model": 48, "d_kv": 16, "d_ff": 80, "num_heads": 3, "num_layers": 2},
    "mimi": {"num_filters": 4, "hidden_size": 16, "upsample_groups": 16, "codebook_dim": 6, "codebook_size": 32}
    | {"vector_quantization_hidden_dimension": 6, "num_quantizers": 4, "num_hidden_layers": 2, "head_dim": 8}
    | {"num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 24, "upsampling_ratios": [3, 2]}
    | {"sliding_window": 64},
}
"""Fields of the small shapes."""
