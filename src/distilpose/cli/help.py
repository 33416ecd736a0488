"""The list of settings that `--help` prints: name, value, what it takes, description."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import groupby

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict, read_write
from rich.console import Console
from rich.table import Table
from rich.text import Text

from distilpose.cli.paths import CONFIG_DIR
from distilpose.cli.setting_descriptions import describe
from distilpose.cli.validate_settings import Setting, settings_of

# shown instead of Hydra's output folder, which exists only inside a job
FOLDER = "FOLDER"
# width of the table in columns when the output is not a terminal: no name or value is split, so that grep finds it
WIDTH = 400


def print_settings(config_name: str, declared: type, arguments: Sequence[str]) -> None:
    """Print all settings of a command, a table for each group.

    Args:
        config_name: name of the root configuration.
        declared: class that declares the command's own settings.
        arguments: command line; its overrides choose the groups whose settings are listed.
    """
    overrides = [word for word in arguments if word.startswith("~") or ("=" in word and not word.startswith("-"))]
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose_outside_job(config_name, overrides)
    listed = sorted(settings_of(cfg, declared), key=lambda setting: "." in setting.name)  # root settings first
    console = Console()
    console = console if console.is_terminal else Console(width=WIDTH)
    for group, settings in groupby(listed, key=lambda setting: setting.name.rpartition(".")[0].partition(".")[0]):
        console.print(_table(f"\n{group or config_name}", settings))


def compose_outside_job(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """Compose a configuration outside a Hydra job, ${hydra:…} values included. Call `hydra.initialize` first."""
    cfg = hydra.compose(config_name, list(overrides), return_hydra_config=True)
    with read_write(cfg), open_dict(cfg):
        cfg.hydra.runtime.output_dir = FOLDER
        HydraConfig.instance().set_config(cfg)
        del cfg["hydra"]
    return cfg


def _table(title: str, settings: Iterable[Setting]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, show_header=False, expand=True)
    for ratio in (4, 3, 4, 6):
        table.add_column(ratio=ratio, overflow="fold")
    for name, value, annotation, description in settings:
        shown = value if isinstance(value, str) else json.dumps(value)
        takes = "" if annotation is None else describe(annotation)
        table.add_row(*map(Text, (name, shown, takes, description)))  # plain text: brackets are no markup
    return table
