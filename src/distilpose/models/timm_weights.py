"""timm networks, with ImageNet weights of timm's hub or of a file, and early errors for weights that cannot be loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError, safe_open

from distilpose.errors import DistilPoseError, first_line
from distilpose.models.remote import unreachable_hub

WITHOUT = "start without them by pretrained=False (model.pretrained=false on the command line)"
# arguments of `timm.create_model` that concern its features, not the network
_OF_FEATURES = ("out_indices", "feature_cls", "feature_cfg", "feature_location", "output_stride")
_MISMATCH = re.compile(r"size mismatch for ([\w.]+)")


def create_features(name: str, pretrained: bool | str | Path, /, **options: Any) -> Any:
    """`timm.create_model(name, features_only=True, ...)`, which fails early if its weights cannot be loaded.

    Args:
        name: timm's name of the network, with or without the tag of its weights.
        pretrained: whether to load ImageNet weights, from timm's cache or by download; or a `.safetensors` file with the
            network's weights in timm's names.
        **options: passed on to timm.

    Raises:
        DistilPoseError: the name is that of a repository; timm cannot build the network; its weights are neither cached nor
            reachable; the file is missing, has another format, or holds another network.
    """
    if ":" in name:  # timm would open it, but `load_model` opens no other files
        raise DistilPoseError(
            f"model.backbone={name} names a repository or a folder, which saved models cannot be built from: give timm's name "
            "of the network, such as resnet18, and its weights by model.pretrained=FILE."
        )
    file = None if isinstance(pretrained, bool) else Path(pretrained)
    if file is not None:
        _check_file(file, name, options)
        # some networks have their own loader for files of other formats
        options["pretrained_cfg_overlay"] = {"file": str(file), "custom_load": False}
    elif pretrained and not (options.get("pretrained_cfg_overlay") or {}).get("file"):
        options["pretrained_cfg_overlay"] = _cached_weights(name)
    try:
        return _create(name, bool(pretrained), options)
    except Exception as error:  # timm passes on what its network or the download raises
        if not pretrained:
            given = f" with {options}" if options else ""
            raise DistilPoseError(
                f"timm cannot build backbone {name!r}{given} ({first_line(error)}): give a name of timm.list_models(), "
                "such as resnet18, and options that this network takes."
            ) from error
        if file is not None:
            tensors = _MISMATCH.findall(str(error))
            reason = f"{', '.join(tensors[:3])} have another shape" if tensors else first_line(error)
            raise _other_network(file, name, reason) from error
        raise DistilPoseError(
            f"The ImageNet weights of {name} could not be loaded ({first_line(error)}): try again, or {WITHOUT}."
        ) from error


def _create(name: str, pretrained: bool, options: Mapping[str, Any]) -> Any:
    network = timm.create_model(name, features_only=True, pretrained=pretrained, **options)
    is_plain_transformer = getattr(network, "norm", None) is False and len(_strides(network)) == 1
    if not is_plain_transformer or "out_indices" not in options:
        return network
    # timm's features lack the norm behind the last block, which the weights were trained with
    whole = timm.create_model(name, pretrained=pretrained, num_classes=0, **_without_features(options))
    features = type(network)(whole, out_indices=list(options["out_indices"]), norm=True)
    features.pretrained_cfg = network.pretrained_cfg
    return features


def _strides(network: Any) -> set[int]:
    return {feature["reduction"] for feature in network.feature_info.info}


def _without_features(options: Mapping[str, Any]) -> dict[str, Any]:
    return {option: value for option, value in options.items() if option not in _OF_FEATURES}


def _check_file(path: Path, name: str, options: Mapping[str, Any]) -> None:
    """Raise unless a file holds the tensors of a network. timm itself loads what fits and is silent about the rest."""
    if path.suffix != ".safetensors" or not path.is_file():
        reason = "is not a .safetensors file" if path.suffix != ".safetensors" else "does not exist"
        raise DistilPoseError(
            f"model.pretrained={path} {reason}: give true, false, or a .safetensors file in timm's names; other files are not "
            "read, but the state_dict of a network of timm is saved as such by safetensors.torch.save_file(state_dict, FILE)."
        )
    try:
        with safe_open(path, framework="pt") as file:
            found = set(file.keys())
    except (SafetensorError, OSError) as error:
        raise DistilPoseError(
            f"model.pretrained={path} cannot be read ({first_line(error)}): copy or download it again."
        ) from error
    plain = {k: v for k, v in _without_features(options).items() if k not in ("img_size", "pretrained_cfg_overlay")}
    expected = timm.create_model(name, num_classes=0, **plain).state_dict()
    missing = [tensor for tensor in expected if tensor not in found and not tensor.endswith("num_batches_tracked")]
    # the classifier, and what only some trainings add, such as a mask token, are parts that the network does not have
    parts = {tensor.partition(".")[0] for tensor in expected}
    more = sorted(tensor for tensor in found if tensor not in expected and tensor.partition(".")[0] in parts)
    if missing or more:
        tensors, lack = (missing, "lacks") if missing else (more, "has besides")
        raise _other_network(path, name, f"it {lack} {', '.join(tensors[:3])}{', …' if len(tensors) > 3 else ''}")


def _other_network(path: Path, name: str, reason: str) -> DistilPoseError:
    return DistilPoseError(
        f"model.pretrained={path} does not hold the weights of {name} in timm's names ({reason}): give a file of this network, "
        "or the model.backbone that the file is of."
    )


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
