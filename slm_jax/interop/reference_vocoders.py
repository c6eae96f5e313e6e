"""HiFi-GAN on mels and on units as references: the classes of `transformers`, and the published layout written out."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from slm_jax.core.errors import UserError
from slm_jax.interop.readers import open_weights
from slm_jax.interop.reference import (
    Arrays,
    Reference,
    config_json,
    draw_weights,
    in_dtype,
    recorded,
    settle,
    state_arrays,
)
from slm_jax.interop.reference_hifigan import features, original_generator, unit_generator

VOCODERS = (
    ("hifigan", "original-v1"),
    ("hifigan", "original-v3"),
    ("speecht5_hifigan", "tiny"),
    ("unit_hifigan", "durations"),
    ("unit_hifigan", "f0"),
    ("code_hifigan", "tiny"),
)
"""(family, variant)."""

MELS, GAIN = 11, 1.2
SHAPE: dict[str, Any] = {"upsample_rates": [5, 2], "upsample_kernel_sizes": [11, 4], "upsample_initial_channel": 12}
BLOCKS: dict[str, Any] = {"resblock_kernel_sizes": [3, 5], "resblock_dilation_sizes": [[1, 3, 5], [1, 2, 4]]}
LIGHT_BLOCKS = {"resblock_kernel_sizes": [3, 5], "resblock_dilation_sizes": [[1, 2], [2, 6]]}
MEL_RECIPE = {"num_mels": MELS, "n_fft": 64, "hop_size": 10, "win_size": 40, "sampling_rate": 16_000}
UNITS = {"num_embeddings": 23, "embedding_dim": 8, "multispkr": "from_input_file", "num_speakers": 5}
DURATIONS = {
    "model_in_dim": 16,
    "dur_predictor_params": {"encoder_embed_dim": 8, "var_pred_hidden_dim": 10, "var_pred_kernel_size": 3},
}
F0: dict[str, Any] = {"model_in_dim": 17, "f0": True, "log_f0_mean": 5.1, "log_f0_std": 0.4}
SEAMLESS: dict[str, Any] = {
    "unit_hifi_gan_vocab_size": 23,
    "unit_embed_dim": 8,
    "lang_embed_dim": 4,
    "spkr_embed_dim": 6,
    "vocoder_num_langs": 3,
    "vocoder_num_spkrs": 5,
    "t2u_pad_token_id": 0,
    "variance_predictor_kernel_size": 3,
}


def tiny_vocoder(family: str, variant: str, seed: int = 0, dtype: str = "float32") -> Reference:
    """A small model of random weights."""
    if family != "hifigan":
        return {"unit_hifigan": _units, "code_hifigan": _seamless, "speecht5_hifigan": _speecht5}[family](
            variant, seed, dtype
        )
    heavy = variant == "original-v1"
    hub_config = {"resblock": "1" if heavy else "2", **SHAPE, **(BLOCKS if heavy else LIGHT_BLOCKS), **MEL_RECIPE}
    model = _drawn(original_generator(hub_config), seed)
    return _mel_reference("hifigan", variant, model, hub_config, dtype, True)


def vocoder_from_folder(folder: Path, family: str, hub_config: dict[str, Any], dtype: str) -> Reference:
    """The generator of a folder in the layout of the original repository or of `transformers`."""
    import torch

    if family not in ("hifigan", "speecht5_hifigan"):
        raise UserError(f"{folder} is {family}: `parity` knows it with drawn weights only")
    if family == "speecht5_hifigan":
        import transformers

        kind = getattr(transformers, hub_config["architectures"][0])
        model = kind.from_pretrained(folder, local_files_only=True).eval()
        return _mel_reference(family, folder.name, model, hub_config, dtype, False)
    source = open_weights(folder)
    model = original_generator(hub_config, normed="conv_pre.weight_g" in source.shapes).eval()
    model.load_state_dict({name: torch.tensor(np.array(source.read(name))) for name in source.shapes})
    return _mel_reference(family, folder.name, model, hub_config, dtype, False)


def _drawn(model: Any, seed: int, turned: bool = False) -> Any:
    """The generator with drawn weights, every stage as loud as the one before. `turned`: it reads [B, T, D]."""
    import torch

    draw_weights(model, seed, GAIN)
    noise = 0.7 * torch.randn(1, model.conv_pre.in_channels, 40, generator=torch.Generator().manual_seed(seed))
    noise = noise.transpose(1, 2) if turned else noise
    ups = "ups" if hasattr(model, "ups") else "upsampler"
    stages = [f"{ups}.{i}" for i in range(len(SHAPE["upsample_rates"]))]
    settle(model, ["conv_pre", *stages], lambda: model(noise))
    settle(model, ["conv_post"], lambda: model(noise), std=0.6)
    return model


def _speecht5(variant: str, seed: int, dtype: str) -> Reference:
    import torch
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    model = SpeechT5HifiGan(SpeechT5HifiGanConfig(model_in_dim=MELS, normalize_before=True, **SHAPE, **BLOCKS))
    _drawn(model, seed, turned=True)
    generator = torch.Generator().manual_seed(seed + 1)
    model.mean.copy_(0.3 * torch.randn(MELS, generator=generator))
    model.scale.copy_(1 + 0.5 * torch.rand(MELS, generator=generator))
    return _mel_reference("speecht5_hifigan", variant, model, config_json(model), dtype, True)


def _mel_reference(family: str, variant: str, model: Any, hub_config: dict, dtype: str, tiny: bool) -> Reference:
    import torch

    weights = state_arrays(model)
    model = in_dtype(model, dtype)

    def run(inputs: Mapping[str, np.ndarray | None]) -> Arrays:
        mels = torch.from_numpy(inputs["features"]).to(next(model.parameters()).dtype)
        mels = mels.transpose(1, 2) if spelling == "original" else mels
        return _activations(model, "", {}, lambda: model(mels))

    spelling = "original" if family == "hifigan" else "transformers"
    return Reference(family, variant, spelling, hub_config, weights, run, tiny)


def _units(variant: str, seed: int, dtype: str) -> Reference:
    """fairseq's names: with predicted durations, or at frame rate with F0."""
    import torch

    hub_config = {"resblock": "1", **SHAPE, **BLOCKS, **UNITS, **(F0 if variant == "f0" else DURATIONS)}
    model = _drawn(unit_generator(hub_config), seed)
    if variant == "durations":
        with torch.no_grad():
            model.dur_predictor.proj.bias.add_(1.0)
    weights = state_arrays(model)
    model = in_dtype(model, dtype)

    def run(inputs: Mapping[str, np.ndarray | None]) -> Arrays:
        units, speaker = torch.from_numpy(inputs["units"]), torch.from_numpy(inputs["speaker"])
        log_f0 = torch.from_numpy(_log_f0(inputs)) if variant == "f0" else None
        places = {"log_durations": "dur_predictor"} if variant == "durations" else {}
        return _activations(model, "", places, lambda: model(features(model, units, speaker, log_f0)))

    return Reference("unit_hifigan", variant, "fairseq", hub_config, weights, run, True)


def _log_f0(inputs: Mapping[str, np.ndarray | None]) -> np.ndarray:
    """As training normalised it, 0 where unvoiced."""
    f0_hz, voiced = np.asarray(inputs["f0_hz"], np.float64), np.asarray(inputs["voiced"])
    return np.where(voiced, (np.log(f0_hz) - F0["log_f0_mean"]) / F0["log_f0_std"], 0.0)


def _seamless(variant: str, seed: int, dtype: str) -> Reference:
    """Its durations are spread out, since drawn weights would give every unit the least one."""
    import torch
    from transformers import SeamlessM4TConfig
    from transformers.models.seamless_m4t.modeling_seamless_m4t import SeamlessM4TCodeHifiGan

    model = SeamlessM4TCodeHifiGan(SeamlessM4TConfig(**SEAMLESS, **SHAPE, **BLOCKS))
    draw_weights(model, seed, GAIN)
    _drawn(model.hifi_gan, seed)
    with torch.no_grad():
        model.dur_predictor.proj.bias.add_(1.0)
    weights, hub_config = state_arrays(model), config_json(model)
    model = in_dtype(model, dtype)

    def run(inputs: Mapping[str, np.ndarray | None]) -> Arrays:
        ids = (torch.from_numpy(inputs[name]) for name in ("units", "speaker", "language"))
        units, speaker, language = ids
        places = {"log_durations": "dur_predictor"}
        return _activations(model, "hifi_gan", places, lambda: model(units, speaker[:, None], language[:, None]))

    return Reference("code_hifigan", variant, "transformers", hub_config, weights, run, True)


def _activations(model: Any, generator: str, places: dict[str, str], run: Callable[[], Any]) -> Arrays:
    """`places`, then what leaves the first convolution and each stage of the generator, then the wave; time second."""
    at = f"{generator}." if generator else ""
    net = model.get_submodule(generator)
    stages = len(net.ups if hasattr(net, "ups") else net.upsampler)
    blocks = {f"block_{k}": f"{at}resblocks.{k}" for k in range(len(net.resblocks))}
    found = recorded(model, {**places, "conv_pre": f"{at}conv_pre", **blocks, "wave": generator}, run)
    kept = {name: found[name][..., None] for name in places}
    kept["conv_pre"] = found["conv_pre"].transpose(0, 2, 1)
    for stage, own in enumerate(np.array_split(list(blocks), stages)):  # a stage gives the mean of its blocks
        kept[f"stage_{stage + 1}"] = np.mean([found[name] for name in own], axis=0).transpose(0, 2, 1)
    return kept | {"wave": found["wave"].reshape(len(found["wave"]), -1, 1)}
