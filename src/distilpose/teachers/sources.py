"""The source of heat maps of each kind of teacher, for `record` and `evaluate`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, get_type_hints

import torch
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig

from distilpose.cli.validate_settings import RESERVED
from distilpose.errors import DistilPoseError
from distilpose.teachers.base import Source
from distilpose.teachers.blazepose import blazepose_source, load_blazepose
from distilpose.teachers.frozen import checkpoint_source, load_teacher
from distilpose.teachers.network import NetworkSource, NetworkTeacher
from distilpose.teachers.parts import check_parts, of_part
from distilpose.teachers.several import SeveralSources, load_several

log = logging.getLogger(__name__)

# for each loader of a teacher without a `Network`, the function that makes its source from the same settings, the boxes'
# padding and a device
_SOURCES: dict[Any, Callable[[DictConfig, float, torch.device], Source]] = {
    load_teacher: checkpoint_source,
    load_blazepose: blazepose_source,
}


def make_source(settings: DictConfig, padding: float, device: torch.device) -> Source:
    """A teacher as a source of heat maps.

    Args:
        settings: the teacher's settings, with their `_target_`.
        padding: factor on the box for a checkpoint that does not state its own.
        device: device that runs the network.

    Raises:
        DistilPoseError: the teacher has no network, or one of several is no teacher.
    """
    load = get_method(settings._target_)
    if load is load_several:
        parts = check_parts({str(name): part for name, part in settings.items() if name not in (*RESERVED, "rule")})
        sources = []
        for name, part in parts.items():
            with of_part(name):
                sources.append(make_source(part, padding, device))
        return SeveralSources(sources, settings.rule)
    if make := _SOURCES.get(load):
        return make(settings, padding, device)
    if get_type_hints(load).get("return") is NetworkTeacher:
        network = instantiate(settings).network
        log.info(network.describe())
        return NetworkSource(network, device)
    raise DistilPoseError(
        f"{settings._target_} has no network to run on photographs: pass a teacher that has one, such as teacher=checkpoint, "
        "teacher=onnx or teacher=blazepose."
    )
