"""Values of path settings are taken as they are; other values that Hydra cannot parse are shown quoted."""

from __future__ import annotations

import shlex
import sys

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from distilpose.benchmark import BenchmarkSettings
from distilpose.cli.path_values import is_path, quote_paths
from distilpose.cli.paths import CONFIG_DIR
from distilpose.convert import ConvertSettings
from distilpose.demo import DemoSettings
from distilpose.diagnose import DiagnoseSettings
from distilpose.errors import DistilPoseError
from distilpose.evaluate import EvaluateSettings
from distilpose.export import ExportSettings
from distilpose.predict import PredictSettings
from distilpose.quickstart import QuickstartSettings
from distilpose.record import RecordSettings
from distilpose.report import ReportSettings
from distilpose.runs.train_settings import TrainSettings
from distilpose.share import ShareSettings

DECLARED = {
    "benchmark": BenchmarkSettings, "convert": ConvertSettings, "demo": DemoSettings, "diagnose": DiagnoseSettings,
    "evaluate": EvaluateSettings, "export": ExportSettings, "predict": PredictSettings, "quickstart": QuickstartSettings,
    "record": RecordSettings, "report": ReportSettings, "share": ShareSettings, "train": TrainSettings,
}  # fmt: skip
PATHS = {
    "benchmark": ["models"], "convert": ["source", "output"], "demo": ["checkpoint", "compare", "teacher.checkpoint"],
    "diagnose": ["checkpoint", "teacher.checkpoint", "baseline", "output", "data.root"],
    "evaluate": ["checkpoint", "predictions", "calibration_output", "output", "data.root", "data.boxes"],
    "export": ["checkpoint", "output", "annotations", "images", "calibration.annotations", "calibration.images"],
    "predict": ["checkpoint", "source", "output", "boxes", "calibration", "detector.file"], "quickstart": ["output"],
    "record": ["output", "folder", "teacher.checkpoint", "teacher.file", "data.root"], "report": ["runs", "output"],
    "share": ["checkpoint", "evaluations", "output"],
    "train": ["resume", "weights", "data.root", "data.train_annotations", "data.val_images", "teacher.checkpoint",
              "teacher.file", "teacher.recording", "hydra.run.dir", "hydra.sweep.dir", "data.others.lspet.root"],
}  # fmt: skip
VALUES = [
    "epoch=3-step=500.ckpt", "photo (1).jpg", "写真.jpg", "it's.jpg", 'a "b".jpg', "a,b.jpg", "[1].png", "a[1]{2}.png",
    "a:b.jpg", "$HOME.jpg", "100%.jpg", "#1.jpg", " a ", "007", "1e5", "1_000", "true", "a=b,c=d.ckpt", "choice(1,2).jpg",
    "~x", "+x", "a&b;c|d.jpg", "it's \"both\".jpg", "C:\\data\\it's.jpg", "a\\", "Ünïcode é.jpg", "a\tb.jpg", "-", "*.jpg",
    "{a}.jpg", "a{b,c}.jpg", "'", '"', "😀.jpg",
]  # fmt: skip


def parsed(word):
    (override,) = OverridesParser.create().parse_overrides([word])
    return override


@pytest.mark.parametrize("command", PATHS)
def test_every_path_of_every_command_is_known(command):
    assert all(is_path(name, DECLARED[command]) for name in PATHS[command])
    others = {"predict": ["fps", "detector.layout", "device"], "train": ["name", "data.category", "trainer.max_epochs"]}
    assert not any(is_path(name, DECLARED[command]) for name in others.get(command, ["nothing"]))


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("key", ["source", "+source", "++source"])
def test_a_path_is_taken_as_it_is(key, value):
    (word,) = quote_paths([f"{key}={value}"], PredictSettings)
    assert parsed(word).value() == value
    assert quote_paths([word], PredictSettings) == [word]  # a child process reads the command line again


@pytest.mark.parametrize(("value", "read"), [("true", True), ("false", False), ("a=b (1).safetensors",) * 2])
def test_a_setting_that_is_a_flag_or_a_path(value, read):
    (word,) = quote_paths([f"model.pretrained={value}"], DECLARED["train"])
    assert parsed(word).value() == read
    assert quote_paths([word], DECLARED["train"]) == [word]


def test_a_sweep_over_flags_and_paths():
    _, word = quote_paths(["-m", "model.pretrained=true,False,a=b.safetensors"], DECLARED["train"])
    yes, no, path = parsed(word).sweep_iterator()
    assert (yes, no, getattr(path, "text", path)) == (True, False, "a=b.safetensors")


@settings(deadline=None, max_examples=60)
@given(st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=12))
def test_any_text_is_a_path(value):
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    if "${" in value or "\\" in value or value == "null" or quoted or value[0] == "[":
        return
    (word,) = quote_paths([f"checkpoint={value}"], PredictSettings)
    assert str(parsed(word).value()) == value


@pytest.mark.parametrize(
    "word",
    ["source=a.jpg", "source=0", "boxes=null", "source='a b'", 'source="it\'s.jpg"', "source=${output}/a.jpg", "boxes=",
     "fps=3.5", "detector=onnx", "~boxes", "source=a\\,b.jpg", "source=a b", "tracking.patience=3", "--cfg=job"],
)  # fmt: skip
def test_what_hydra_reads_is_left_to_it(word):
    assert quote_paths([word], PredictSettings) == [word]


def test_sweeps_and_lists():
    (word, flag) = quote_paths(["checkpoint=epoch=1.ckpt,epoch=2.ckpt,plain.ckpt", "-m"], PredictSettings)
    assert flag == "-m"
    assert [str(value) for value in parsed(word).sweep_string_iterator()] == [
        "'epoch=1.ckpt'",
        "'epoch=2.ckpt'",
        "plain.ckpt",
    ]
    assert (
        quote_paths(["-m", "teacher.checkpoint=a.ckpt,b.ckpt"], TrainSettings)[1] == "teacher.checkpoint=a.ckpt,b.ckpt"
    )
    assert quote_paths(["-m", "weights=choice(a,b)"], TrainSettings)[1] == "weights=choice(a,b)"
    (word,) = quote_paths(["models=[epoch=1.ckpt,student_s, 'a,b', it's (1).ckpt]"], BenchmarkSettings)
    assert parsed(word).value() == ["epoch=1.ckpt", "student_s", "a,b", "it's (1).ckpt"]


def test_a_file_with_a_comma_in_a_multirun_is_one_value(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a,b.ckpt").write_bytes(b"")
    assert quote_paths(["-m", "checkpoint=a,b.ckpt"], PredictSettings)[1] == "checkpoint='a,b.ckpt'"


def test_interpolations_are_resolved_unless_a_file_has_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["output=here", "source=${output}/it's (1).jpg"]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        assert compose("predict", quote_paths(words, PredictSettings)).source == "here/it's (1).jpg"
        (tmp_path / "${x} (1).jpg").write_bytes(b"")
        assert compose("predict", quote_paths(["source=${x} (1).jpg"], PredictSettings)).source == "${x} (1).jpg"


def test_other_values_are_shown_quoted():
    with pytest.raises(DistilPoseError) as error:
        quote_paths(["name=it's (1)"], TrainSettings)
    message = str(error.value)
    assert message.startswith("name=it's (1) ")
    (shown,) = shlex.split(message[message.rindex(": ") + 2 :].rstrip("."))
    assert parsed(shown).value() == "it's (1)"
    assert len(message.splitlines()) == 1
    with pytest.raises(DistilPoseError, match=r"'photo\.jpg' is not a setting: expected NAME=VALUE"):
        quote_paths(["photo.jpg"], PredictSettings)


def test_the_command_takes_them(tmp_path, monkeypatch):
    from hydra.core.global_hydra import GlobalHydra

    from distilpose.cli.command import command

    seen = {}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["predict", "checkpoint=epoch=3-step=500.ckpt", "source=photo (1).jpg", "output=007"]
    )
    GlobalHydra.instance().clear()
    command("predict", PredictSettings)(lambda cfg: seen.update(cfg))()
    assert (seen["checkpoint"], seen["source"], seen["output"]) == ("epoch=3-step=500.ckpt", "photo (1).jpg", "007")


def test_an_interpolation_that_is_the_name_of_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x${now}.jpg").touch()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        words = quote_paths(["source=x${now}.jpg", "checkpoint=${source}"], PredictSettings)
        cfg = compose("predict", words)
    assert cfg.source == cfg.checkpoint == "x${now}.jpg"
