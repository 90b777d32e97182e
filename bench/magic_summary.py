"""Summarises bench/magic_folds.sh: means over folds, and paired comparisons with errors.

    python3 bench/magic_summary.py FOLDER [BOOTSTRAPS]

Trees (gradient boosting, random forest of scikit-learn, with settings fixed here before any
run) are trained on the same folds. Errors of means are those of the five folds. A paired
difference also has the standard error of a bootstrap over test events, with the same events
drawn for both scores, fold by fold.
"""

import json
import sys
from pathlib import Path

import h5py
import numpy as np
from scipy.stats import rankdata
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

FOLDS = range(5)
SIX = ["size", "width", "length", "con2", "dist", "alpha"]
TEN = SIX + ["con1", "asym", "m3long", "m3trans"]
NAMES = ["one-class", "synthetic-push", "synthetic-ratio", "ratio", "ratio-10", "reference-cuts"]


def area(score, gamma):
    """Returns the area by Mann and Whitney (1947), ties one half."""
    ranks = rankdata(score)
    m = gamma.sum()
    return (ranks[gamma].sum() - m * (m + 1) / 2) / (m * (len(score) - m))


def quality(score, gamma, survival=0.01):
    """Returns Q at the lowest threshold that at most this share of hadrons passes."""
    hadrons = np.sort(score[~gamma])[::-1]
    passing = int(survival * len(hadrons))
    if passing < 10:
        return np.nan
    threshold = hadrons[passing]
    efficiency = (score[gamma] > threshold).mean()
    return efficiency / np.sqrt((hadrons > threshold).mean())


def events(path, columns):
    with h5py.File(path) as file:
        group = file["events"]
        return np.stack([group[c][:] for c in columns], 1), group["class"][:] == 1


def flow_scores(folder, fold, name):
    with h5py.File(folder / f"fold-{fold}" / name / "scores" / "test.h5") as file:
        group = file["scores"]
        inside = group["status"][:] == 0
        return group["score"][:].astype(float), inside


def trees(folder, fold, columns, kind):
    x, y = events(folder / f"fold-{fold}" / "train.h5", columns)
    test, _ = events(folder / f"fold-{fold}" / "test.h5", columns)
    if kind == "boosted-trees":
        model = HistGradientBoostingClassifier(learning_rate=0.05, max_iter=300, random_state=1)
    else:
        model = RandomForestClassifier(500, min_samples_leaf=2, n_jobs=2, random_state=1)
    return model.fit(x, y).predict_proba(test)[:, 1], np.ones(len(test), bool)


def paired(scores, labels, first, second, figure, count, generator):
    """Returns mean difference over folds, error over folds, bootstrap error over events."""
    seen = [
        figure(scores[first][f], labels[f]) - figure(scores[second][f], labels[f]) for f in FOLDS
    ]
    drawn = []
    for _ in range(count):
        differences = []
        for f in FOLDS:
            draw = generator.integers(0, len(labels[f]), len(labels[f]))
            y = labels[f][draw]
            differences.append(
                figure(scores[first][f][draw], y) - figure(scores[second][f][draw], y)
            )
        drawn.append(np.mean(differences))
    return np.mean(seen), np.std(seen, ddof=1) / np.sqrt(len(seen)), np.nanstd(drawn, ddof=1)


def main(folder, count=200):
    folder = Path(folder)
    labels = [events(folder / f"fold-{f}" / "test.h5", SIX)[1] for f in FOLDS]
    scores = {}
    for name in NAMES:
        if not (folder / "fold-0" / name / "scores").is_dir():
            continue
        kept = [flow_scores(folder, f, name) for f in FOLDS]
        if all(inside.all() for _, inside in kept):
            scores[name] = [score for score, _ in kept]
        else:
            areas = [area(s[i], labels[f][i]) for f, (s, i) in zip(FOLDS, kept)]
            report(name, "auc", areas)
    for kind in ("boosted-trees", "random-forest"):
        for suffix, columns in (("", SIX), ("-10", TEN)):
            scores[kind + suffix] = [trees(folder, f, columns, kind)[0] for f in FOLDS]
    for name, by_fold in scores.items():
        report(name, "auc", [area(s, y) for s, y in zip(by_fold, labels)])
        report(name, "q_at_0.01", [quality(s, y) for s, y in zip(by_fold, labels)])
    generator = np.random.default_rng(1)
    comparisons = [
        ("synthetic-push", "one-class", area),
        ("synthetic-ratio", "one-class", area),
        ("ratio", "boosted-trees", area),
        ("ratio", "random-forest", area),
        ("ratio-10", "boosted-trees-10", area),
        ("ratio-10", "random-forest-10", area),
        ("ratio", "boosted-trees", quality),
        ("ratio-10", "boosted-trees-10", quality),
    ]
    for first, second, figure in comparisons:
        if first in scores and second in scores:
            mean, over_folds, bootstrap = paired(
                scores, labels, first, second, figure, int(count), generator
            )
            print(
                json.dumps(
                    {
                        "paired": f"{first} − {second}",
                        "figure": "auc" if figure is area else "q_at_0.01",
                        "mean": round(mean, 5),
                        "error_over_folds": round(over_folds, 5),
                        "error_bootstrap": round(bootstrap, 5),
                    },
                    ensure_ascii=False,
                )
            )


def report(name, figure, values):
    values = np.array(values, float)
    error = values.std(ddof=1) / np.sqrt(len(values))
    line = {"mode": name, "figure": figure, "mean": round(values.mean(), 5), "error": round(error, 5)}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
