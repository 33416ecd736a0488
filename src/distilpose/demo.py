"""Serve a page that shows a model in the browser: `python -m distilpose.demo checkpoint=FILE`."""

from __future__ import annotations

import ipaddress
import logging
import socket
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, Le
from omegaconf import DictConfig

from distilpose.cli.command import command
from distilpose.errors import DistilPoseError
from distilpose.evaluation import FlipTest
from distilpose.inference import Predictor
from distilpose.models import load_model
from distilpose.models.remote import local_file
from distilpose.runs.run_of_checkpoint import run_padding
from distilpose.webpage.limits import Limits
from distilpose.webpage.poses import Poses

log = logging.getLogger(__name__)


class TeacherSettings:
    """The teacher of the page.

    Attributes:
        checkpoint: a teacher, whose heat map of a joint is shown beside the student's.
    """

    checkpoint: Path | None


class DemoSettings:
    """Settings of `demo`.

    Attributes:
        checkpoint: a model written by this package (.ckpt or .safetensors), a shared folder, or a name on the Hugging Face hub.
        compare: a second model, shown beside it with the distance between their joints.
        teacher: a teacher for the heat maps.
        weights_kind: weights of checkpoints whose training averaged them (callbacks=ema).
        flip_test: average each crop with its mirror image; released does it like the published code.
        padding: factor on a person's box; null takes the value of the run that trained each model, else 1.25.
        device: auto, cpu, cuda, cuda:1, ….
        host: address to listen on: 127.0.0.1 is reachable from this machine only, 0.0.0.0 from every machine.
        port: port to listen on; 0 chooses a free one.
        names: host names of the page besides localhost and host, such as gpu1.lab.example or *.lab.example.
        limits: limits of a request.
    """

    checkpoint: Path
    compare: Path | None
    teacher: TeacherSettings
    weights_kind: Literal["averaged", "raw"]
    flip_test: FlipTest
    padding: Annotated[float, Gt(0)] | None
    device: str
    host: str
    port: Annotated[int, Ge(0), Le(65535)]
    names: list[str]
    limits: Limits


@command("demo", DemoSettings)
def main(cfg: DictConfig) -> None:
    """Serve the page until Ctrl-C."""
    try:
        import uvicorn

        from distilpose.webpage.app import make_app
    except ImportError as error:
        raise DistilPoseError(
            f"The page needs packages that are not installed ({error}): pip install 'distilpose[demo]'."
        ) from error

    limits = Limits(**cfg.limits)
    files = {"model": cfg.checkpoint, "compare": cfg.compare, "teacher": cfg.teacher.checkpoint}
    models = {role: load_predictor(cfg, file, limits.max_persons) for role, file in files.items() if file is not None}
    names = {role: page_name(files[role]) for role in models}
    poses = Poses(
        models["model"],
        names["model"],
        models.get("compare"),
        names.get("compare", ""),
        models.get("teacher"),
        names.get("teacher", ""),
    )
    poses(np.zeros((64, 64, 3), np.uint8), None)  # warms up; if a model cannot predict, it fails now
    family = socket.AF_INET6 if ":" in cfg.host else socket.AF_INET
    try:
        listener = socket.create_server((cfg.host, cfg.port), family=family, backlog=128)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]  # without the address, which Python adds
        raise DistilPoseError(
            f"host={cfg.host} port={cfg.port} cannot be opened ({reason}): give an address of this machine, and another "
            "port or port=0 for a free one."
        ) from error
    host_names = [in_url(cfg.host), *cfg.names]
    config = uvicorn.Config(
        make_app(poses, limits, host_names),
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
    )
    print(f"http://{in_url(cfg.host)}:{listener.getsockname()[1]}/ (Ctrl-C stops it)", flush=True)
    if not is_loopback(cfg.host):
        log.warning(
            f"host={cfg.host} lets other machines use this page, without a password or encryption, by the names "
            f"{', '.join(host_names)}."
        )
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])


def load_predictor(cfg: DictConfig, source: str, batch_size: int) -> Predictor:
    """The model of a file; all persons of an image are one batch."""
    file = local_file(source)
    padding = run_padding(file, cfg.padding)
    return Predictor(load_model(file, cfg.weights_kind), cfg.device, batch_size, cfg.flip_test, padding)


def page_name(file: str) -> str:
    """The name of a checkpoint on the page: the name of its run's folder, else of the file, without a path."""
    path = Path(file).absolute()
    return path.parent.parent.name if path.parent.name == "checkpoints" else path.stem


def is_loopback(host: str) -> bool:
    """Whether an address is reachable from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def in_url(host: str) -> str:
    """The host in the form that a URL needs: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


if __name__ == "__main__":
    main()
