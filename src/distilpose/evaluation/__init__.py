"""Evaluation: flip test, rescoring, OKS, suppression of doubles, COCO average precision and PCK."""

from distilpose.evaluation.coco_ap import COCO_METRICS, coco_metrics, load_coco
from distilpose.evaluation.flip import FlipTest, check_flip_test, predict_crops, predict_crops_each
from distilpose.evaluation.mean_pose import mean_pose, predict_mean_pose
from distilpose.evaluation.oks import oks, oks_nms, padded_area
from distilpose.evaluation.pck import PCK, pck
from distilpose.evaluation.protocol import (
    Evaluation,
    check_finite,
    choose_device,
    concatenate,
    evaluate_dataset,
    pck_of_predictions,
    predict_batch,
    predict_batches,
    result_rows,
    score_dataset,
    score_predictions,
    truth_of,
)
from distilpose.evaluation.rescoring import rescore
from distilpose.evaluation.results import load_results, markdown_table, to_rows

__all__ = [
    "COCO_METRICS",
    "PCK",
    "Evaluation",
    "FlipTest",
    "check_finite",
    "check_flip_test",
    "choose_device",
    "coco_metrics",
    "concatenate",
    "evaluate_dataset",
    "load_coco",
    "load_results",
    "markdown_table",
    "mean_pose",
    "oks",
    "oks_nms",
    "padded_area",
    "pck",
    "pck_of_predictions",
    "predict_batch",
    "predict_batches",
    "predict_crops",
    "predict_crops_each",
    "predict_mean_pose",
    "rescore",
    "result_rows",
    "score_dataset",
    "score_predictions",
    "to_rows",
    "truth_of",
]
