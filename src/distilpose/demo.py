"""A page in the browser that shows a model at work: `python -m distilpose.demo checkpoint=FILE`."""

from __future__ import annotations

import ipaddress
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, ListConfig

from distilpose.cli.command import command
from distilpose.errors import DistilPoseError, check_number
from distilpose.inference import Predictor
from distilpose.models import load_model
from distilpose.models.remote import local_file
from distilpose.runs.checkpoint_settings import run_padding


@command("demo")
def main(cfg: DictConfig) -> None:
    """Serve the page until interrupted."""
    try:
        import uvicorn

        from distilpose.webpage.app import make_app
        from distilpose.webpage.limits import Limits
        from distilpose.webpage.poses import Poses
    except ImportError as error:
        raise DistilPoseError(
            f"The page needs more than is installed ({error}): pip install 'distilpose[demo]'."
        ) from error

    limits = Limits(**cfg.limits)
    check_number("port", cfg.port, least=0, most=65535, whole=True)
    check_names(cfg.names)
    if cfg.padding is not None:
        check_number("padding", cfg.padding, above=0)
    given = {"checkpoint": cfg.checkpoint, "compare": cfg.compare, "teacher": cfg.teacher.checkpoint}
    models = {role: _predictor(cfg, file, limits.max_persons) for role, file in given.items() if file is not None}
    names = {role: page_name(given[role]) for role in models}
    poses = Poses(
        models["checkpoint"],
        names["checkpoint"],
        models.get("compare"),
        names.get("compare", ""),
        models.get("teacher"),
        names.get("teacher", ""),
    )
    poses(np.zeros((64, 64, 3), np.uint8), None)  # what cannot predict is told now, and the first visitor need not wait
    listener = _listen(cfg.host, cfg.port)
    app = make_app(poses, limits, [_in_address(cfg.host), *cfg.names])
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, lifespan="off", ws="none")
    print(f"http://{_in_address(cfg.host)}:{listener.getsockname()[1]}/ (ends with Ctrl-C)", flush=True)
    if not is_loopback(cfg.host):
        print(
            f"warning: host={cfg.host} lets other machines use this page, without a password or encryption, under the names "
            f"{', '.join([_in_address(cfg.host), *cfg.names])}.",
            file=sys.stderr,
        )
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])


def _predictor(cfg: DictConfig, file: str, persons: int) -> Predictor:
    """The model of a file; all persons of a photograph are one batch."""
    found = local_file(file)
    padding = run_padding(found) if cfg.padding is None else cfg.padding
    return Predictor(load_model(found, cfg.weights_kind), cfg.device, persons, cfg.flip_test, padding)


def check_names(names: Any) -> None:
    """Refuse what is no list of names, `*` and `*.` before a name included, each of which stands for any."""
    good = isinstance(names, (list, ListConfig)) and all(
        isinstance(name, str) and name and (name == "*" or "*" not in name.removeprefix("*.")) for name in names
    )
    if not good:
        raise DistilPoseError(
            f"names={names} must be a list of names such as names=[gpu1.lab.example], or names=[*.lab.example] for all there."
        )


def page_name(file: str) -> str:
    """What a checkpoint is called on the page, which does not tell where it lies: its run's folder, else the file's name."""
    path = Path(file).absolute()
    return path.parent.parent.name if path.parent.name == "checkpoints" else path.stem


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _in_address(host: str) -> str:
    """As it stands in an address: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise DistilPoseError(
            f"host={host} port={port} cannot be listened on ({error.strerror}): "
            "give an address of this machine, and a port that is free (port=0 takes any)."
        ) from error


if __name__ == "__main__":
    main()
