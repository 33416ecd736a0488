"""ViTPose: against transformers' own forward pass, crop and decoding, and how it is loaded."""

from __future__ import annotations

import builtins
import hashlib
import json
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dots import FACE, DotFinder, draw_dots
from hub import COMMIT, hub
from huggingface_hub import constants
from hydra import compose, initialize_config_dir
from torch.utils.data import default_collate
from vitposes import NAMES, perfect_vitpose, small_vitpose

from distilpose import create_model
from distilpose import record as record_command
from distilpose.callbacks.metrics_table import read_table
from distilpose.cli.paths import CONFIG_DIR
from distilpose.data import CocoKeypoints
from distilpose.errors import DistilPoseError
from distilpose.losses import DistillationLoss, TokenShape
from distilpose.modules import DistillationModule, load_recorded, load_vitpose
from distilpose.outputs import IMAGENET_MEAN, IMAGENET_STD, PoseBatch
from distilpose.skeleton import COCO, Skeleton
from distilpose.teachers.network import NetworkSource, NetworkTeacher
from distilpose.teachers.recorder import record
from distilpose.teachers.vitpose import VitPoseNetwork

transformers = pytest.importorskip("transformers")
SMALL = {"depth": 1, "widths": [8, 8, 8, 8], "out_channels": 8, "width": 16, "heads": 2}
LEEDS = Skeleton.from_names(
    ["right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist", "right_elbow",
     "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck", "head_top"]
)  # fmt: skip
TINY = [
    "data=custom", "data.batch_size=4", "data.num_workers=0", "augmentation=none", "model=student_xs", "model.depth=1",
    "model.width=32", "model.heads=2", "scheduler.warmup_steps=0", "logger=none", "trainer.accelerator=cpu",
    "trainer.num_sanity_val_steps=0", "~callbacks.pictures", "~callbacks.health", "~callbacks.details",
]  # fmt: skip
TOKENS = {"visual_token": 1.0, "keypoint_token": 0.0, "project_tokens": True}
NAME = "someone/vitpose-small"


def distil(student, loss, teacher) -> DistillationModule:
    return DistillationModule(student, loss, teacher, optimizer=torch.optim.Adam)


def network_of(model, **options) -> VitPoseNetwork:
    return VitPoseNetwork(model, "vitpose", {}, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved ViTPose with experts, and the normalisation of its processor."""
    path = tmp_path_factory.mktemp("vitpose") / "small"
    small_vitpose(experts=6).save_pretrained(path)
    transformers.VitPoseImageProcessor(image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.4]).save_pretrained(path)
    return path


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copied")


@pytest.fixture
def online(folder, tmp_path, monkeypatch):
    """A hub with the saved network, and an empty cache; yields its files by repository and name."""
    with hub() as (address, files):
        files[NAME] = {file.name: file.read_bytes() for file in folder.iterdir()}
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield files


# the network


@pytest.mark.parametrize(
    "options",
    [{}, {"simple": False}, {"experts": 6}, {"size": (192, 160)}],
    ids=["simple head", "classic head", "experts", "another size"],
)
def test_maps_are_those_of_transformers(options):
    model = small_vitpose(**options)
    expert = 4 if "experts" in options else 0
    network = network_of(model, expert=expert)
    crops = torch.randn(2, 3, *network.convention.input_size)
    index = torch.tensor([expert] * 2) if expert else None
    with torch.no_grad():
        expected = model(crops, dataset_index=index)
        features = model.backbone(crops, dataset_index=index).feature_maps[-1]
    output = network(crops)
    assert output.heatmaps.shape[2:] == network.convention.map_size == expected.heatmaps.shape[2:]
    torch.testing.assert_close(output.heatmaps, expected.heatmaps.clamp(min=0))
    torch.testing.assert_close(output.visual_tokens, features)
    rows, columns = (side // 16 for side in crops.shape[2:])
    assert network.token_shape == TokenShape(rows, columns, 32)
    assert features.shape == (2, rows * columns, 32)


def test_experts_differ_and_are_counted():
    model, crops = small_vitpose(experts=3), torch.randn(1, 3, 256, 192)
    first, second = (network_of(model, expert=expert)(crops).heatmaps for expert in (0, 1))
    assert (first - second).abs().max() > 1e-3
    with pytest.raises(DistilPoseError, match=r"teacher\.expert=3.*\b2\b"):
        network_of(model, expert=3)
    with pytest.raises(DistilPoseError, match=r"teacher\.expert=1.*without experts"):
        network_of(small_vitpose(), expert=1)


def test_joints_are_read_from_the_configuration_by_any_style():
    skeleton = network_of(small_vitpose()).skeleton
    assert COCO.matching(skeleton) == list(range(17))
    known = [joint if joint is None else COCO.names[joint] for joint in LEEDS.matching(skeleton)]
    assert known == [*LEEDS.names[:12], None, None]
    assert network_of(small_vitpose(None)).skeleton.names == COCO.names  # LABEL_0 to LABEL_16
    names = [f"joint_{index}" for index in range(17)]
    assert list(network_of(small_vitpose(), joints=names).skeleton.names) == names
    with pytest.raises(DistilPoseError, match=r"\b17\b.*teacher\.joints.*\b2\b"):
        network_of(small_vitpose(), joints=["nose", "tail"])


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), (None, torch.float32), (32, torch.float32)])
def test_precision_of_the_forward_pass(precision, dtype):
    network, seen = network_of(small_vitpose(), precision=precision), []
    network.model.head.conv.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    teacher = NetworkTeacher(network, check=False)
    teacher.set_student(create_model("student_xs", **SMALL))
    batch = batch_of(torch.randn(2, 3, 64, 48))
    with torch.autocast("cpu", dtype=torch.bfloat16):  # the trainer's
        output = teacher(batch)
    assert seen == [dtype]
    assert {output.heatmaps.dtype, output.visual_tokens.dtype} == {torch.float32}


def test_compile_compiles_what_runs(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function: compiled.append(function) or function)
    network = network_of(small_vitpose(), compile=True)
    assert len(compiled) == 1
    assert network(torch.zeros(1, 3, 256, 192)).heatmaps.shape == (1, 17, 64, 48)


# against transformers, end to end


def test_a_photograph_gives_the_keypoints_of_transformers():
    """Crop, network and decoding, beside transformers' processor, network and post-processing.

    The crops differ in interpolation: transformers has exact weights and no blending with the black border, OpenCV weights in
    1/32 of a pixel. Dots are found to a fraction of a pixel in spite of it; half a cell of the wrong convention would be 2
    pixels of the crop, and more of the photograph here.
    """
    rng = np.random.default_rng(0)
    boxes = np.array([[60.0, 40, 260, 300], [100, 20, 110, 330], [20, 90, 330, 180]])
    network = network_of(perfect_vitpose(FACE.names, DotFinder))
    for box in boxes:
        joints = box[:2] + rng.uniform(0.3, 0.7, (3, 2)) * box[2:]
        image = draw_dots(joints, (400, 420), sigma=8.0)
        output = NetworkSource(network)([np.ascontiguousarray(image[..., ::-1])], box[None])
        warp = output.warps[0]
        ours = np.linalg.solve(warp[:, :2], (output.cells[0] - warp[:, 2]).T).T
        processor = transformers.VitPoseImageProcessor()
        inputs = processor([image], boxes=[[box.tolist()]], return_tensors="pt")
        with torch.no_grad():
            maps = network.model(**inputs)
        ((theirs,),) = processor.post_process_pose_estimation(maps, boxes=[[box.tolist()]])
        assert np.abs(ours - theirs["keypoints"].numpy()).max() < 0.1
        assert np.abs(ours - joints).max() < 0.3


def test_crops_are_those_of_transformers():
    rng = np.random.default_rng(1)
    image = rng.integers(0, 255, (20, 25, 3)).repeat(20, 0).repeat(20, 1).astype(np.uint8)
    network, seen = network_of(small_vitpose()), []
    network.model.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    box = [100.0, 80, 230, 260]  # its crop lies in the image
    NetworkSource(network)([image[..., ::-1]], np.array([box]))
    theirs = transformers.VitPoseImageProcessor()([image], boxes=[[box]], return_tensors="pt")["pixel_values"]
    # one level of 255, and at an edge of full contrast 1/32 pixel: 255 / 32 levels
    levels = (seen[0] - theirs).abs() * torch.tensor(IMAGENET_STD)[:, None, None] * 255
    assert levels.mean() < 1
    assert levels.max() < 255 / 32 + 1


# live and recorded


def batch_of(images, joints=17):
    """A batch of these crops without labels."""
    count = len(images)
    zeros = torch.zeros(count, joints)
    return PoseBatch(images, zeros[..., None].expand(-1, -1, 2), zeros, zeros, *([torch.zeros(count)] * 5))


def test_live_trust_needs_no_labels_and_unknown_joints_have_none():
    teacher = NetworkTeacher(network_of(small_vitpose()), check=False)
    teacher.set_student(create_model("student_xs", skeleton=LEEDS, **SMALL))
    output = teacher(batch_of(torch.randn(3, 3, 64, 48), 14))
    assert output.heatmaps.shape == (3, 14, 16, 12)
    assert output.trust[:, :12].max() > 0
    assert (output.trust[:, 12:] == 0).all()
    assert output.known.tolist() == [1] * 12 + [0] * 2


def test_a_recording_equals_the_network_and_has_no_tokens(tiny_coco, tmp_path):
    root = tiny_coco(train=3, skeleton=LEEDS)
    persons = CocoKeypoints(root / "annotations" / "train.json", root / "train", input_size=(64, 48))
    source = NetworkSource(network_of(small_vitpose()))
    recording = record(source, persons, tmp_path / "recording")
    assert json.loads((recording.path / "recording.json").read_text())["source"]["convention"]["unbiased"]
    teacher = load_recorded(recording.path, check=False)
    student = create_model("student_xs", skeleton=LEEDS, **SMALL)
    teacher.set_student(student)
    batch = PoseBatch(*default_collate([persons[index] for index in range(len(persons))]))
    output = teacher(batch)
    assert output.heatmaps.shape == (len(persons), 14, 16, 12)
    assert output.visual_tokens is None
    assert output.trust[:, :12].max() > 0
    assert (output.trust[:, 12:] == 0).all()
    with pytest.raises(DistilPoseError, match=r"teacher=vitpose.*loss\.visual_token=0"):
        distil(student, DistillationLoss(**TOKENS), teacher)
    for terms in ({"divergence": 1.0}, {"marginal": 1.0}, {"moment": 1.0}, {}):
        loss = DistillationLoss(visual_token=0, keypoint_token=0, **terms)
        module = distil(student, loss, teacher)
        _, values = module.terms(batch)
        assert values["total"].isfinite()


# tokens


def test_a_student_learns_from_visual_tokens_alone():
    network = network_of(small_vitpose())
    for name, options in (("student_xs", SMALL), ("student_s", {"depth": 1})):
        student = create_model(name, **options)
        module = distil(student, DistillationLoss(**TOKENS), NetworkTeacher(network, check=False))
        # distributed training fails on parameters without a gradient
        assert [key for key, _ in module.loss.named_parameters()] == [
            "projection.visual.weight", "projection.visual.bias"
        ]  # fmt: skip
        _, terms = module.terms(batch_of(torch.randn(2, 3, *student.input_size)))
        assert terms["visual_token"] > 0
        assert terms["keypoint_token"] == 0
        terms["visual_token"].backward()
        assert all(parameter.grad is not None for parameter in module.loss.parameters())
        assert module.model.encoder.keypoint_tokens.grad is not None


def test_messages_about_tokens():
    network, student = network_of(small_vitpose()), create_model("student_xs", **SMALL)
    with pytest.raises(DistilPoseError, match=r"keypoint.*loss\.keypoint_token=0"):
        distil(student, DistillationLoss(), NetworkTeacher(network))
    with pytest.raises(DistilPoseError, match=r"\(16, 12, 32\).*loss\.project_tokens=true"):
        distil(student, DistillationLoss(keypoint_token=0), NetworkTeacher(network))
    wide = create_model("student_xs", input_size=(64, 60), **SMALL)
    with pytest.raises(DistilPoseError, match=r"256 x 192.*64 x 60.*teacher\.pad=true"):
        distil(wide, DistillationLoss(**TOKENS), NetworkTeacher(network))
    with pytest.raises(DistilPoseError, match=r"bars.*loss\.visual_token=0"):
        distil(wide, DistillationLoss(**TOKENS), NetworkTeacher(network, pad=True))
    padded = NetworkTeacher(network, pad=True)
    padded.set_student(wide)
    assert padded.token_shape is None
    assert padded(batch_of(torch.randn(1, 3, 64, 60))).visual_tokens is None


@pytest.mark.parametrize("size", [(256, 192), (128, 96), (64, 48)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_tokens_lie_where_the_students_do(size, mirrored):
    """A dot changes the token of its place, in the student's grid too.

    The network is made local: with attention and MLPs of 0, each token sees only its own patch.
    """
    model = small_vitpose()
    with torch.no_grad():
        for layer in model.backbone.encoder.layer:
            for part in (layer.attention.output.dense, layer.mlp.fc2):
                part.weight.zero_()
                part.bias.zero_()
    teacher = NetworkTeacher(network_of(model), check=False)
    student = create_model("student_xs", input_size=size, **SMALL)
    module = distil(student, DistillationLoss(**TOKENS), teacher)
    resample = module.loss.projection.resample
    for at in ((0.22, 0.35), (0.63, 0.81), (0.5, 0.5)):
        u, v = at[0] * size[1], at[1] * size[0]
        dot = draw_dots(np.array([[u, v]] * 3), size, sigma=size[0] / 40).astype(np.float32) / 255
        blank, shown = ((image - IMAGENET_MEAN) / IMAGENET_STD for image in (0 * dot, dot))
        if mirrored:
            shown, u = shown[:, ::-1], size[1] - 1 - u
        images = torch.from_numpy(np.stack([blank, shown]).astype(np.float32)).permute(0, 3, 1, 2)
        tokens = teacher(batch_of(images)).visual_tokens
        for shown_to, grid in ((tokens, (16, 12)), (resample(tokens), student.encoder.token_shape.grid)):
            change = (shown_to[1] - shown_to[0]).square().sum(-1).unflatten(0, grid)
            rows, columns = (torch.arange(count) + 0.5 for count in grid)
            x = (change.sum(0) * columns).sum() / change.sum()
            y = (change.sum(1) * rows).sum() / change.sum()
            # within half a patch
            assert abs(x - u / size[1] * grid[1]) < 0.5
            assert abs(y - v / size[0] * grid[0]) < 0.5


# loading


def test_a_folder_is_loaded_with_its_normalisation_and_digest(folder):
    teacher = load_vitpose(str(folder), expert=2)
    network = teacher.network
    assert network.name == "small"
    assert (list(network.mean), list(network.std)) == ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4])
    assert network.about["sha256"] == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert network.about["expert"] == 2
    json.dumps(network.about)
    crops = torch.randn(1, 3, 256, 192)
    expected = small_vitpose(experts=6)(crops, dataset_index=torch.tensor([2])).heatmaps.clamp(min=0)
    torch.testing.assert_close(network(crops).heatmaps, expected.detach())


def test_a_folder_has_no_revision(folder):
    with pytest.raises(DistilPoseError, match=r"small .*folder.*teacher\.revision=v1"):
        load_vitpose(str(folder), revision="v1")


def test_without_a_processor_the_normalisation_is_imagenets(copied):
    (copied / "preprocessor_config.json").unlink()
    network = load_vitpose(str(copied)).network
    assert (tuple(network.mean), tuple(network.std)) == (IMAGENET_MEAN, IMAGENET_STD)


@pytest.mark.parametrize(
    "processor",
    [
        {}, {"do_normalize": False}, {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 1.0, 1.0]},
        {"image_mean": 0.5, "image_std": 0.25},
    ],
)  # fmt: skip
def test_crops_are_normalised_as_its_processor_does_it(processor, copied):
    """Of an image without structure, which does not change when it is warped."""
    made = transformers.VitPoseImageProcessor(**processor)
    made.save_pretrained(copied)
    network = load_vitpose(str(copied)).network
    image = np.full((300, 300, 3), (200, 100, 50), np.uint8)
    expected = made(image, boxes=[[[100.0, 100.0, 60.0, 80.0]]], return_tensors="pt")["pixel_values"][0, :, 128, 96]
    pixel = (torch.tensor([200, 100, 50]) / 255 - torch.tensor(network.mean)) / torch.tensor(network.std)
    torch.testing.assert_close(pixel, expected.float(), atol=1e-5, rtol=1e-5)


def test_null_in_its_processors_file_is_the_default(copied):
    (copied / "preprocessor_config.json").write_text('{"image_mean": null, "image_std": null, "rescale_factor": null}')
    network = load_vitpose(str(copied)).network
    assert (network.mean, network.std) == (IMAGENET_MEAN, IMAGENET_STD)


def test_weights_in_half_precision_and_in_several_files(tmp_path):
    model = small_vitpose().to(torch.bfloat16)
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 1
    network = load_vitpose(str(tmp_path / "shards")).network
    assert {parameter.dtype for parameter in network.model.parameters()} == {torch.float32}
    assert len(network.about["sha256"]) == 64
    torch.testing.assert_close(network.model.head.conv.weight, model.head.conv.weight.float())


def edit_config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "facts"),
    [
        (lambda folder: (folder / "config.json").unlink(), r"config\.json.*ViTPose"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json.*JSON"),
        (lambda folder: edit_config(folder, model_type="vit"), r"no ViTPose.*'vit'"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), r"safetensors.*pickle"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99), "cannot be loaded"),
        (lambda folder: edit_config(folder, use_simple_decoder=False), r"config\.json.*head\."),
    ],
    ids=["no config", "broken config", "another network", "only a pickle", "damaged weights", "other weights"],
)
def test_a_folder_that_is_no_vitpose(copied, damage, facts):
    damage(copied)
    with pytest.raises(DistilPoseError, match=facts) as caught:
        load_vitpose(str(copied))
    assert str(copied) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_folder(tmp_path):
    with pytest.raises(DistilPoseError, match=r"nowhere.*owner/name"):
        load_vitpose(str(tmp_path / "nowhere"))


def test_without_transformers(monkeypatch, folder):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("transformers"):
            raise ModuleNotFoundError("No module named 'transformers'")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DistilPoseError, match=r"transformers.*distilpose\[vitpose\]"):
        load_vitpose(str(folder))


@pytest.mark.parametrize(("name", "revision"), [(NAME, None), (f"{NAME}@v1", None), (NAME, "v1"), (NAME, COMMIT)])
def test_a_repository_is_pinned_to_its_commit(online, name, revision):
    online[NAME]["pytorch_model.bin"] = b"pickle"
    network = load_vitpose(name, revision=revision).network
    assert network.name == "vitpose-small"
    assert (network.about["repository"], network.about["revision"]) == (NAME, COMMIT)
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.bin"))
    assert list(network.mean) == [0.5, 0.4, 0.3]


def unreachable(*args, **kwargs):
    raise urllib.error.URLError("Name or service not known")


@pytest.mark.parametrize("offline", [True, False], ids=["HF_HUB_OFFLINE", "no network"])
def test_the_cache_is_used_without_a_network(online, monkeypatch, offline):
    load_vitpose(NAME)
    online.clear()
    if offline:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    start = time.perf_counter()
    assert load_vitpose(NAME).network.about["revision"] == COMMIT
    with pytest.raises(DistilPoseError, match=r"someone/other.*(HF_HUB_OFFLINE|unreachable)"):
        load_vitpose("someone/other")
    assert time.perf_counter() - start < 20


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (lambda files: files.pop(NAME), "hf auth login"),
        (lambda files: files[NAME].pop("config.json"), r"config\.json"),
        (lambda files: files[NAME].update({"config.json": b'{"model_type": "llama"}'}), "no ViTPose.*llama"),
        (lambda files: files[NAME].update({"pytorch_model.bin": files[NAME].pop("model.safetensors")}), "pickle"),
    ],
    ids=["private or missing", "no config", "another network", "only a pickle"],
)
def test_a_repository_that_is_no_vitpose(online, change, facts):
    change(online)
    with pytest.raises(DistilPoseError, match=f"(?i){facts}") as caught:
        load_vitpose(NAME)
    assert NAME in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_check_rejects_random_weights(tiny_coco):
    root = tiny_coco(train=1)
    persons = CocoKeypoints(root / "annotations" / "train.json", root / "train", input_size=(64, 48))
    teacher = NetworkTeacher(network_of(small_vitpose(NAMES)), check_persons=4)
    teacher.set_student(create_model("student_xs", **SMALL))
    with pytest.raises(DistilPoseError, match=r"teacher\.check=false"):
        teacher.check(SimpleNamespace(val_dataset=lambda: persons))


# the commands


def test_the_record_command_and_a_training_without_labels(trained_by, folder, tmp_path):
    teach = trained_by([*TINY, "data.unlabelled=true"], train=6)
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        data = ["data=custom", f"data.root={teach.root}", "device=cpu", f"output={tmp_path / 'recording'}"]
        cfg = compose("record", [*data, "teacher=vitpose", f"teacher.name={folder}"])
    recording = record_command.main.__wrapped__(cfg)
    assert recording.maps.shape[1:] == (17, 64, 48)
    recorded = ["teacher=recorded", f"teacher.file={recording.path}", "teacher.check=false", "loss=without_tokens"]
    losses = read_table(teach("recorded", *recorded, "trainer.max_epochs=1") / "metrics.csv")
    assert losses[0]["train/simulated_heatmap"] > 0
