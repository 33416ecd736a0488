"""Joint names of many tools: sides, pairs, what has no side, and pairs that a file states."""

from __future__ import annotations

import logging
import random

import pytest

from distilpose.errors import DistilPoseError
from distilpose.joint_names import split_names
from distilpose.skeleton import COCO, COCO_NAMES, Skeleton

PARTS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle", "eye", "ear")
STYLES = {
    "coco, mmpose": lambda side, part: f"{side}_{part}",
    "mediapipe": lambda side, part: f"{side}_{part}".upper(),
    "openpose, alphapose": lambda side, part: side[0].upper() + part.capitalize(),
    "human3.6m": lambda side, part: f"{side[0].upper()}_{part.capitalize()}",
    "mpii": lambda side, part: f"{side[0]} {part}",
    "kinect": lambda side, part: f"{part}_{side}".upper(),
    "camel": lambda side, part: side + part.capitalize(),
    "camel letter": lambda side, part: side[0] + part.capitalize(),
    "camel end": lambda side, part: part + side.capitalize(),
    "capitals, end": lambda side, part: part.capitalize() + side.capitalize(),
    "letter at the end": lambda side, part: part + side[0].upper(),
    "blender": lambda side, part: f"{part}.{side[0].upper()}",
    "blender copy": lambda side, part: f"{part}.{side[0].upper()}.001",
    "unreal": lambda side, part: f"{part}_{side[0]}",
    "glued letter": lambda side, part: side[0] + part,
    "glued capital": lambda side, part: side[0].upper() + part,
    "all capitals": lambda side, part: (side[0] + part).upper(),
    "glued word": lambda side, part: side + part,
    "glued word at the end": lambda side, part: part + side,
    "deeplabcut": lambda side, part: f"{side}{part}",
    "hyphens": lambda side, part: f"{side}-{part}",
    "letter and space": lambda side, part: f"{side[0].upper()} {part.capitalize()}",
    "short words": lambda side, part: f"{'Lt' if side == 'left' else 'Rt'} {part}",
    "mixamo": lambda side, part: f"mixamorig:{side.capitalize()}{part.capitalize()}",
    "halpe": lambda side, part: f"{side[0].upper()}Big{part.capitalize()}",
    "vicon": lambda side, part: (side[0] + part[:3]).upper(),
    "brackets": lambda side, part: f"{part} ({side})",
}


@pytest.mark.parametrize("style", STYLES)
def test_pairs_of_every_style(style):
    """All pairs are found in any order, beside joints of the middle of the body, which have no side."""
    draw = random.Random(style)
    for count in range(1, len(PARTS) + 1):
        parts = draw.sample(PARTS, count)
        sided = {STYLES[style](side, part): (side, part) for part in parts for side in ("left", "right")}
        names = [*sided, "nose", "neck", "head_top", "pelvis"]
        draw.shuffle(names)
        skeleton = Skeleton.from_names(names)
        assert len(skeleton.flip_pairs) == count
        for a, b in skeleton.flip_pairs:
            assert sided[names[a]][1] == sided[names[b]][1]
            assert {sided[names[a]][0], sided[names[b]][0]} == {"left", "right"}
        assert skeleton.sides == [sided[name][0] if name in sided else "centre" for name in names]
        assert not skeleton.unpaired


@pytest.mark.parametrize("style", [style for style in STYLES if style not in ("mixamo", "halpe", "blender copy")])
def test_every_style_matches_coco(style):
    names = [STYLES[style](side, part) for part in PARTS for side in ("left", "right")]
    skeleton = Skeleton.from_names(names)
    matched = skeleton.matching(COCO)
    expected = [COCO_NAMES.index(f"{side}_{part}") for part in PARTS for side in ("left", "right")]
    assert matched == expected
    assert skeleton.sigmas == tuple(COCO.sigmas[index] for index in expected)
    coco_upper = {COCO_NAMES[index] for index in COCO.upper_body}
    assert [COCO_NAMES[expected[index]] for index in skeleton.upper_body] == [
        COCO_NAMES[index] for index in expected if COCO_NAMES[index] in coco_upper
    ]
    assert skeleton.pair_of("shoulder") == [0, 1]


@pytest.mark.parametrize(
    "names",
    [
        ["左肩", "右肩", "右膝", "左膝"], ["肩_左", "肩_右", "腰(右)", "腰(左)"], ["왼쪽 어깨", "오른쪽 어깨"],
        ["linke Schulter", "rechte Schulter", "rechtes Knie", "linkes Knie"], ["Schulter links", "Schulter rechts"],
        ["epaule_gauche", "epaule_droite", "genou_droit", "genou_gauche"], ["HombroIzquierdo", "HombroDerecho"],
        ["rodilla izquierda", "rodilla derecha"], ["ombro_esquerdo", "ombro_direito"], ["spalla_sinistra", "spalla_destra"],
        ["левое_плечо", "правое_плечо"],
    ],
)  # fmt: skip
def test_pairs_in_other_languages(names):
    skeleton = Skeleton.from_names([*names, "头顶", "Nase", "nez"])
    assert skeleton.flip_pairs == tuple((k, k + 1) for k in range(0, len(names), 2))
    assert {skeleton.sides[k] for k in skeleton.flip_pairs[0]} == {"left", "right"}
    assert not skeleton.unpaired
    missing = Skeleton.from_names([*names, "右肘", "左肘", "右踝"])
    assert missing.unpaired == ["右踝"]


def test_words_of_other_languages_need_their_counterpart():
    for name in ("links", "gauche", "main droite", "左", "右侧线"):
        assert Skeleton.from_names([name, "nose", "left_hip", "right_hip"]).sides[0] == "centre"


NO_SIDE = [
    "lowerlip", "upperlip", "lip", "rib", "larynx", "leftover", "root", "lumbar", "rear_leg", "radius", "elbow", "ball", "rump",
    "upright", "brightness", "cleft", "liver", "tail", "withers", "clavicular", "T10", "C7", "CLAV", "STRN", "RBAK", "L5",
    "rotor", "lens", "molar", "collar", "pedal", "throat", "Reference", "lower_back", "middle", "navel",
]  # fmt: skip


@pytest.mark.parametrize(
    "beside", [[], list(COCO_NAMES), ["LHip", "RHip", "LKnee", "RKnee"], ["lhip", "rhip", "lknee", "rknee"]]
)
def test_names_without_a_side(beside):
    names = [*beside, *NO_SIDE]
    assert [joint.side for joint in split_names(names)][len(beside) :] == ["centre"] * len(NO_SIDE)
    assert not Skeleton.from_names(names).unpaired


def test_names_of_four_legs():
    names = ["L_F_Paw", "R_F_Paw", "L_R_Paw", "R_R_Paw", "fl", "fr", "rl", "rr", "Left1", "Left2", "Right1", "Right2"]
    pairs = {frozenset((names[a], names[b])) for a, b in Skeleton.from_names(names).flip_pairs}
    expected = [
        ("L_F_Paw", "R_F_Paw"),
        ("L_R_Paw", "R_R_Paw"),
        ("fl", "fr"),
        ("rl", "rr"),
        ("Left1", "Right1"),
        ("Left2", "Right2"),
    ]
    assert pairs == set(map(frozenset, expected))


@pytest.mark.parametrize(
    ("names", "unpaired"),
    [
        (["left_eye", "right_eye", "left_ear"], ["left_ear"]),
        (["leftear", "nose"], ["leftear"]),
        (["LHip", "RHip", "LKnee"], ["LKnee"]),
        (["lhip", "rhip", "rknee"], ["rknee"]),
        (["left_hip", "right_knee"], ["left_hip", "right_knee"]),
        (["lhip", "nose"], []),  # a letter counts only beside its counterpart
    ],
)
def test_sides_without_a_counterpart(names, unpaired):
    assert Skeleton.from_names(names).unpaired == unpaired
    assert Skeleton.from_names(names, flip_pairs=[[0, 1]]).unpaired == [n for n in unpaired if n not in names[:2]]


def test_matching_across_tools():
    assert Skeleton.from_names(["lhip", "nose"]).matching(COCO) == [None, 0]  # lhip alone has no side
    assert Skeleton.from_names(["l_hip"]).matching(Skeleton.from_names(["r_hip", "l_hip"])) == [1]
    for name in (
        "hip.L",
        "hip_l",
        "L-Hip",
        "Hip_Lt",
        "hipLeft",
    ):  # its counterpart is in the other set, in another style
        assert Skeleton.from_names([name]).matching(COCO) == [11]
    assert Skeleton.from_names(["HeadTop"]).matching(Skeleton.from_names(["neck", "head_top"])) == [1]


def category(names, pairs):
    return {"id": 1, "name": "a", "keypoints": list(names), "flip_pairs": pairs}


@pytest.mark.parametrize("placeholder", [[], [[k, k] for k in range(17)]])
def test_placeholders_leave_the_pairs_to_the_names(placeholder, caplog):
    names = [f"{name}_{len(placeholder)}" for name in COCO_NAMES]  # a message is logged once
    with caplog.at_level(logging.WARNING):
        skeleton = Skeleton.from_category(category(names, placeholder))
        Skeleton.from_category(category(names, placeholder))
    assert skeleton.flip_pairs == COCO.flip_pairs
    (message,) = [record.getMessage() for record in caplog.records]
    assert "lists 0 pairs" in message
    assert "names state 8" in message


def test_a_chosen_absence_of_pairs_stays(caplog):
    assert Skeleton.from_category(category(COCO_NAMES, [[1, 2]]), flip_pairs=[]).flip_pairs == ()
    assert "sets 0 pairs, of which 0 are among the 8" in caplog.text
    # objects without sides, and checkpoints
    assert Skeleton.from_category(category(["top", "bottom"], [])).flip_pairs == ()
    assert Skeleton.from_dict({"names": list(COCO_NAMES), "flip_pairs": []}).flip_pairs == ()


@pytest.mark.parametrize("pairs", [[[1, 4]], [[2, 3], [4, 5]], [[5, 7]], [[0, 1]]])
def test_pairs_against_the_names(pairs):
    """Paired with another joint, counted from 1, both of one side, and a side with the middle."""
    with pytest.raises(DistilPoseError, match=r"flip_pairs pairs \w+ with \w+ .*data\.skeleton\.flip_pairs"):
        Skeleton.from_category(category(COCO_NAMES, pairs))


def test_pairs_that_names_do_not_state_are_taken():
    assert Skeleton.from_category(category(["a", "b", "c"], [[2, 0]])).flip_pairs == ((0, 2),)
    assert Skeleton.from_category(category(["left_sholder", "right_shoulder"], [[0, 1]])).flip_pairs == ((0, 1),)


def test_the_log_line_of_the_pairs():
    assert COCO.describe_pairs().startswith("8 flip pairs: left_eye / right_eye, ")
    assert "No flip pairs" in Skeleton.from_names(["tail", "horn"]).describe_pairs()


@pytest.mark.parametrize(
    "limbs", [[[0, 1], [15, 16]], [[1, 2], [16, 17]], [["nose", "left_eye"], ["left_ankle", "right_ankle"]]]
)
def test_limbs_counted_from_zero_or_one_or_named(limbs):
    category = {"keypoints": list(COCO_NAMES), "skeleton": limbs}
    assert Skeleton.from_category(category).limbs == ((0, 1), (15, 16))


def test_limbs_of_names_are_not_moved_with_numbers_from_zero():
    category = {"keypoints": list(COCO_NAMES), "skeleton": [[0, 1], ["nose", "left_eye"], ["left_ankle", 16]]}
    assert Skeleton.from_category(category).limbs == ((0, 1), (0, 1), (15, 16))


def test_limbs_that_fit_neither_count():
    with pytest.raises(DistilPoseError, match="limbs"):
        Skeleton.from_category({"keypoints": list(COCO_NAMES), "skeleton": [[0, 1], [16, 17]]})


@pytest.mark.parametrize("ratio", [2, 10])
def test_sigmas_that_are_a_multiple_of_cocos(ratio):
    """pycocotools' source lists ten times the sigmas, and the formula of OKS has twice each."""
    category = {"keypoints": list(COCO_NAMES), "OKS_sigmas": [ratio * sigma for sigma in COCO.sigmas]}
    with pytest.raises(DistilPoseError, match=rf"{ratio} times those of COCO for all 17 joints.*divide"):
        Skeleton.from_category(category)
    with pytest.raises(DistilPoseError, match=rf"{ratio} times"):
        Skeleton.from_category({"keypoints": list(COCO_NAMES)}, sigmas=category["OKS_sigmas"])
    eyes = {"keypoints": ["left_eye", "right_eye"], "OKS_sigmas": [0.05, 0.05]}  # two times COCO's, by choice
    assert Skeleton.from_category(eyes).sigmas == (0.05, 0.05)
    own = [0.05] * 17
    assert Skeleton.from_category({**category, "OKS_sigmas": own}).sigmas == tuple(own)
    assert Skeleton.from_category({**category, "OKS_sigmas": COCO.sigmas}).sigmas == COCO.sigmas


def test_flip_pairs_of_names():
    names = ["nose", "near_eye", "far_eye", "left_hip", "right_hip"]
    category = {"keypoints": names, "flip_pairs": [["near_eye", "far_eye"], ["left_hip", "right_hip"]]}
    assert Skeleton.from_category(category).flip_pairs == ((1, 2), (3, 4))
    assert Skeleton.from_category({"keypoints": names}, flip_pairs=category["flip_pairs"]).flip_pairs == (
        (1, 2),
        (3, 4),
    )
    with pytest.raises(DistilPoseError, match="left_hip"):
        Skeleton.from_category({**category, "flip_pairs": [["nose", "left_hip"]]})


HALPE = (  # body and feet
    "Nose LEye REye LEar REar LShoulder RShoulder LElbow RElbow LWrist RWrist LHip RHip LKnee Rknee LAnkle RAnkle Head Neck Hip"
    " LBigToe RBigToe LSmallToe RSmallToe LHeel RHeel"
)


@pytest.mark.parametrize("backwards", [False, True])
def test_a_counterpart_in_another_style(backwards):
    """Halpe's files write LKnee, but Rknee."""
    names = HALPE.split()[:: -1 if backwards else 1]
    by_name = dict(zip(names, split_names(names), strict=True))
    assert by_name["Rknee"] == ("right", "knee")
    assert by_name["LKnee"] == ("left", "knee")
    assert Skeleton.from_names(names).num_keypoints == 26
    assert len(Skeleton.from_names(names).flip_pairs) == 11


def test_a_word_that_begins_with_a_side_is_no_second_counterpart():
    names = ["l_ear", "r_ear", "rear", "rib", "l_hip", "r_hip"]
    assert [joint.side for joint in split_names(names)] == ["left", "right", "centre", "centre", "left", "right"]
