"""timm networks with or without ImageNet weights, and an early error if the weights cannot be downloaded."""

from __future__ import annotations

from typing import Any

import timm
from huggingface_hub import try_to_load_from_cache

from distilpose.errors import DistilPoseError, first_line
from distilpose.models.remote import unreachable_hub

WITHOUT = "start without them by pretrained=False (model.pretrained=false on the command line)"


def create_features(name: str, pretrained: bool, /, **options: Any) -> Any:
    """`timm.create_model(name, features_only=True, ...)`, which fails early if its weights cannot be downloaded.

    Args:
        name: timm's name of the network, with or without the tag of its weights.
        pretrained: whether to load ImageNet weights, from timm's cache or by download.
        **options: passed on to timm.

    Raises:
        DistilPoseError: timm cannot build the network, or its weights are neither cached nor reachable.
    """
    if pretrained and not (options.get("pretrained_cfg_overlay") or {}).get("file"):
        options["pretrained_cfg_overlay"] = _cached_weights(name)
    try:
        return timm.create_model(name, features_only=True, pretrained=pretrained, **options)
    except Exception as error:  # timm passes on what its network or the download raises
        if not pretrained:
            given = f" with {options}" if options else ""
            raise DistilPoseError(
                f"timm cannot build backbone {name!r}{given} ({first_line(error)}): give a name of timm.list_models(), "
                "such as resnet18, and options that this network takes."
            ) from error
        raise DistilPoseError(
            f"The ImageNet weights of {name} could not be loaded ({first_line(error)}): try again, or {WITHOUT}."
        ) from error


def _cached_weights(name: str) -> dict[str, str] | None:
    """An overlay for timm that reads the weights from the local cache; None if they have to be downloaded."""
    settings = timm.get_pretrained_cfg(name)
    if settings is None or settings.hf_hub_id is None:
        return None
    for filename in (settings.hf_hub_filename, "model.safetensors", "pytorch_model.bin"):
        cached = try_to_load_from_cache(settings.hf_hub_id, filename) if filename else None
        if isinstance(cached, str):
            return {"file": cached}
    if reason := unreachable_hub():
        raise DistilPoseError(
            f"The ImageNet weights of {name} are not in timm's cache and {reason}: connect to the network, or {WITHOUT}."
        )
    return None
