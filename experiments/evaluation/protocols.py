"""The protocols by name."""

from __future__ import annotations

from experiments.evaluation.clicks import ClickScorer
from experiments.evaluation.objects import ObjectScorer
from experiments.evaluation.oracle import OracleScorer
from experiments.evaluation.scorer import Scorer

SCORERS: dict[str, type[Scorer]] = {
    "object_iou": ObjectScorer, "grabcut_error": ObjectScorer, "clicks": ClickScorer, "oracle": OracleScorer,
}  # fmt: skip
