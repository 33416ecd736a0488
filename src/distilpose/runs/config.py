"""Settings of a run as flat dictionaries, and which of them decide what it computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# settings, or groups of them, that say where, when and how watched a run is computed, not what it computes
NOT_COMPARED = (
    "seed", "data.seed", "folder", "resume", "check", "lr_find", "threads", "logger", "data.num_workers", "data.val_batch_size",
    "data.folder", "data.monitor", "trainer.default_root_dir", "trainer.accelerator",
    "trainer.log_every_n_steps", "trainer.num_sanity_val_steps", "teacher.check", "teacher.check_persons",
)  # fmt: skip
# callbacks that observe a training without changing it, except for those below
OBSERVING = ("distilpose.callbacks.", *(f"lightning.pytorch.callbacks.{name}" for name in ("Model", "TQDM", "Rich")))
TRAINING = ("distilpose.callbacks.AveragedWeights",)
# interpolations of the setting beside them, which are left out so that a difference is reported once
COPIES = {"data.augmentation": "augmentation", "data.input_size": "model.input_size"}


def flatten(content: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key; lists are values."""
    if not isinstance(content, Mapping):
        return {prefix.rstrip("."): content}
    return {key: value for name, part in content.items() for key, value in flatten(part, f"{prefix}{name}.").items()}


def below(settings: Mapping[str, Any], group: str) -> dict[str, Any]:
    """The settings of a group, by their names in it; a single setting by the empty name."""
    return {key[len(group) + 1 :]: value for key, value in settings.items() if is_in(key, [group])}


def is_in(key: str, groups: Sequence[str]) -> bool:
    """Whether a dotted key is one of these settings or lies in one of these groups."""
    return f"{key}.".startswith(tuple(f"{group}." for group in groups))


def callbacks_of(config: Mapping[str, Any]) -> dict[str, bool]:
    """Each callback of flattened settings, by dotted key, and whether it only observes the training."""
    names = dict.fromkeys(".".join(key.split(".")[:2]) for key in config if key.startswith("callbacks."))
    targets = {name: str(config.get(f"{name}._target_", OBSERVING[0])) for name in names}
    return {name: target.startswith(OBSERVING) and target not in TRAINING for name, target in targets.items()}


def deciding_settings(config: Mapping[str, Any], ignored: Sequence[str]) -> dict[str, Any]:
    """The flattened settings that decide a run's figures, without those ignored."""
    copies = [copy for copy, source in COPIES.items() if below(config, copy) == below(config, source)]
    observers = [key for key, observes in callbacks_of(config).items() if observes]
    kept = {key: value for key, value in config.items() if not is_in(key, [*ignored, *copies, *observers])}
    if kept.get("data.root"):  # the same data may lie elsewhere on another machine
        kept["data.root"] = Path(str(kept["data.root"])).name
    return kept
