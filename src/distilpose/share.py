"""Share a model: `python -m distilpose.share checkpoint=RUN|FILE output=FOLDER [push=owner/name]`."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Literal

from omegaconf import DictConfig

from distilpose.cli.command import command
from distilpose.errors import DistilPoseError
from distilpose.files import check_new_folder, sha256_of, write_text
from distilpose.models import load_model, save_model
from distilpose.models.remote import WEIGHTS_FILE, local_file
from distilpose.runs.folders import CONFIG
from distilpose.runs.run_of_checkpoint import known_padding
from distilpose.sharing.model_card import make_card
from distilpose.sharing.run_facts import read_facts

BEST, CURVES = "checkpoints/best.ckpt", "curves.png"

log = logging.getLogger(__name__)


class ShareSettings:
    """Settings of `share`.

    Attributes:
        checkpoint: folder of a run (its best checkpoint), a file (.ckpt or .safetensors), or a shared folder. For a file
            outside of a run the card has fewer facts.
        weights_kind: weights of a checkpoint whose training averaged them (callbacks=ema).
        evaluations: folders that `python -m distilpose.evaluate` wrote for this model; their tables go into the card.
        name: the model's name on the card; null takes the run's.
        licence: licence of the weights by the hub's identifier, such as apache-2.0; it follows from the training data.
        data_note: a sentence on the data for the card.
        half: write the weights in float16, which halves the file.
        output: new or empty folder for model.safetensors, README.md and curves.png.
        push: owner/name on the Hugging Face hub to upload the folder to; log in by `hf auth login` or HF_TOKEN.
        private: whether the repository is private if it is created.
    """

    checkpoint: str | Path
    weights_kind: Literal["averaged", "raw"]
    evaluations: list[str | Path] | str | Path
    name: str | None
    licence: str | None
    data_note: str | None
    half: bool
    output: Path
    push: str | None
    private: bool


@command("share", ShareSettings)
def main(cfg: DictConfig) -> Path:
    """Write weights and card into a new folder, and with push=… upload it."""
    output = check_new_folder(cfg.output)
    checkpoint, run = find_checkpoint(cfg.checkpoint)
    model = load_model(checkpoint, cfg.weights_kind)
    facts = read_facts(model, run, checkpoint, cfg)
    padding = known_padding(checkpoint)
    if padding is None:  # stated as 1.25, it would look like a known value
        log.warning(f"{checkpoint} does not state the padding of its training, and neither will {WEIGHTS_FILE}.")
    weights = save_model(model, output / WEIGHTS_FILE, padding=padding, half=cfg.half)
    pictures = []
    if run is not None and (run / "pictures" / CURVES).is_file():
        pictures = [shutil.copyfile(run / "pictures" / CURVES, output / CURVES).name]
    card = make_card(model, facts, sha256_of(weights), cfg.push, pictures)
    write_text(f"{card}\n", output / "README.md")
    print(f"Wrote {model.name} to {weights} and its card to {output / 'README.md'}.")
    if cfg.licence is None:
        log.warning("The weights have no licence, so no one may use them: give licence=…, such as apache-2.0.")
    if cfg.push is not None:
        print(f"Uploaded to {push(output, cfg.push, cfg.private)}")
    return output


def find_checkpoint(source: str) -> tuple[Path, Path | None]:
    """The file of a model and the run it belongs to, if any.

    Args:
        source: a run's folder, a file, or another source that `load_model` takes.
    """
    path = Path(source)
    file = path / BEST if (path / BEST).is_file() else local_file(source)
    run = file.parent.parent
    return file, run if file.parent.name == "checkpoints" and (run / CONFIG).is_file() else None


def push(folder: Path, name: str, private: bool) -> str:
    """Upload a folder to the Hugging Face hub as one commit, and return the commit's address.

    Raises:
        DistilPoseError: the hub or the network reports an error.
    """
    from huggingface_hub import HfApi

    api = HfApi(library_name="distilpose")
    try:
        api.create_repo(name, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=folder, commit_message="Share by distilpose").commit_url)
    except Exception as error:  # the client raises errors of its own, of HTTP libraries and of the system
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise DistilPoseError(
            f"push={name} failed ({reason}): if the hub rejects you, log in by hf auth login and choose a name that you may "
            f"write to. {folder} is ready: hf upload {name} {folder} uploads it."
        ) from error


if __name__ == "__main__":
    main()
