from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Run
from tests.models.tiny import make_cross_encoder
from tiercel.config import Settings
from tiercel.errors import ModelError
from tiercel.models import bench, zoo
from tiercel.models.description import read_description
from tiercel.models.export import bundled_sample_texts
from tiercel.models.forms import FORMS, has_backend


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache_dir=tmp_path / "cache", offline=True, threads=2)


def test_an_encoder_is_measured_in_every_form_and_the_best_is_used(bert_folder: Path, settings: Settings) -> None:
    report = zoo.bench_model(str(bert_folder), family="encoder", settings=settings)
    here = [form for form in FORMS if form.provider == "cpu" and has_backend(form.backend)]
    measured = [found.name for found in report.figures] + [line.partition(":")[0] for line in report.left_out]
    assert set(measured) >= {"torch fp32", *map(str, here)}
    first, *ours = report.figures
    assert (report.unit, first.name, first.ratio, first.passes) == ("texts", "torch fp32", 1.0, False)
    assert {found.top10 for found in ours if "fp32" in found.name} == {1.0}
    fastest = max((found for found in ours if found.passes), key=lambda found: found.rate)
    assert str(report.best) == fastest.name
    about = read_description(zoo.prepare_model(str(bert_folder), cache_dir=settings.cache_dir, offline=True))
    assert (about.backend, about.precision) == (report.best.backend, report.best.precision)


def test_no_form_that_ranks_otherwise_is_chosen(
    bert_folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "FORMS", FORMS[:1])
    monkeypatch.setattr(bench, "MIN_SPEARMAN", 1.1)
    with pytest.raises(ModelError, match=r"no form of the model ranks as torch does; expected a rank correlation"):
        zoo.bench_model(str(bert_folder), family="encoder", settings=settings)
    assert not list(settings.cache_dir.glob("models/*.best.json"))


def test_at_most_as_many_texts_as_are_worth_it() -> None:
    assert bench.check_texts([str(number) for number in range(600)])[::59] == ["0", "599"]
    assert len(bench.check_texts(["a"] * 25)) == 25
    with pytest.raises(ModelError, match="19 texts; expected at least 20"):
        bench.check_texts(["a"] * 19)


def test_what_is_exported_cannot_be_measured(bert_folder: Path, settings: Settings) -> None:
    folder = zoo.prepare_model(str(bert_folder), cache_dir=settings.cache_dir, offline=True)
    with pytest.raises(ModelError, match="it is exported already, in one form; expected the model that it was"):
        zoo.bench_model(str(folder), family="encoder", settings=settings)


def test_a_cross_encoder_on_own_texts_by_the_command(run: Run, place: Path) -> None:
    make_cross_encoder(place / "tiny")
    (place / "texts.txt").write_text("\n\n".join(bundled_sample_texts()[:24]) + "\n")
    command = ("export", "tiny", "--family", "cross-encoder", "--bench", "--texts", "texts.txt")
    outcome = run(*command, "--json")
    assert outcome.code == 0, outcome
    assert (outcome.json["unit"], outcome.json["bar"]) == ("pairs", {"spearman": 0.98, "top10": 0.95})
    assert Path(outcome.json["kept"]).is_file()
    again = run(*command)
    assert again.rows[0] == ["form", "pairs/s", "ratio", "spearman", "top 10", "size"]
    assert "later uses of this model take" in again.err
    best = outcome.json["best"]
    exported = run("export", "tiny", "--family", "cross-encoder", "--json")
    assert exported.json["family"] == "cross-encoder"
    assert best["provider"] == "cpu"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--texts", "texts.txt"), "--texts without --bench"),
        (("--bench", "--precision", "int8"), "--precision or --backend with --bench"),
    ],
)
def test_flags_that_do_not_go_together(run: Run, flags: tuple[str, ...], message: str) -> None:
    outcome = run("export", "tiny", *flags)
    assert outcome.code == 2
    assert message in outcome.err
