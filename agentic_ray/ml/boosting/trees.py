"""LightGBM's trees as those of scikit-learn's histogram gradient boosting."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor


def predictors_of(model: str, outputs: int) -> list[list[TreePredictor]]:
    """The trees of a model of LightGBM's, as scikit-learn keeps them: by iteration and output."""
    import lightgbm

    trees = lightgbm.Booster(model_str=model).dump_model()["tree_info"]
    made = [_predictor(tree["tree_structure"]) for tree in trees]
    return [made[at : at + outputs] for at in range(0, len(made), outputs)]


def _predictor(root: dict[str, Any]) -> TreePredictor:
    """Make a tree. A node's children come after it, the left one first."""
    rows: list[tuple[Any, ...]] = []
    pending: list[tuple[dict[str, Any], int, int, str]] = [(root, 0, -1, "")]
    links: dict[tuple[int, str], int] = {}
    while pending:
        node, depth, parent, side = pending.pop()
        at = len(rows)
        if parent >= 0:
            links[parent, side] = at
        if "split_feature" not in node:
            count = node.get("leaf_count", 0)
            rows.append((node["leaf_value"], count, 0, 0.0, 0, 0.0, depth, 1))
            continue
        rows.append(
            (
                node["internal_value"],
                node["internal_count"],
                node["split_feature"],
                float(node["threshold"]),
                _missing_goes_left(node),
                node["split_gain"],
                depth,
                0,
            )
        )
        pending.append((node["right_child"], depth + 1, at, "right"))
        pending.append((node["left_child"], depth + 1, at, "left"))
    nodes = np.zeros(len(rows), dtype=PREDICTOR_RECORD_DTYPE)
    names = (
        "value", "count", "feature_idx", "num_threshold", "missing_go_to_left", "gain", "depth",
        "is_leaf",
    )  # fmt: skip
    for name, column in zip(names, zip(*rows, strict=True), strict=True):
        nodes[name] = column
    for (parent, side), at in links.items():
        nodes[side][parent] = at
    none = np.zeros((0, 8), dtype=np.uint32)
    return TreePredictor(nodes, none, none)


def _missing_goes_left(node: dict[str, Any]) -> bool:
    """Where a missing value goes; if the column had none, to the child of more rows."""
    if node["missing_type"] == "NaN":
        return bool(node["default_left"])
    left, right = node["left_child"], node["right_child"]
    sizes = [child.get("internal_count", child.get("leaf_count", 0)) for child in (left, right)]
    return bool(sizes[0] > sizes[1])
