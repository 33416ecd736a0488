"""Evaluation: flip test, rescoring, OKS, non-maximum suppression, COCO average precision and PCK."""

from distilpose.evaluation.available import check_monitored, persons_by_metric
from distilpose.evaluation.calibration import calibration, calibration_of_sigmas, spearman
from distilpose.evaluation.checks import check_finite, check_same_joints, choose_device
from distilpose.evaluation.coco_ap import COCO_METRICS, beyond_limit, coco_metrics, load_coco
from distilpose.evaluation.error_types import (
    ERROR_TYPES,
    NEAR,
    People,
    error_types,
    keypoint_similarity,
    oks_sigmas,
    people_of,
    shares_of_types,
)
from distilpose.evaluation.flip_test import FlipTest, predict_crops, predict_crops_each
from distilpose.evaluation.mean_pose import MEAN_POSE, mean_pose, predict_mean_pose
from distilpose.evaluation.oks import oks
from distilpose.evaluation.orientation import is_upright, pck_by_orientation
from distilpose.evaluation.pck import PCK, allowed_distance, pck
from distilpose.evaluation.protocol import (
    Evaluation,
    concatenate,
    evaluate_dataset,
    predict_batch,
    predict_batches,
    result_rows,
    score_dataset,
    truth_of,
)
from distilpose.evaluation.reliability import ScoreMap, fit_score_map, fitted_to_another, reliability
from distilpose.evaluation.rescoring import best_persons, rescore
from distilpose.evaluation.results import SHARES, has_value, load_results, markdown_table, of_category, to_rows

__all__ = [
    "COCO_METRICS",
    "ERROR_TYPES",
    "MEAN_POSE",
    "NEAR",
    "PCK",
    "SHARES",
    "Evaluation",
    "FlipTest",
    "People",
    "ScoreMap",
    "allowed_distance",
    "best_persons",
    "beyond_limit",
    "calibration",
    "calibration_of_sigmas",
    "check_finite",
    "check_monitored",
    "check_same_joints",
    "choose_device",
    "coco_metrics",
    "concatenate",
    "error_types",
    "evaluate_dataset",
    "fit_score_map",
    "fitted_to_another",
    "has_value",
    "is_upright",
    "keypoint_similarity",
    "load_coco",
    "load_results",
    "markdown_table",
    "mean_pose",
    "of_category",
    "oks",
    "oks_sigmas",
    "pck",
    "pck_by_orientation",
    "people_of",
    "persons_by_metric",
    "predict_batch",
    "predict_batches",
    "predict_crops",
    "predict_crops_each",
    "predict_mean_pose",
    "reliability",
    "rescore",
    "result_rows",
    "score_dataset",
    "shares_of_types",
    "spearman",
    "to_rows",
    "truth_of",
]
