"""Several teachers at once."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dots import FACE, SMALL, DotFinder, expectation, make_network, views, write_persons
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from vitposes import small_vitpose

from distilpose import create_model
from distilpose.errors import DistilPoseError
from distilpose.losses import DistillationLoss
from distilpose.modules import DistillationModule, FrozenTeacher
from distilpose.outputs import PoseBatch
from distilpose.skeleton import COCO, Skeleton
from distilpose.teachers.convention import Convention
from distilpose.teachers.labels import LabelTeacher
from distilpose.teachers.module import ModuleNetwork
from distilpose.teachers.network import NetworkSource, NetworkTeacher
from distilpose.teachers.recorded import RecordedTeacher
from distilpose.teachers.recorder import record
from distilpose.teachers.several import SeveralSources, SeveralTeachers, load_several, merge, union_of
from distilpose.teachers.vitpose import VitPoseNetwork

NAMES = ("left_eye", "tail")


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["maximum", "product"]))
def test_merging_against_a_loop(seed, rule):
    draw = np.random.default_rng(seed)
    maps, trusts = draw.random((3, 2, 4, 3, 3)), draw.random((3, 2, 4)).round(1)
    known = draw.integers(0, 2, (3, 4)).astype(float)
    merged, trust = merge(*([torch.from_numpy(one) for one in group] for group in (maps, trusts, known)), rule)
    for person in range(2):
        for joint in range(4):
            knowing = [teacher for teacher in range(3) if known[teacher, joint]]
            weights = [trusts[teacher, person, joint] for teacher in knowing]
            total = sum(weights)
            expected = sum(
                (weight / total * maps[teacher, person, joint] for teacher, weight in zip(knowing, weights, strict=True))
                if total > 0 else [], np.zeros((3, 3)),
            )  # fmt: skip
            np.testing.assert_allclose(merged[person, joint].numpy(), expected, atol=1e-12)
            wanted = (max if rule == "maximum" else np.prod)(weights) if knowing else 0
            assert trust[person, joint].item() == pytest.approx(wanted)


def test_union_of_joints():
    face = Skeleton.from_names(["LeftEye", "tail"])
    assert union_of([COCO, face]).names == (*COCO.names, "tail")
    assert union_of([face, COCO]).names[:2] == ("LeftEye", "tail")
    assert union_of([face, COCO]).num_keypoints == 18


@pytest.fixture
def persons(tmp_path):
    return write_persons(tmp_path)


def blind_network():
    """It knows the left eye, where it sees nothing, and a joint that the student lacks."""
    network = make_network("release")
    blind = ModuleNetwork(lambda crops: torch.zeros(len(crops), 2, 64, 48), "blind", (256, 192), NAMES)
    assert network.skeleton.names != blind.skeleton.names
    return blind


def test_live_teachers_of_different_crops_agree(persons):
    batch, truth = views(*persons, (256, 192), True, 20.0)
    parts = {kind: NetworkTeacher(make_network(kind), pad=True) for kind in ("udp", "square with an offset")}
    teacher = SeveralTeachers(parts)
    teacher.set_student(create_model("student_xs", skeleton=FACE, input_size=(256, 192), **SMALL))
    output = teacher(batch)
    assert (expectation(output.heatmaps) - truth).abs().max() < 0.05
    assert output.trust.min() > 0.8
    assert teacher.name == "udp and square with an offset"


def test_each_joint_is_learnt_from_the_one_that_sees_it(persons):
    batch, truth = views(*persons, (256, 192), False, 0.0)
    student = create_model("student_xs", skeleton=FACE, input_size=(256, 192), **SMALL)
    for rule, least in (("maximum", 0.8), ("product", 0.0)):
        parts = {"blind": NetworkTeacher(blind_network()), "seeing": NetworkTeacher(make_network("udp"))}
        teacher = SeveralTeachers(parts, rule)
        teacher.set_student(student)
        output = teacher(batch)
        assert (expectation(output.heatmaps) - truth).abs().max() < 0.05
        assert output.trust[:, 0].min() >= least
        assert (output.trust[:, 0].max() == 0) == (rule == "product")  # one teacher's doubt
        assert output.trust[:, 1:].min() > 0.8  # the other does not know them


def test_labels_and_a_network(persons):
    batch, truth = views(*persons, (256, 192), False, 0.0)
    teacher = SeveralTeachers({"labels": LabelTeacher(), "network": NetworkTeacher(make_network("udp"))})
    teacher.set_student(create_model("student_xs", skeleton=FACE, input_size=(256, 192), **SMALL))
    assert (expectation(teacher(batch).heatmaps) - truth).abs().max() < 0.05


def test_recorded_as_one_source(persons, tmp_path):
    sources = [NetworkSource(make_network(kind)) for kind in ("square with an offset", "udp")]
    source = SeveralSources([*sources, NetworkSource(blind_network())])
    recorded = RecordedTeacher(record(source, persons[0], tmp_path / "recording"), check=False)
    recorded.set_student(create_model("student_xs", skeleton=FACE, input_size=(128, 96), **SMALL))
    for mirrored, rotation in ((False, 0.0), (True, 30.0)):
        batch, truth = views(*persons, (128, 96), mirrored, rotation)
        output = recorded(batch)
        assert (expectation(output.heatmaps) - truth).abs().max() < 0.05
        assert output.trust.min() > 0.8


def test_the_noise_floor_of_a_source_that_states_none_is_as_if_recorded_alone(persons, tmp_path):
    """Such as BlazePose's."""
    source = NetworkSource(make_network("udp"))
    del source.about["floor"]
    softmax = NetworkSource(make_network("release"))
    softmax.about["floor"] = 0.0
    alone, both = (
        RecordedTeacher(record(one, persons[0], tmp_path / name), check=False)
        for one, name in ((source, "alone"), (SeveralSources([softmax, source]), "both"))
    )
    assert both.floor == alone.floor > 0


def test_a_peak_beyond_the_map_of_the_first_has_no_trust(tmp_path):
    """The first sees the box alone; the nose is above it, where only the second sees it."""
    dataset, joints = write_persons(tmp_path, count=1)
    highest = int(joints[0, :, 1].argmin())
    x, y = joints[0, highest]
    box = np.array([[x - 50, y + 30, 100, 100]])
    image = dataset.read_image(int(dataset.instances.image_ids[0]))
    blind = ModuleNetwork(
        lambda crops: torch.zeros(len(crops), 3, 64, 64), "blind", (256, 256), FACE.names, padding=1.0
    )
    wide = Convention.by_ratio((256, 192), (64, 48), padding=2.0)
    seeing = ModuleNetwork(DotFinder(wide), "seeing", wide.input_size, FACE.names, padding=wide.padding)
    sources = [NetworkSource(network) for network in (blind, seeing)]
    assert sources[1]([image], box).trust[0, highest] > 0.8
    assert SeveralSources(sources)([image], box).trust[0, highest] == 0
    assert SeveralSources(sources[::-1])([image], box).trust[0, highest] > 0.8


def test_the_cost_is_the_sum():
    layer = torch.nn.Conv2d(3, 2, 4, stride=4)
    network = ModuleNetwork(layer, "conv", (256, 192), NAMES)
    expected = 64 * 48 * 2 * 3 * 4 * 4 / 1e9
    one = NetworkTeacher(network)
    assert one.gmacs() == pytest.approx(expected)
    inner = SeveralTeachers({"one": one, "two": LabelTeacher()})
    assert SeveralTeachers({"inner": inner, "more": one}).gmacs() == pytest.approx(2 * expected)


@pytest.mark.parametrize("first", ["vitpose", "checkpoint"])
def test_keypoint_tokens_are_those_of_the_first_with_tokens(first):
    torch.manual_seed(0)
    checkpoint = FrozenTeacher(create_model("teacher_xs", **SMALL), resize=True)
    vitpose = NetworkTeacher(VitPoseNetwork(small_vitpose(), "vitpose", {}))
    parts = {"vitpose": vitpose, "checkpoint": checkpoint}
    parts = {"labels": LabelTeacher(), first: parts.pop(first), **parts}
    student = create_model("student_xs", **SMALL)
    teacher, loss = SeveralTeachers(parts), DistillationLoss(project_tokens=True)
    if first == "vitpose":
        with pytest.raises(DistilPoseError, match=r"vitpose.*keypoint tokens.*loss\.keypoint_token=0"):
            DistillationModule(student, loss, teacher, optimizer=torch.optim.Adam)
        return
    module = DistillationModule(student, loss, teacher, optimizer=torch.optim.Adam)
    zeros = torch.zeros(2, 17)
    images = torch.randn(2, 3, *student.input_size)
    batch = PoseBatch(images, zeros[..., None].expand(-1, -1, 2), zeros, zeros, *([torch.zeros(2)] * 5))
    assert module.terms(batch)[1]["keypoint_token"] > 0


def test_one_teacher_is_not_several():
    with pytest.raises(DistilPoseError, match=r"1 teacher.*teacher@teacher\.second"):
        load_several(data=None, first=LabelTeacher())


def of_checkpoint(**settings):
    return OmegaConf.create({"_target_": "distilpose.modules.load_teacher", "checkpoint": None, **settings})


@pytest.mark.parametrize(
    ("parts", "facts"),
    [
        ({"second": None}, r"teacher\.second=null.*teacher@teacher\.second=KIND.*~teacher\.second"),
        ({"second": LabelTeacher(), "least_trust": 0.5}, r"teacher\.least_trust=0\.5.*teacher\.first\.least_trust"),
        ({"second": of_checkpoint(checkpoint="???")}, r"teacher\.second\.checkpoint is not set: give teacher"),
        ({"second": of_checkpoint()}, r"teacher\.second\.checkpoint is not set.*teacher\.second\.checkpoint=FILE"),
        ({"second": of_checkpoint(checkpoint="absent.ckpt")}, r"^teacher\.second: .*absent\.ckpt"),
    ],
    ids=["null", "a setting", "missing", "a checkpoint that is not set", "a missing file"],
)
def test_what_is_no_teacher_is_named(parts, facts):
    with pytest.raises(DistilPoseError, match=facts) as caught:
        load_several(data=None, first=LabelTeacher(), **parts)
    assert "\n" not in str(caught.value)


def test_errors_of_a_part_name_its_settings(persons):
    teacher = SeveralTeachers({"labels": LabelTeacher(), "square": NetworkTeacher(make_network("square, udp, coarse"))})
    student = create_model("student_xs", skeleton=FACE, input_size=(256, 192), **SMALL)
    with pytest.raises(DistilPoseError, match=r"pass teacher\.square\.pad=true"):
        teacher.set_student(student)
    blind = SeveralTeachers({"labels": LabelTeacher(), "blind": NetworkTeacher(blind_network())})
    blind.set_student(student)
    with pytest.raises(DistilPoseError, match=r"teacher\.blind\.check=false"):
        blind.check(SimpleNamespace(val_dataset=lambda: persons[0]))


def test_parts_are_made_from_settings_or_for_data():
    labels = OmegaConf.create({"_target_": "distilpose.modules.LabelTeacher", "sigma": 3.0})
    seen = []
    made = load_several(data="data", first=labels, second=partial(lambda data: seen.append(data) or LabelTeacher()))
    assert [part.sigma for part in made.parts] == [3.0, 1.0]
    assert seen == ["data"]
