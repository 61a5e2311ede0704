"""Which of ten answers continues a conversation? Uni-, cross- and bi-encoder, trained alike from one encoder.

    python benchmarks/response_selection.py DATA WORK [FAMILY ...] [--rows 1024] [--test-rows 0] [--set NAME=VALUE ...]

DATA holds train.jsonl.gz and test.jsonl.gz of rows {"context", "candidates", "label"}; WORK gets the drawn rows and the
models. All families see the same rows, the same candidates and the same context_tokens, one epoch, no dev measure, so
the test split has a part in nothing. `bi, untrained` is the start. R10@k is the share of rows whose right answer is
among the first k; MRR its mean reciprocal rank. Scores are fp32 and torch's; seconds are of the processor, one thread.
A training that was stopped goes on; its seconds are those since then, and 0 for a model that is there already.
"""

from __future__ import annotations

import argparse
import gzip
import random
import time
from pathlib import Path
from typing import Any

import torch

from tiercel.evaluation.measures import evaluate, parse_measures
from tiercel.learning import STATE_FOLDER, train
from tiercel.models.zoo import find_source
from tiercel.training.batches import batch_of, training_groups
from tiercel.training.bi_encoder import BiStudent
from tiercel.training.cross_encoder import CrossStudent
from tiercel.training.loop import Student
from tiercel.training.rows import AsOneText, RowData
from tiercel.training.settings import FAMILIES, TrainSettings, UniTrainSettings, read_settings
from tiercel.training.uni_encoder import UniStudent
from tiercel.types import Ranking

_UNTRAINED = "bi, untrained"
_ALL = (_UNTRAINED, "bi", "uni", "cross")
_MEASURES = ("Success@1", "Success@2", "RR")
_SETTINGS = ("negatives=9", "context_tokens=128", "learning_rate=1e-4", "checkpoint_minutes=5.0")
_WINDOWS = {"uni": "max_tokens=48", "bi": "max_tokens=256", "cross": "max_tokens=256"}
_ROWS_AT_ONCE = 8
_SEED = 13


def main() -> None:
    options = _arguments()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    source = find_source(options.model, offline=True).folder
    trained_on, asked = (_drawn(options, split) for split in ("train", "test"))
    print(f"{'model':<16}{'rows':>8}{'train s':>9}{'R10@1':>8}{'R10@2':>8}{'MRR':>8}{'ms a row':>10}", flush=True)
    for name in options.families or _ALL:
        family = name.partition(",")[0]
        given = [*_SETTINGS, _WINDOWS[family], *options.settings]
        settings = read_settings(FAMILIES[family], None, given)
        seconds, folder = 0.0, source
        if name != _UNTRAINED:
            folder = options.work / f"{name}-{options.rows}"
            seconds = _trained(source, folder, settings, trained_on)
        means, cost = _asked(folder, settings, asked)
        figures = "".join(f"{means[measure]:>8.3f}" for measure in _MEASURES)
        rows = 0 if name == _UNTRAINED else options.rows
        print(f"{name:<16}{rows:>8}{seconds:>9.0f}{figures}{1000 * cost:>10.0f}", flush=True)


def _drawn(options: argparse.Namespace, split: str) -> str:
    """A file of so many rows of a split, the same for all families; all of them for 0."""
    count = options.rows if split == "train" else options.test_rows
    with gzip.open(options.data / f"{split}.jsonl.gz", "rt", encoding="utf-8") as stream:
        lines = list(stream)
    chosen = random.Random(_SEED).sample(lines, count) if count else lines
    path = options.work / f"{split}-{count}.jsonl"
    path.write_text("".join(chosen), encoding="utf-8")
    return str(path)


def _trained(source: Path, folder: Path, settings: TrainSettings, rows: str) -> float:
    """Seconds of the processor; 0 for a model that is there already."""
    is_stopped = (folder / STATE_FOLDER).exists()
    if folder.exists() and not is_stopped:
        return 0.0
    begun = time.process_time()
    train(source, folder, settings=settings, data=RowData([rows]), resume=is_stopped)
    return time.process_time() - begun


def _asked(folder: Path, settings: TrainSettings, rows: str) -> tuple[dict[str, float], float]:
    """The means of the measures, and seconds of the processor for a row."""
    student = _student(folder, settings)
    student.module.eval()
    data = RowData([rows])
    ((groups, texts),) = (data if isinstance(settings, UniTrainSettings) else AsOneText(data, folder, settings)).read()
    lengths = student.lengths(training_groups(groups, texts, settings))
    order = sorted(range(len(groups)), key=lengths.__getitem__)
    rankings: list[Ranking] = []
    begun = time.process_time()
    for start in range(0, len(order), _ROWS_AT_ONCE):
        batch = batch_of([groups[place] for place in order[start : start + _ROWS_AT_ONCE]], texts)
        with torch.no_grad():
            scores = student.scores(batch).tolist()
        for group, row in zip(batch.groups, scores, strict=True):
            ids = [document.id for document in group.documents]
            rankings.append(Ranking.from_scores(group.query, ids, row[: len(ids)], stage="asked", keep=len(ids)))
    seconds = time.process_time() - begun
    qrels = {group.query.id: {document.id: 1 for document in group.positives} for group in groups}
    return dict(evaluate(rankings, qrels, parse_measures(_MEASURES)).means), seconds / len(groups)


def _student(folder: Path, settings: Any) -> Student:
    if isinstance(settings, UniTrainSettings):
        return UniStudent(folder, settings)
    return CrossStudent(folder, settings, []) if hasattr(settings, "residual") else BiStudent(folder, settings)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"some of {', '.join(_ALL)}; all by default")
    parser.add_argument("--model", default="all-MiniLM-L6-v2", help="what all start from")
    parser.add_argument("--rows", type=int, default=1024, help="rows of the train split")
    parser.add_argument("--test-rows", type=int, default=0, help="rows of the test split; 0: all")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
