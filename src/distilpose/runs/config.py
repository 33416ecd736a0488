"""Settings of a run as flat dictionaries, and which of them change its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# settings or groups that do not change the result: folders, devices, logging, number of workers
NOT_COMPARED = (
    "batch_may_change", "seed", "data.seed", "folder", "resume", "check", "lr_find", "threads", "logger", "data.num_workers",
    "data.val_batch_size", "data.folder", "data.monitor", "trainer.default_root_dir", "trainer.accelerator",
    "trainer.log_every_n_steps", "trainer.num_sanity_val_steps",
)  # fmt: skip
# callbacks that only observe a training, except those in TRAINING
OBSERVING = ("distilpose.callbacks.", *(f"lightning.pytorch.callbacks.{name}" for name in ("Model", "TQDM", "Rich")))
TRAINING = ("distilpose.callbacks.AveragedWeights",)
# copies of another setting by interpolation; not compared, so that a difference is reported once
COPIES = {"data.augmentation": "augmentation", "data.input_size": "model.input_size"}


def flatten(content: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as a dictionary with dotted keys; lists are values."""
    if not isinstance(content, Mapping):
        return {prefix.rstrip("."): content}
    return {key: value for name, part in content.items() for key, value in flatten(part, f"{prefix}{name}.").items()}


def below(settings: Mapping[str, Any], group: str) -> dict[str, Any]:
    """The settings of a group, by their names inside the group; a single setting has the name ""."""
    return {key[len(group) + 1 :]: value for key, value in settings.items() if is_in(key, [group])}


def is_in(key: str, groups: Sequence[str]) -> bool:
    """Whether a dotted key is one of the settings, or inside one of the groups."""
    return f"{key}.".startswith(tuple(f"{group}." for group in groups))


def is_teacher_check(key: str) -> bool:
    """Whether a dotted key is a setting of the check of a teacher, or of one of several, such as teacher.first.check."""
    names = key.split(".")
    return names[0] == "teacher" and names[-1] in ("check", "check_persons")


def callbacks_of(config: Mapping[str, Any]) -> dict[str, bool]:
    """The callbacks of flattened settings: dotted key, and whether the callback only observes the training."""
    names = dict.fromkeys(".".join(key.split(".")[:2]) for key in config if key.startswith("callbacks."))
    targets = {name: str(config.get(f"{name}._target_", OBSERVING[0])) for name in names}
    return {name: target.startswith(OBSERVING) and target not in TRAINING for name, target in targets.items()}


def deciding_settings(config: Mapping[str, Any], ignored: Sequence[str]) -> dict[str, Any]:
    """The flattened settings that change a run's results, without the ignored ones."""
    copies = [copy for copy, source in COPIES.items() if below(config, copy) == below(config, source)]
    observers = [key for key, observes in callbacks_of(config).items() if observes]
    left_out = [*ignored, *copies, *observers]
    kept = {key: value for key, value in config.items() if not is_in(key, left_out) and not is_teacher_check(key)}
    if kept.get("data.root"):  # the same data may be in another folder on another machine
        kept["data.root"] = Path(str(kept["data.root"])).name
    return kept
