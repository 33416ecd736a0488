"""Share a model: `python -m distilpose.share run=FOLDER output=FOLDER [push=owner/name]`."""

from __future__ import annotations

import shutil
from pathlib import Path

from omegaconf import DictConfig

from distilpose.cli.command import command
from distilpose.errors import DistilPoseError, check_flag
from distilpose.files import sha256_of, write_text
from distilpose.models import load_model, save_model
from distilpose.models.remote import WEIGHTS_FILE, local_file
from distilpose.runs.checkpoint_settings import run_padding
from distilpose.sharing.model_card import model_card
from distilpose.sharing.run_facts import read_about

CHECKPOINT, CURVES = "checkpoints/best.ckpt", "curves.png"


@command("share")
def main(cfg: DictConfig) -> Path:
    """Write weights and card into a new folder, and send it to the hub if asked."""
    output = Path(cfg.output)
    check_flag("private", cfg.private)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DistilPoseError(f"output={output} is not an empty folder and nothing is overwritten: give a new one.")
    if cfg.run is None and cfg.checkpoint is None:
        raise DistilPoseError("Give what to share: run=FOLDER of a training, or checkpoint=FILE.")
    run = None if cfg.run is None else Path(cfg.run)
    if run is not None and not run.is_dir():
        raise DistilPoseError(
            f"run={run} is no folder: give that of a training, which holds config.yaml and checkpoints/."
        )
    checkpoint = cfg.checkpoint if run is None or cfg.checkpoint is not None else run / CHECKPOINT
    if run is not None and not Path(checkpoint).resolve().is_relative_to(run.resolve()):
        raise DistilPoseError(
            f"checkpoint={checkpoint} is not in run={run}, whose card it would get: give the run it is of, or leave run out."
        )
    model = load_model(checkpoint, cfg.weights_kind)
    about = read_about(model, run, str(checkpoint), cfg)
    weights = save_model(model, output / WEIGHTS_FILE, padding=run_padding(local_file(checkpoint)))
    curves = None if run is None else run / "pictures" / CURVES
    pictures = []
    if curves is not None and curves.is_file():
        pictures = [Path(shutil.copyfile(curves, output / CURVES)).name]
    write_text(model_card(model, about, sha256_of(weights), cfg.push, pictures), output / "README.md")
    print(f"{model.name} as {weights}, its card as {output / 'README.md'}.")
    if cfg.licence is None:
        print("No licence is stated, so that nobody may use the weights: give licence=…, such as apache-2.0.")
    if cfg.push is not None:
        print(f"Sent to {push(output, cfg.push, cfg.private)}")
    return output


def push(folder: Path, name: str, private: bool) -> str:
    """Send a folder to the Hugging Face hub as one commit; gives the commit's address.

    Raises:
        DistilPoseError: what the hub or the network says.
    """
    from huggingface_hub import HfApi

    api = HfApi(library_name="distilpose")
    try:
        api.create_repo(name, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=folder, commit_message="Share by distilpose").commit_url)
    except (
        Exception
    ) as error:  # by its version the client raises errors of two HTTP libraries, its own and the system's
        told = " ".join(str(error).split())[:300].rstrip(".")
        raise DistilPoseError(
            f"The Hugging Face hub does not take '{name}': {told}; log in by hf auth login and choose a name you may write to. "
            f"{folder} is ready: hf upload {name} {folder} sends it."
        ) from error


if __name__ == "__main__":
    main()
