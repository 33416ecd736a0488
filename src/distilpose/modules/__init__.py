"""LightningModules: `HeatmapModule` trains a teacher, `DistillationModule` a student."""

from distilpose.modules.distillation import DistillationModule
from distilpose.modules.heatmap import HeatmapModule
from distilpose.modules.teacher import FrozenTeacher, check_teacher, load_teacher

__all__ = ["DistillationModule", "FrozenTeacher", "HeatmapModule", "check_teacher", "load_teacher"]
