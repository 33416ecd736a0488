"""ViTPose and ViTPose++ (Xu et al., NeurIPS 2022 and TPAMI 2023) of `transformers` as teachers."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le, Unit
from torch import Tensor

from distilpose.errors import DistilPoseError, first_line
from distilpose.files import sha256_of
from distilpose.losses import TokenShape
from distilpose.models.remote import local_folder, unreachable_hub
from distilpose.outputs import IMAGENET_MEAN, IMAGENET_STD
from distilpose.teachers.convention import Convention
from distilpose.teachers.frozen import DTYPES, Precision
from distilpose.teachers.network import Network, NetworkOutput, NetworkTeacher
from distilpose.teachers.readout import read_heatmaps, skeleton_of
from distilpose.teachers.udp_decoding import decode_udp

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model-*.safetensors")


class VitPoseNetwork(Network):
    """A `VitPoseForPoseEstimation`. Its tokens are those of the last layer, after its norm; its joints' cells are by UDP.

    Args:
        model: the network; it is put into evaluation mode.
        name: its name.
        about: where its weights come from, see `Network`.
        joints: names of its joints; None: those of its configuration.
        expert: the expert of ViTPose++; 0 for ViTPose.
        precision: of the forward pass; None: bf16 on a CUDA GPU that has it, else 32.
        compile: run it through torch.compile.
        mean: mean of RGB in [0, 1] that its input is normalised by.
        std: standard deviation of RGB for the same.

    Raises:
        DistilPoseError: it has no such expert, or its joints are not known.
    """

    def __init__(
        self,
        model: Any,
        name: str,
        about: dict[str, Any],
        joints: Sequence[str] | None = None,
        expert: int = 0,
        precision: Precision | None = None,
        compile: bool = False,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ):
        self.model = model.eval().requires_grad_(False)
        self.name, self.mean, self.std = name, tuple(mean), tuple(std)
        config, backbone = model.config, model.config.backbone_config
        if expert >= backbone.num_experts:
            last = backbone.num_experts - 1
            kind = f"of {last + 1} experts: pass a number from 0 to {last}" if last else "without experts: leave it out"
            raise DistilPoseError(f"teacher.expert={expert}, but {name} is a ViTPose {kind}.")
        self.expert = expert if backbone.num_experts > 1 else None
        (height, width), patch = _pair(backbone.image_size), _pair(backbone.patch_size)
        rows, columns = height // patch[0], width // patch[1]
        upscaled = (
            config.scale_factor if config.use_simple_decoder else 4
        )  # of the patches; the classic head doubles it twice
        self.convention = Convention.udp((height, width), (upscaled * rows, upscaled * columns))
        self.token_shape = TokenShape(rows, columns, backbone.hidden_size)
        self.skeleton = skeleton_of(config.num_labels, joints or _named(config), f"Teacher {name}")
        self.about = {
            **about, "expert": self.expert, "precision": precision, "mean": list(self.mean), "std": list(self.std),
            "joints": list(self.skeleton.names),
        }  # fmt: skip
        self._dtype = DTYPES[str(precision)]
        self._forward: Callable[[Tensor], tuple[Tensor, Tensor]] = torch.compile(self._run) if compile else self._run

    @torch.no_grad()
    def __call__(self, crops: Tensor) -> NetworkOutput:
        """See `Network`."""
        device, dtype = crops.device, self._dtype
        if dtype is None and device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
            dtype = torch.bfloat16
        mixed = dtype not in (None, torch.float32)
        with torch.autocast(device.type, dtype=dtype if mixed else None, enabled=mixed):
            maps, tokens = self._forward(crops.to(next(self.model.parameters()).dtype))
        maps = maps.float()
        return read_heatmaps(maps)._replace(visual_tokens=tokens.float(), cells=decode_udp(maps))

    def _run(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Heat maps and tokens, as in the forward pass of `VitPoseForPoseEstimation`, which does not return the tokens."""
        index = None if self.expert is None else torch.full((len(crops),), self.expert, device=crops.device)
        tokens = self.model.backbone(crops, dataset_index=index).feature_maps[-1]
        assert self.token_shape is not None
        return self.model.head(tokens.mT.unflatten(2, self.token_shape.grid).contiguous()), tokens

    def move(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move the model."""
        self.model._apply(fn)


def load_vitpose(
    name: str | Path,
    revision: str | None = None,
    joints: Sequence[str] | None = None,
    expert: Annotated[int, Ge(0)] = 0,
    precision: Precision | None = None,
    compile: bool = False,
    pad: bool = False,
    sigma: Annotated[float, Ge(0), Unit("cells")] = 1.0,
    least_trust: Annotated[float, Ge(0), Le(1)] = 0.0,
    check: bool = True,
    check_persons: Annotated[int, Ge(1), Unit("persons")] = 300,
) -> NetworkTeacher:
    """A ViTPose or ViTPose++ of the Hugging Face hub, or in a folder written by `transformers`.

    Args:
        name: owner/name or owner/name@revision of the hub, such as usyd-community/vitpose-plus-huge, or a local folder.
        revision: branch, tag or commit on the hub; null: the one in `name`, or else the main branch.
        joints: names of its joints in its order; null: those of its config.json, or COCO's for 17 without names.
        expert: expert of ViTPose++, a data set's number: 0 is COCO, which its published heads are for.
        precision: precision of the forward pass; null: bf16 on a CUDA GPU that has it, else 32.
        compile: run it through torch.compile.
        pad: show crops of another aspect with black bars.
        sigma: least width of a peak in cells of the student's map.
        least_trust: joints with less trust are learnt from their labels alone.
        check: reject a teacher whose maps are out of range or whose accuracy is near chance.
        check_persons: number of validation persons used for the check.

    Raises:
        DistilPoseError: transformers is not installed, there is no such network, or its weights are no safetensors.
    """
    try:
        from transformers import VitPoseForPoseEstimation
    except ImportError as error:
        raise DistilPoseError(
            f"A ViTPose needs transformers 4.49 or newer, which cannot be imported ({first_line(error)}): pip install "
            "'distilpose[vitpose]'."
        ) from error
    name = str(name)
    if revision is not None and (Path(name).is_dir() or "@" in name):
        names = "is a folder, which has no" if Path(name).is_dir() else "names another"
        raise DistilPoseError(f"teacher.name={name} {names} revision: leave teacher.revision={revision} out.")
    folder = local_folder(name, (CONFIG, PREPROCESSOR), revision)
    _check_config(folder, name)
    if Path(name).is_dir():
        about = {"sha256": _digest(folder, name)}
    else:
        folder = local_folder(name, WEIGHTS, folder.name)  # of the same commit
        about = {"repository": name.removeprefix("hf://").split("@")[0], "revision": folder.name}
        _weights(folder, name)
    try:
        loaded: Any = VitPoseForPoseEstimation.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except Exception as error:  # the type depends on the file
        raise DistilPoseError(
            f"The ViTPose {name} cannot be loaded ({first_line(error)}): give one that transformers' "
            "VitPoseForPoseEstimation.from_pretrained loads."
        ) from error
    model, report = loaded
    # transformers starts these at random, with a warning
    wrong = sorted([*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])])
    if wrong:
        raise DistilPoseError(
            f"The weights of {name} do not fit its {CONFIG}: {len(wrong)} tensors are missing or of another shape, such as "
            f"{wrong[0]}; give the weights that belong to it."
        )
    title = about.get("repository", folder.resolve().name).split("/")[-1]
    mean, std = _normalisation(folder / PREPROCESSOR)
    network = VitPoseNetwork(model.float(), title, about, joints, expert, precision, compile, mean, std)
    return NetworkTeacher(network, pad, sigma, least_trust, check, check_persons)


def _check_config(folder: Path, name: str) -> None:
    """Raise an error if a model's folder has no config.json or that of another kind of network."""
    if not (folder / CONFIG).is_file():
        raise DistilPoseError(
            f"{name} has no {CONFIG}: give a ViTPose of transformers, such as usyd-community/vitpose-plus-base, or a folder "
            "that its save_pretrained wrote."
        )
    kind = _read(folder / CONFIG).get("model_type")
    if kind != "vitpose":
        raise DistilPoseError(
            f"{name} is no ViTPose: the model_type of its {CONFIG} is {kind!r} and not 'vitpose'; give one such as "
            "usyd-community/vitpose-plus-base."
        )


def _weights(folder: Path, name: str) -> list[Path]:
    """The safetensors of a model's folder."""
    files = sorted({file for pattern in WEIGHTS for file in folder.glob(pattern) if file.suffix == ".safetensors"})
    if not files:
        if not Path(name).is_dir() and (os.environ.get("HF_HUB_OFFLINE") or unreachable_hub()):
            raise DistilPoseError(
                f"The weights of {name} are not in the cache of the Hugging Face hub, which cannot be reached: connect to the "
                "network once, or give a folder."
            )
        raise DistilPoseError(
            f"{name} has no {WEIGHTS[0]}, and other files, such as pickles, can run code and are not read: convert it by "
            "save_pretrained of a recent transformers, or give another."
        )
    return files


def _digest(folder: Path, name: str) -> str:
    """SHA-256 of a folder's weights; of the digests if they are in several files."""
    digests = [sha256_of(file) for file in _weights(folder, name)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _normalisation(file: Path) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation of pixels from 0 to 1 by a preprocessor_config.json; ImageNet's without one."""
    content = _read(file) if file.is_file() else {}
    settings = {key: value for key, value in content.items() if value is not None}  # null is the default
    # what its input is for a pixel of 255, before the normalisation
    white = 255 * settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 255.0
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if settings.get("do_normalize", True):
        mean, std = settings.get("image_mean", IMAGENET_MEAN), settings.get("image_std", IMAGENET_STD)
    # one number is for all channels
    mean, std = (value if isinstance(value, (list, tuple)) else [value] * 3 for value in (mean, std))
    return [value / white for value in mean], [value / white for value in std]


def _named(config: Any) -> list[str] | None:
    """The joints' names of a configuration; None if it has only the default names, LABEL_0 and so on."""
    names = [str(config.id2label[index]) for index in range(config.num_labels)]
    return None if names == [f"LABEL_{index}" for index in range(len(names))] else names


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise DistilPoseError(f"{file} cannot be read as JSON ({first_line(error)}): download it again.") from error
    return content if isinstance(content, dict) else {}


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
