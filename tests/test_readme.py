"""The documents: every command composes, every make target, script and link exists, the Python blocks run."""

from __future__ import annotations

import importlib.util
import re
import shlex
from functools import cache
from itertools import product
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from distilpose import dataset, report
from distilpose.cli.paths import CONFIG_DIR
from distilpose.losses.term_names import PAPER

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
# pages whose Python blocks need a trained model and photographs
NEED_FILES = ("docs/prediction.md", "docs/export.md")
TEXTS = {page: (ROOT / page).read_text() for page in PAGES}


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXTS[page], re.MULTILINE | re.DOTALL)


def commands(pattern: str) -> list[str]:
    """Command lines of the shell blocks that match, without their comments."""
    shell = [block.replace("\\\n", " ") for page in PAGES for block in blocks(page, "sh")]
    lines = [line for block in shell for line in block.splitlines()]
    return [shlex.join(shlex.split(line, comments=True)) for line in lines if re.match(pattern, line)]


# including commands started by torchrun or srun
COMMANDS = commands(r"(python|torchrun|srun)\b.* -m distilpose\.|python -m distilpose\.")
GROUPS = {path.name for path in CONFIG_DIR.iterdir() if path.is_dir()}
# experiments and sweeps with values to sweep over, and launchers, which only sweeps use
SWEEPING = {
    f"{group}={path.stem}"
    for group in ("experiment", "sweep", "launcher")
    for path in (CONFIG_DIR / group).glob("*.yaml")
    if "sweeper:" in path.read_text() or group == "launcher"
}


def split_command(line: str) -> tuple[str, list[str]]:
    """The module that a command line runs, and its arguments."""
    words = shlex.split(line)
    place = next(number for number, word in enumerate(words) if word.startswith("distilpose."))
    return words[place], words[place + 1 :]


def compositions(arguments: list[str]) -> list[list[str]]:
    """The overrides of each job: one, or with -m every combination of the values swept over."""
    overrides = [argument for argument in arguments if argument not in ("-m", "--multirun")]
    parsed = OverridesParser.create().parse_overrides(overrides)
    swept = [override.is_sweep_override() for override in parsed]
    multirun = len(overrides) < len(arguments)
    assert multirun or not any(swept), "a sweep over values needs -m"
    assert not multirun or any(swept) or any(one in SWEEPING for one in overrides), "-m needs values to sweep over"
    choices = [
        _values(override) if sweeps else [text] for override, sweeps, text in zip(parsed, swept, overrides, strict=True)
    ]
    return [list(job) for job in product(*choices)]


def _values(override: Override) -> list[str]:
    """The values of a sweep; for an interval, its ends."""
    sweep = override.value()
    ends = [sweep.start, sweep.end] if isinstance(sweep, IntervalSweep) else override.sweep_string_iterator()
    return [f"{override.get_key_element()}={value}" for value in ends]


def jobs_of(line: str) -> list[tuple[str, list[str]]]:
    """Configuration name and overrides of each job of a command line; none for a command without Hydra."""
    module, arguments = split_command(line)
    assert importlib.util.find_spec(module) is not None
    name = module.removeprefix("distilpose.")
    if name in ("dataset", "runtime"):
        return []
    if "--help" in arguments:
        return [(name, [])]
    if name == "report":
        arguments = report.arguments(arguments)
    return [(name, job) for job in compositions(arguments)]


def choices_of(name: str, job: list[str]) -> tuple[str, ...]:
    """The groups that a job chooses, and whether it names a teacher."""
    chosen = sorted(override for override in job if override.partition("=")[0].strip("+") in GROUPS)
    return name, *chosen, *sorted({"a teacher" for one in job if one.startswith(("teacher.", "resume="))})


def composed(name: str, job: list[str]) -> DictConfig:
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose(name, job)


@cache
def needs_teacher(loss: str) -> bool:
    """Whether a student's loss needs a teacher."""
    return bool(instantiate(OmegaConf.create(loss)).needs_teacher)


# jobs with the same choices are composed once, with the settings of all of them
JOBS: dict[tuple[str, ...], dict[str, str]] = {}
for name, job in (one for line in COMMANDS for one in jobs_of(line)):
    JOBS.setdefault(choices_of(name, job), {}).update({override.partition("=")[0]: override for override in job})


def test_commands_of_every_kind_are_documented():
    documented = {split_command(line)[0].removeprefix("distilpose.") for line in COMMANDS}
    assert documented >= {path.stem for path in CONFIG_DIR.glob("*.yaml")} - {"quickstart"}
    assert len(COMMANDS) > 100


@pytest.mark.parametrize("choices", JOBS, ids=" ".join)
def test_commands_compose(choices):
    cfg = composed(choices[0], list(JOBS[choices].values()))
    if choices[0] == "train":
        is_teacher = cfg.model.name.startswith("teacher")
        assert ("heatmap" in cfg.method._target_.lower()) == is_teacher
        assert (cfg.loss._target_.rpartition(".")[2].startswith("Heatmap")) == is_teacher
        if not is_teacher and len(choices) > 1 and needs_teacher(OmegaConf.to_yaml(cfg.loss)):
            parts = [part for part in (cfg.teacher, *cfg.teacher.values()) if isinstance(part, DictConfig)]
            files = [part.get("checkpoint", part.get("file", "no file to give")) for part in parts]
            assert cfg.resume or all(files)


def test_commands_without_hydra_are_parsed():
    for module, arguments in map(split_command, COMMANDS):
        if module == "distilpose.dataset":
            assert dataset.build_parser().parse_args(arguments).run
        if module == "distilpose.runtime":
            assert arguments[0].endswith(".onnx")


def test_a_sweep_is_as_many_jobs_as_it_has_combinations():
    assert compositions(["-m", "loss=regression,tokens", "seed=0,1,2"])[-1] == ["loss=tokens", "seed=2"]
    assert len(compositions(["-m", "loss=regression,tokens", "seed=0,1,2"])) == 6
    assert compositions(["models=[student_s,student_l]"]) == [["models=[student_s,student_l]"]]


def test_a_misspelt_command_is_detected():
    for line in ("python -m distilpose.train modle=student_s", "python -m distilpose.train model=student_sx"):
        (job,) = jobs_of(line)
        with pytest.raises(Exception, match=r"student_sx|modle"):
            composed(*job)
    with pytest.raises(AssertionError):
        jobs_of("python -m distilpose.trian model=student_s")


def test_make_targets_and_scripts_exist():
    makefile = (ROOT / "Makefile").read_text()
    for line in commands("make "):
        assert re.search(rf"^{line.split()[1]}:", makefile, re.MULTILINE)
    scripts = commands("python scripts/")
    assert scripts
    for line in scripts:
        assert (ROOT / line.split()[1]).is_file()


def test_the_table_of_losses_has_the_weights_of_the_configuration():
    section = TEXTS["docs/method.md"].split("## Losses")[1].split("\nwith G")[0]
    rows = re.findall(r"^\| ([a-z ]+) \| .* \| (\S+) \|$", section, re.MULTILINE)
    documented = {
        name.replace(" ", "_").replace("heat_map", "heatmap"): float(weight) for name, weight in rows if name != "term"
    }
    cfg = composed("train", ["loss=distilpose"])
    assert documented == {name: cfg.loss[name] for name in PAPER}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", TEXTS[page]):
        name, _, anchor = target.partition("#")
        place = (ROOT / page).parent / name if name else ROOT / page
        assert place.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", place.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page not in (*NEED_FILES, "CONTRIBUTING.md") and blocks(page, "python")]
)
def test_python_blocks_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number, block in enumerate(blocks(page, "python")):
        exec(compile(block, f"{page}, block {number}", "exec"), {})
    printed = capsys.readouterr().out
    if page in ("README.md", "docs/index.md"):
        assert "['student_base', 'student_l', 'student_lite', 'student_s', 'student_timm', 'student_xs']" in printed
        assert "torch.Size([1, 17, 2]) torch.Size([1, 17])" in printed
    if page == "docs/evaluation.md":
        measured = {float(line.split()[0]): float(line.split()[1]) for line in printed.splitlines()}
        rows = re.findall(r"^\| \**([\d.]+)\**[^|]*\| \**([−+][\d.]+)\** \|", TEXTS[page], re.MULTILINE)
        documented = {float(shift): float(error.replace("−", "-")) for shift, error in rows}
        assert documented.keys() == measured.keys()
        assert all(abs(documented[shift] - measured[shift]) < 0.006 for shift in documented)


def test_figures_of_the_networks_are_those_of_the_registry():
    from distilpose.models import count_parameters, create_model

    row = r"^\| `(\w+)` \|.*?([\d,]{9,}) \| ([\d.]+) \|"
    figures, again = (set(re.findall(row, TEXTS[page], re.MULTILINE)) for page in ("docs/coco.md", "docs/method.md"))
    assert len(figures) == 4  # the paper's
    assert figures < again
    with torch.device("meta"):  # counting does not need the weights
        for name, count, _ in again:
            assert count_parameters(create_model(name)) == int(count.replace(",", ""))


def test_the_readme_is_short():
    assert len(TEXTS["README.md"].split()) <= 900


def test_every_page_is_in_the_order_of_the_site_and_of_its_start():
    nav = (ROOT / "mkdocs.yml").read_text().partition("nav:")[2]
    for page in PAGES:
        if page.startswith("docs/"):
            name = page.removeprefix("docs/")
            assert f": {name}\n" in nav
            assert name == "index.md" or f"]({name})" in TEXTS["docs/index.md"]
