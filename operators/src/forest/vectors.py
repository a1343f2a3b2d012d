#!/usr/bin/env python3
"""Writes vectors.json: forests and scores of scikit-learn and isotree that the tests of this folder compare with.

    python3 -m venv venv && venv/bin/pip install scikit-learn==1.9.1 isotree==0.6.1.post10 pandas
    venv/bin/python operators/src/forest/vectors.py > operators/src/forest/vectors.json
"""

import json
import math
import sys
from importlib.metadata import version

import isotree
import numpy as np
from sklearn.ensemble import IsolationForest

# isotree writes its trees with six decimals. A row that comes closer to a split than this might go the other way.
MARGIN = 1e-4


def rounded(array):
    """32-bit numbers with few digits, so that the file stays small and every reader gets the same bits."""
    return np.round(np.asarray(array), 3).astype(np.float32)


def numbers(array):
    return [float(str(x)) for x in rounded(array).ravel()]


def correlated(rng, inliers, outliers, width):
    """Rows along the diagonal, and outliers off it that no single feature shows; units differ a thousandfold."""
    along = rng.normal(size=(inliers, 1)) * 2
    rows = np.vstack([along + rng.normal(size=(inliers, width)) * 0.5, rng.normal(size=(outliers, width)) * 2])
    return rounded(rows * np.geomspace(0.1, 100, width))


def sklearn_forest(rng):
    """Ties, a sample size that is no power of two, and an offset from the share of anomalies."""
    rows = rng.normal(size=(400, 6)) * [1, 1, 50, 1e-3, 1, 1]
    rows[:, 4] = rng.integers(0, 3, size=400)
    rows[:, 5] = rng.integers(0, 2, size=400)
    rows[:, 3] = np.round(rows[:, 3], 5)
    rows = rows.astype(np.float32)
    forest = IsolationForest(n_estimators=12, max_samples=100, contamination=0.05, random_state=5).fit(rows)
    trees = []
    for estimator in forest.estimators_:
        tree = estimator.tree_
        trees.append({
            "left": tree.children_left.tolist(), "right": tree.children_right.tolist(),
            "feature": tree.feature.tolist(), "threshold": tree.threshold.tolist(),
            "n": tree.n_node_samples.tolist(),
        })
    scored = rows[:120]
    return {
        "max_samples": 100, "offset": forest.offset_, "trees": trees,
        "X": [[float(str(x)) for x in row] for row in scored],
        "score_samples": forest.score_samples(scored).tolist(),
        "decision": forest.decision_function(scored).tolist(),
    }


def step(node, row):
    """Where isotree sends a row from a split, and how far the row is from the split."""
    if "combination" in node:
        value = sum(c["coefficient"] * (row[int(c["column"])] - c["centering"]) for c in node["combination"])
    else:
        value = row[int(node["column"])]
    met = value <= node["value"]
    child = node["node_when_condition_is_met"] if met else node["node_when_condition_is_not_met"]
    return str(child), abs(value - node["value"])


def walk(tree, row):
    """The leaf of a row, the splits before it, and its smallest distance from one of these."""
    at, depth, margin = "0", 0, math.inf
    while tree[at]["terminal"] == "no":
        at, distance = step(tree[at], row)
        depth, margin = depth + 1, min(margin, distance)
    return at, depth, margin


def in_columns(tree, leaf_rows, dimensions):
    """The layout of the file format. A plane through the node's means becomes one through 0."""
    out = {"shape": "", "features": [], "weights": [], "thresholds": [], "rows": []}

    def visit(at):
        node = tree[at]
        if node["terminal"] == "yes":
            out["shape"] += "0"
            out["rows"].append(leaf_rows[at])
            return
        out["shape"] += "1"
        threshold = node["value"]
        if dimensions:
            terms = [(int(c["column"]), c["coefficient"], c["centering"]) for c in node["combination"]]
            threshold += sum(weight * centre for _, weight, centre in terms)
            terms += [(terms[0][0], 0.0, 0.0)] * (dimensions - len(terms))
            out["features"] += [column for column, _, _ in terms]
            out["weights"] += [weight for _, weight, _ in terms]
        else:
            out["features"].append(int(node["column"]))
        out["thresholds"].append(round(threshold, 6))
        visit(str(node["node_when_condition_is_met"]))
        visit(str(node["node_when_condition_is_not_met"]))

    visit("0")
    if not dimensions:
        del out["weights"]
    return out


def isotree_forest(rng, dimensions):
    """isotree's own trees and path lengths. Grown from all rows, so that the rows of a leaf can be counted, and without
    a limit of depth: then no leaf has more than two rows, where isotree's c(n) and scikit-learn's would differ."""
    rows = rounded(rng.normal(size=(128, 5)) * 2 + rng.integers(0, 2, size=(128, 1)) * 4)
    model = isotree.IsolationForest(
        sample_size=128, ntrees=8, ndim=max(dimensions, 1), ntry=1, coefs="normal", missing_action="fail",
        max_depth=None, prob_pick_pooled_gain=0, penalize_range=False, random_seed=3, nthreads=1,
    ).fit(rows)
    trees = model.to_json(column_names=[str(i) for i in range(5)])
    scored = rounded(np.vstack([rows, rng.uniform(-12, 12, size=(72, 5))]))
    said = model.predict(scored, output="tree_depths")
    columns, keep = [], np.ones(len(scored), bool)
    for number, tree in enumerate(trees):
        walks = [walk(tree, row) for row in scored.astype(float)]
        leaf_rows = {}
        for leaf, _, _ in walks[:128]:
            leaf_rows[leaf] = leaf_rows.get(leaf, 0) + 1
        assert max(leaf_rows.values()) <= 2
        for i, (leaf, depth, margin) in enumerate(walks):
            keep[i] &= margin > MARGIN
            # isotree's own word, against the walk over its written tree.
            assert said[i, number] == depth + leaf_rows[leaf] - 1 or not keep[i]
        columns.append(in_columns(tree, leaf_rows, dimensions))
    print(f"isotree ndim={max(dimensions, 1)}: {keep.sum()} of {len(keep)} rows kept", file=sys.stderr)
    return {
        "max_samples": 128, "dimensions": dimensions, "trees": columns,
        "X": [numbers(row) for row in scored[keep]], "mean_depth": said[keep].mean(axis=1).tolist(),
    }


def same_rows(rng):
    """One set of rows, scored by both programs: what forests grown here must agree with in rank and AUC."""
    rows = correlated(rng, 560, 40, 5)
    plain = IsolationForest(n_estimators=500, max_samples=256, random_state=1).fit(rows)
    out = {"width": 5, "X": numbers(rows), "outliers": 40, "isotree": {}}
    out["sklearn"] = [round(x, 6) for x in plain.score_samples(rows).tolist()]
    for dimensions in (2, 4):
        model = isotree.IsolationForest(
            sample_size=256, ntrees=500, ndim=dimensions, ntry=1, coefs="normal", missing_action="fail",
            max_depth=8, prob_pick_pooled_gain=0, penalize_range=False, random_seed=1, nthreads=1,
        ).fit(rows)
        out["isotree"][str(dimensions)] = [round(x, 6) for x in model.predict(rows).tolist()]
    return out


def main():
    rng = np.random.default_rng(20260101)
    json.dump({
        "made_by": {name: version(name) for name in ("scikit-learn", "isotree", "numpy")},
        "sklearn_forest": sklearn_forest(rng),
        "isotree_plain": isotree_forest(rng, 0),
        "isotree_extended": isotree_forest(rng, 3),
        "same_rows": same_rows(rng),
    }, sys.stdout, separators=(",", ":"))
    print()


main()
