"""Detectors. The ONNX files are written by the tests and have constant outputs."""

from __future__ import annotations

import sys
from urllib.error import URLError

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, load, save
from torchvision.models import detection as torchvision_detection

from distilpose.errors import DistilPoseError
from distilpose.inference.detectors import TorchvisionDetector, WholeImage
from distilpose.inference.onnx_detector import OnnxDetector

# outputs of the file for its 32 x 32 input: two boxes of one person, one of another, a dog, and one of a low score
CORNERS = np.array([[4, 8, 12, 24], [5, 8, 12, 24], [20, 8, 28, 16], [0, 8, 8, 16], [16, 16, 20, 20]], np.float32)
SCORES = np.array([0.9, 0.8, 0.7, 0.95, 0.1], np.float32)
LABELS = np.array([0, 0, 0, 1, 0])
IMAGE = np.zeros((40, 80, 3), np.uint8)  # letterboxed: 32 x 16 of the input, from its row 8 on


def constant_detector(path, *outputs, kind=TensorProto.FLOAT, shape=(1, 3, 32, 32), more=()):
    """An ONNX file with an image input that gives these outputs for every image."""
    image = helper.make_tensor_value_info("images", kind, shape)
    others = [helper.make_tensor_value_info(name, kind, [1, 2]) for name in more]
    declared, nodes = [], []
    for number, value in enumerate(outputs):
        element = TensorProto.INT64 if value.dtype == np.int64 else TensorProto.FLOAT
        constant = helper.make_tensor(f"c{number}", element, value.shape, value.ravel().tolist())
        nodes.append(helper.make_node("Constant", [], [f"out{number}"], value=constant))
        declared.append(helper.make_tensor_value_info(f"out{number}", element, value.shape))
    graph = helper.make_graph(nodes, "detector", [image, *others], declared)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


def centred(corners):
    return np.c_[(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]].astype(np.float32)


def one_hot(scores, labels):
    table = np.zeros((len(scores), 3), np.float32)
    table[np.arange(len(scores)), labels] = scores
    return table


def outputs_of(layout):
    if layout == "yolo":
        return [np.c_[centred(CORNERS), one_hot(SCORES, LABELS)].T[None].copy()]
    if layout == "yolo_objectness":
        classes = one_hot(np.ones(5, np.float32), LABELS)
        return [np.c_[centred(CORNERS), SCORES, classes].astype(np.float32)[None]]
    if layout == "rows":
        return [np.c_[CORNERS, SCORES, LABELS].astype(np.float32)]
    return [CORNERS, LABELS.astype(np.int64), SCORES]


@pytest.mark.parametrize("layout", ["yolo", "yolo_objectness", "rows", "boxes_labels_scores"])
def test_each_layout_gives_the_same_persons(layout, tmp_path):
    detector = OnnxDetector(constant_detector(tmp_path / "d.onnx", *outputs_of(layout)), layout)
    detections = detector(IMAGE)
    assert detections.boxes == pytest.approx(np.array([[10, 0, 20, 40], [50, 0, 20, 20]]))
    assert detections.scores == pytest.approx([0.9, 0.7], abs=1e-6)


def test_options_of_the_outputs(tmp_path):
    shares = constant_detector(tmp_path / "d.onnx", CORNERS / 32, LABELS.astype(np.int64), SCORES)
    settings = {"layout": "boxes_labels_scores", "relative": True}
    assert len(OnnxDetector(shares, overlap=None, threshold=0.05, **settings)(IMAGE).boxes) == 4
    assert OnnxDetector(shares, person=1, **settings)(IMAGE).boxes == pytest.approx(np.array([[0, 0, 20, 20]]))
    stretched = OnnxDetector(shares, letterbox=False, **settings)(IMAGE)
    assert stretched.boxes[0] == pytest.approx([10, 10, 20, 20])
    assert len(OnnxDetector(shares, threshold=1.0, **settings)(IMAGE).boxes) == 0


@pytest.mark.parametrize("bgr", [False, True])
def test_the_input_is_the_image_scaled_and_padded(bgr, tmp_path):
    """The file returns the means of its input's channels as the corners of a box."""
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, "h", "w"])
    out = helper.make_tensor_value_info("rows", TensorProto.FLOAT, None)
    tail = helper.make_tensor("tail", TensorProto.FLOAT, [1, 3], [10, 1, 0])
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Constant", [], ["tail"], value=tail),
        helper.make_node("Concat", ["mean", "tail"], ["rows"], axis=1),
    ]
    graph = helper.make_graph(nodes, "means", [image], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    save(model, str(tmp_path / "means.onnx"))
    inputs = []
    detector = OnnxDetector(
        tmp_path / "means.onnx", "rows", (20, 40), scale=1.0, mean=(1, 2, 3), std=(2, 2, 2), bgr=bgr, letterbox=True
    )
    session, run = detector.session, detector.session.run

    class Watched:
        def run(self, names, feed):
            inputs.append(feed["images"])
            return run(names, feed)

    detector.session = Watched()
    red = np.zeros((20, 20, 3), np.uint8)
    red[..., 0] = 200
    detector(red)
    assert session is not None
    (planes,) = inputs
    assert planes.shape == (1, 3, 20, 40)
    inside, grey = planes[0, :, 10, 20], planes[0, :, 10, 0]
    assert inside.tolist() == ([-0.5, -1, 98.5] if bgr else [99.5, -1, -1.5])
    assert grey.tolist() == [56.5, 56, 55.5]


@pytest.mark.parametrize("layout", ["yolo_objectness", "boxes_labels_scores"])
def test_outputs_of_another_layout(layout, tmp_path):
    file = constant_detector(tmp_path / "d.onnx", *outputs_of("rows"))
    with pytest.raises(DistilPoseError) as error:
        OnnxDetector(file, layout, person=1)
    assert all(fact in str(error.value) for fact in ("d.onnx", "(5, 6)", f"detector.layout={layout}", "rows"))


@pytest.mark.parametrize("content", [b"not a graph", None])
def test_files_that_are_not_onnx(content, tmp_path):
    if content is not None:
        (tmp_path / "d.onnx").write_bytes(content)
    with pytest.raises(DistilPoseError, match=r"detector\.file=.*d\.onnx"):
        OnnxDetector(tmp_path / "d.onnx")


@pytest.mark.parametrize("about", [{"more": ["size"]}, {"shape": (4, 3, 32, 32)}, {"shape": (1, 1, 32, 32)}])
def test_files_with_another_input(about, tmp_path):
    with pytest.raises(DistilPoseError, match=r"d\.onnx takes . input\(s\).*expected one image"):
        OnnxDetector(constant_detector(tmp_path / "d.onnx", *outputs_of("rows"), **about), "rows")


def test_a_file_that_cannot_run_fails_when_it_is_loaded(tmp_path):
    nodes = [helper.make_node("Conv", ["images", "kernel"], ["out"])]  # larger than the input
    kernel = helper.make_tensor("kernel", TensorProto.FLOAT, [1, 3, 64, 64], [0.0] * 3 * 64 * 64)
    image, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("images", "out"))
    image.type.tensor_type.shape.CopyFrom(helper.make_tensor_type_proto(1, ["n", 3, "h", "w"]).tensor_type.shape)
    graph = helper.make_graph(nodes, "large", [image], [out], [kernel])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    save(model, str(tmp_path / "d.onnx"))
    with pytest.raises(DistilPoseError, match=r"32 x 48 pixels.*detector\.input_size"):
        OnnxDetector(tmp_path / "d.onnx", "rows", (32, 48))


def test_the_whole_image():
    assert WholeImage()(IMAGE).boxes.tolist() == [[0, 0, 80, 40]]


def test_torchvision_from_a_file(tmp_path):
    name = "ssdlite320_mobilenet_v3_large"
    torch.manual_seed(0)
    model = torchvision_detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    for layer in model.head.classification_head.module_list:  # untrained, but with high scores of persons
        layer[-1].bias.data.view(-1, 91)[:, 1] += 5
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    with torch.no_grad():
        (expected,) = model.eval()([torch.from_numpy(image).permute(2, 0, 1).float() / 255])
    persons = expected["labels"] == 1
    detections = TorchvisionDetector(name, tmp_path / "weights.pth", threshold=0.0, device="cpu")(image)
    assert 0 < len(detections.boxes) <= persons.sum()
    assert set(detections.scores.round(5).tolist()) <= set(
        expected["scores"][persons].double().numpy().round(5).tolist()
    )
    assert (detections.boxes[:, :2] + detections.boxes[:, 2:] <= [80.001, 60.001]).all()
    with pytest.raises(DistilPoseError, match=r"detector\.file=.*weights\.pth.*fasterrcnn"):
        TorchvisionDetector(file=tmp_path / "weights.pth", device="cpu")


def test_torchvision_without_a_network(monkeypatch):
    def no_network(*arguments, **options):
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models.get_model", no_network)
    with pytest.raises(DistilPoseError, match=r"no network.*detector\.file=FILE"):
        TorchvisionDetector(device="cpu")


def test_a_name_that_is_not_a_detector():
    with pytest.raises(DistilPoseError, match=r"detector\.name=resnet50 .*fasterrcnn_resnet50_fpn"):
        TorchvisionDetector("resnet50", device="cpu")


def test_onnxruntime_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DistilPoseError, match=r"detector=onnx needs onnxruntime.*distilpose\[runtime\]"):
        OnnxDetector(tmp_path / "d.onnx")


def dets(corners=CORNERS, scores=SCORES):
    return np.c_[corners, scores].astype(np.float32)[None]


def named_detector(path, outputs, metadata=None):
    """An ONNX file with outputs of these names."""
    constant_detector(path, *outputs.values())
    model = load(str(path))
    for number, name in enumerate(outputs):
        model.graph.node[number].output[0] = model.graph.output[number].name = name
    helper.set_model_props(model, metadata or {})
    save(model, str(path))
    return path


ROWS = np.c_[CORNERS, SCORES, LABELS].astype(np.float32)
YOLO = np.c_[centred(CORNERS), one_hot(SCORES, LABELS)].astype(np.float32)
MANY = np.r_[YOLO, np.zeros((15, 7), np.float32)]
FOREIGN = {
    "rtmlib": {"dets": dets(), "labels": LABELS[None].astype(np.int64)},
    "rtmlib with masks": {"dets": dets(), "labels": LABELS[None].astype(np.int64), "masks": np.zeros((1, 5, 4, 4), np.float32)},
    "torchvision": {"boxes": CORNERS, "labels": LABELS.astype(np.int64), "scores": SCORES},
    "RT-DETR": {"labels": LABELS[None].astype(np.int64), "boxes": CORNERS[None], "scores": SCORES[None]},
    "by order": {"a": CORNERS, "b": LABELS.astype(np.int64), "c": SCORES},
    "boxes and scores": {"box": CORNERS[None], "class": one_hot(SCORES, LABELS)[None]},
    "rows": {"output0": ROWS[None]},
    "torchvision's RetinaNet": {"a": CORNERS, "b": SCORES, "c": LABELS.astype(np.int64)},
    "rows with keypoints": {"output0": np.c_[ROWS, np.full((5, 51), 7.5, np.float32)][None]},
    "rows with masks": {
        "output0": np.c_[ROWS, np.full((5, 8), 0.5, np.float32)][None], "output1": np.zeros((1, 8, 4, 4), np.float32),
    },
    "few cells of one class": {
        "output0": np.r_[np.c_[centred(CORNERS), SCORES / 0.98, 0.98 * (LABELS != 1)], np.zeros((15, 6))][None].astype(
            np.float32
        ),
    },
    "yolo": {"output0": MANY.T[None].copy()},
    "yolo heads": {"p3": MANY[:10].T[None].copy(), "p4": MANY[10:].T[None].copy()},
    "yolo with masks": {
        "output0": np.c_[MANY, np.full((20, 8), 5, np.float32)].T[None].copy(), "output1": np.zeros((1, 8, 4, 4), np.float32),
    },
    "objectness heads": {
        "p3": np.r_[
            np.c_[centred(CORNERS), SCORES, one_hot(np.ones(5, np.float32), LABELS)], np.zeros((9, 8))
        ].astype(np.float32)[None],
        "p4": np.zeros((1, 4, 8), np.float32),
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
def test_the_layout_of_a_foreign_file_is_found(kind, tmp_path):
    detections = OnnxDetector(named_detector(tmp_path / "d.onnx", FOREIGN[kind]))(IMAGE)
    assert detections.boxes == pytest.approx(np.array([[10, 0, 20, 40], [50, 0, 20, 20]]))
    assert detections.scores == pytest.approx([0.9, 0.7], abs=1e-6)


@pytest.mark.parametrize("count", [0, 1])
def test_few_detections_have_the_same_layout(count, tmp_path):
    outputs = {"dets": dets()[:, :count], "labels": LABELS[None, :count].astype(np.int64)}
    detector = OnnxDetector(named_detector(tmp_path / "d.onnx", outputs))
    assert detector.layout == "dets_labels"
    assert len(detector(IMAGE).boxes) == count


def test_the_names_in_the_file_say_which_class_is_a_person(tmp_path, caplog):
    def detector(names, **options):
        outputs = {
            "output0": np.c_[MANY, np.full((20, 6), 300, np.float32)].T[None].copy()
        }  # keypoints after the classes
        return OnnxDetector(named_detector(tmp_path / "d.onnx", outputs, {"names": names}), **options)

    persons = [[10, 0, 20, 40], [50, 0, 20, 20]]
    assert detector("{0: 'person', 1: 'dog', 2: 'cat'}")(IMAGE).boxes == pytest.approx(np.array(persons))
    assert detector("['dog', 'person', 'cat']")(IMAGE).boxes == pytest.approx(np.array([[0, 0, 20, 20]]))
    assert len(detector("['dog', 'person', 'cat']", person=0)(IMAGE).boxes) == 2
    with pytest.raises(DistilPoseError, match=r"d\.onnx.*'bird'.*detector\.person=INDEX"):
        detector("{0: 'bird', 1: 'dog', 2: 'cat'}")


def test_undecoded_heads_are_an_error(tmp_path):
    outputs = {name: np.zeros((1, 3, side, side, 85), np.float32) for name, side in (("p3", 4), ("p4", 2))}
    with pytest.raises(DistilPoseError, match=r"d\.onnx.*p3 \(1, 3, 4, 4, 85\).*boxes decoded"):
        OnnxDetector(named_detector(tmp_path / "d.onnx", outputs))


def test_pixels_of_rtmlib_are_not_divided(tmp_path, caplog):
    file = named_detector(tmp_path / "d.onnx", FOREIGN["rtmlib"])
    OnnxDetector(file)
    assert "detector=rtmlib_yolox" in caplog.text
    caplog.clear()
    OnnxDetector(file, scale=1.0)
    assert "rtmlib_yolox" not in caplog.text


def test_rows_of_boxes_and_classes_are_not_read_as_objectness(tmp_path):
    """As ultralytics exports RT-DETR: shares of the input, without objectness, (1, N, 4 + classes)."""
    names = {"names": "{0: 'person', 1: 'dog', 2: 'cat'}"}
    table = np.r_[YOLO, np.zeros((15, 7), np.float32)]
    shares = table * np.float32([1 / 32] * 4 + [1] * 3)
    persons = np.array([[10, 0, 20, 40], [50, 0, 20, 20]])
    assert OnnxDetector(named_detector(tmp_path / "p.onnx", {"o": table[None]}, names))(IMAGE).boxes == pytest.approx(
        persons
    )
    file = named_detector(tmp_path / "s.onnx", {"o": shares[None]}, names)
    assert OnnxDetector(file, relative=True)(IMAGE).boxes == pytest.approx(persons)
    with pytest.raises(
        DistilPoseError, match=r"s\.onnx gives boxes .* at most 0\.75.*32 x 32 pixels.*detector\.relative=true"
    ):
        OnnxDetector(file)
    with pytest.raises(
        DistilPoseError, match=r"relative=true, but .*p\.onnx gives boxes with centres up to 24.*pixels"
    ):
        OnnxDetector(tmp_path / "p.onnx", relative=True)


@pytest.mark.parametrize(
    ("outputs", "fact"),
    [
        (
            {"logits": np.full((1, 9, 8), -2.5, np.float32), "pred_boxes": np.full((1, 9, 4), 0.5, np.float32)},
            "knows no layout",
        ),
        ({"output": np.c_[np.zeros(5), CORNERS, LABELS, SCORES].astype(np.float32)}, "knows no layout"),
        ({"dets": np.c_[LABELS, SCORES, CORNERS].astype(np.float32), "count": np.array([5])}, "knows no layout"),
        ({"box": CORNERS[None], "class": 8 * one_hot(SCORES, LABELS)[None] - 4}, "scores are -3.2 to 3.6 instead of 0 to 1"),
        (
            {"o": np.c_[YOLO, np.full((5, 9), 20, np.float32)].repeat(4, 0).T[None].copy()},
            "scores are 20 to 20 instead of 0 to 1",
        ),
        ({"o": np.full((1, 40, 8), 0.9, np.float32)}, "at most 0.9.*decode_in_inference"),
    ],
    ids=["logits of DETR", "rows of YOLOv7", "rows of Paddle", "logits", "keypoints without names", "undecoded YOLOX"],
)  # fmt: skip
def test_other_outputs_are_not_read_as_boxes(outputs, fact, tmp_path):
    with pytest.raises(DistilPoseError, match=f"(?s)d\\.onnx.*{fact}"):
        OnnxDetector(named_detector(tmp_path / "d.onnx", outputs))


def test_channels_last_of_any_size_are_not_taken_for_a_width_of_three(tmp_path):
    file = constant_detector(tmp_path / "d.onnx", *outputs_of("rows"), kind=TensorProto.UINT8, shape=(1, "h", "w", 3))
    with pytest.raises(DistilPoseError, match=r"d\.onnx takes 1 input.*expected one image"):
        OnnxDetector(file)
