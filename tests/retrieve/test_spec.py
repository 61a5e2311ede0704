from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiercel.errors import UsageError
from tiercel.retrieve.fusion import DEFAULT_FUSION, FusionMethod
from tiercel.retrieve.spec import Leg, PipelineSpec, Recall, RerankStage, check_names, parse, resolve_keeps

MODELS = st.from_regex(r"[A-Za-z0-9./:=%_-]{1,12}", fullmatch=True)
NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,6}", fullmatch=True)
KEEPS = st.none() | st.integers(1, 10**9 - 1)
WEIGHTS = st.just(1.0) | st.floats(min_value=0, exclude_min=True, allow_infinity=False)


@st.composite
def specs(draw: st.DrawFn) -> PipelineSpec:
    heads = draw(
        st.lists(
            st.tuples(NAMES.filter(lambda name: name not in set(FusionMethod)), st.just("") | MODELS),
            min_size=1,
            max_size=4,
            unique=True,
        )
    )
    fused = len(heads) > 1
    legs = tuple(Leg(name, model, draw(WEIGHTS) if fused else 1.0) for name, model in heads)
    fusion = draw(st.sampled_from(FusionMethod)) if fused else DEFAULT_FUSION
    keep = draw(KEEPS)
    recall = Recall(legs, fusion, keep)
    stages: list[RerankStage] = []
    narrowest = keep or 10**9 - 1
    plain = NAMES.filter(lambda name: name not in set(FusionMethod))
    for name, model in draw(st.lists(st.tuples(plain, st.just("") | MODELS), max_size=3)):
        keep = draw(st.none() | st.integers(1, narrowest))
        narrowest = keep or narrowest
        own = draw(st.none() | st.sampled_from(FusionMethod))
        weighed = own not in (None, FusionMethod.INTERLEAVE)
        stages.append(RerankStage(name, model, keep, own, draw(WEIGHTS) if weighed else 1.0))
    return PipelineSpec(recall, tuple(stages))


@settings(deadline=None)
@given(specs())
def test_parse_reads_back_what_str_writes(spec: PipelineSpec) -> None:
    assert parse(str(spec)) == spec


@settings(deadline=None)
@given(specs())
def test_printing_is_canonical(spec: PipelineSpec) -> None:
    assert str(parse(str(spec))) == str(spec)


@settings(deadline=None)
@given(specs())
def test_a_shell_takes_the_string_as_one_plain_word(spec: PipelineSpec) -> None:
    text = str(spec)
    assert shlex.split(text) == [text]
    assert shlex.quote(text) == text


@settings(deadline=None)
@given(st.text(alphabet="bm25dense,+@:.0-/ rf", max_size=12))
def test_any_text_parses_or_is_refused_with_its_column(text: str) -> None:
    try:
        spec = parse(text)
    except UsageError:
        with pytest.raises(UsageError, match=re.escape(f"pipeline {text!r}, column ") + r"\d+: .*; expected ."):
            parse(text)
    else:
        assert parse(str(spec)) == spec


def test_the_parts_of_a_pipeline() -> None:
    spec = parse("bm25+dense@200,late@50,cross:BAAI/bge-reranker-v2-m3@10")
    assert spec == PipelineSpec(
        Recall((Leg("bm25"), Leg("dense")), FusionMethod.MINMAX, 200),
        (RerankStage("late", keep=50), RerankStage("cross", "BAAI/bge-reranker-v2-m3", 10)),
    )
    assert spec.keeps == (200, 50, 10)


def test_weights_and_fusion() -> None:
    spec = parse("rrf:0.3bm25+0.7dense:models/e5_small.onnx@200")
    assert spec.recall == Recall(
        (Leg("bm25", weight=0.3), Leg("dense", "models/e5_small.onnx", 0.7)), FusionMethod.RRF, 200
    )


def test_a_stage_that_is_fused_with_the_ranking_before_it() -> None:
    spec = parse("bm25,minmax:late@50,rrf:0.5cross:m@10")
    assert spec.reranks == (
        RerankStage("late", keep=50, fusion=FusionMethod.MINMAX),
        RerankStage("cross", "m", 10, FusionMethod.RRF, 0.5),
    )


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("minmax:bm25+dense", "bm25+dense"),
        ("minmax:bm25", "bm25"),
        ("1bm25+1.00dense@07", "bm25+dense@7"),
        ("2.50bm25+10dense", "2.5bm25+10dense"),
        ("rrf:bm25+dense", "rrf:bm25+dense"),
        ("bm25,minmax:1.0late@5", "bm25,minmax:late@5"),
        ("dense:a+dense:b", "dense:a+dense:b"),
        ("dense:rrf:x,cross@3", "dense:rrf:x,cross@3"),
    ],
)
def test_canonical_form(text: str, canonical: str) -> None:
    assert str(parse(text)) == canonical


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("", 1, "the end; expected a recall leg"),
        ("bm25+", 6, "the end; expected a recall leg"),
        (",cross", 1, "','; expected a recall leg"),
        ("bm25,,cross", 6, "','; expected a rerank stage"),
        ("bm25,", 6, "the end; expected a rerank stage"),
        ("bm25@", 6, "the end; expected how many"),
        ("bm25@x", 6, "'x'; expected how many"),
        ("bm25@0", 6, "@0; expected a number of survivors"),
        ("bm25@1234567890", 6, "expected how many"),
        ("bm25,cross@0", 12, "@0; expected"),
        ("bm25+dense+bm25", 12, "the leg 'bm25' twice; expected each leg once"),
        ("dense:a+dense:a", 9, "the leg 'dense:a' twice"),
        ("bm25+0dense", 6, "the weight 0; expected a number above 0"),
        ("0.0bm25+dense", 1, "the weight 0"),
        ("-0.3bm25+dense", 1, "'-'"),
        ("0.3bm25", 1, "a single leg"),
        ("rrf:bm25", 1, "a single leg"),
        (
            "bm25,0.5cross",
            6,
            "the weight 0.5 of a stage that is not fused; expected a fusion before it, as in minmax:0.5",
        ),
        ("bm25,minmax:0cross", 6, "the weight 0; expected a number above 0; leave the stage out"),
        ("bm25,interleave:2cross", 6, "the weight 2 of a stage that is interleaved"),
        ("bm25,minmax:", 13, "the end; expected a rerank stage"),
        ("bm25,rrf@5", 6, "a stage called 'rrf', which is the name of a fusion"),
        ("bm25 + dense", 5, "' '; expected a comma or the end"),
        ("bm25@50+dense", 8, "go after the last leg"),
        ("cross:", 7, "the end; expected a model name or path"),
        ("bm25,cross:@5", 12, "'@'; expected a model name or path"),
        ("rrf@10", 1, "'rrf', which is the name of a fusion"),
        ("bm25@50,cross@100", 9, "'cross@100' after a stage that keeps 50; expected at most @50"),
        ("bm25@50,late,cross@51", 14, "expected at most @50"),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, column: int, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert str(caught.value).startswith(f"pipeline {text!r}, column {column}: ")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Leg("2bm"),
        lambda: Leg("bm25", "a b"),
        lambda: Leg("bm25", weight=-1),
        lambda: Leg("bm25", weight=float("nan")),
        lambda: Leg("minmax"),
        lambda: Recall(()),
        lambda: Recall((Leg("a"),), keep=0),
        lambda: RerankStage("", "x"),
        lambda: RerankStage("cross", "a,b"),
        lambda: PipelineSpec(Recall((Leg("a"),), keep=5), (RerankStage("b", keep=6),)),
    ],
)
def test_a_value_that_could_not_be_written_cannot_be_made(make: object) -> None:
    assert callable(make)
    with pytest.raises(UsageError):
        make()


@pytest.mark.parametrize(
    ("text", "keep", "expected"),
    [
        # Nothing written: recall keeps max(100, k), later stages k, and the last stage always at most k.
        ("bm25,cross", 10, (100, 10)),
        ("bm25,cross", 150, (150, 150)),
        ("bm25", 10, (10,)),
        ("bm25@200", 10, (10,)),
        ("bm25@5", 10, (5,)),
        ("bm25@200,late@50,cross@10", 10, (200, 50, 10)),
        ("bm25@200,late@50,cross@10", 100, (200, 50, 10)),
        ("bm25@200,late@50,cross@10", 3, (200, 50, 3)),
        # A stage without a number never makes a later number void.
        ("bm25,late,cross@20", 5, (100, 20, 5)),
        ("bm25,cross@150", 10, (150, 10)),
        ("bm25@20,late,cross", 50, (20, 50, 50)),
    ],
)
def test_how_many_survive_each_stage(text: str, keep: int, expected: tuple[int, ...]) -> None:
    assert resolve_keeps(parse(text).keeps, keep) == expected


@settings(deadline=None)
@given(specs(), st.integers(1, 2000))
def test_resolved_keeps_are_positive_and_end_at_most_at_keep(spec: PipelineSpec, keep: int) -> None:
    resolved = resolve_keeps(spec.keeps, keep)
    assert len(resolved) == len(spec.keeps)
    assert min(resolved) >= 1
    assert resolved[-1] <= keep
    for written, settled in list(zip(spec.keeps, resolved, strict=True))[:-1]:
        assert written in (None, settled)


def test_asking_for_no_hits_is_refused() -> None:
    with pytest.raises(UsageError, match="0 hits were asked for; expected at least 1"):
        resolve_keeps((None,), 0)


def test_known_names_pass() -> None:
    check_names(parse("bm25+dense,cross:x@10"), recall={"bm25", "dense"}, rerank=["cross", "late"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("bm52,cross", "no recall leg called 'bm52'; expected one of bm25, dense. Did you mean 'bm25'?"),
        ("BM25,cross", "Did you mean 'bm25'?"),
        ("bm25,corss", "no rerank stage called 'corss'; expected one of cross, late. Did you mean 'cross'?"),
        ("bm25,zzz", "expected one of cross, late"),
        ("bm25,dense", "'dense' goes before the first comma"),
        ("cross", "'cross' goes after a comma"),
        ("rff:bm25+dense", "Did you mean 'rrf'?"),
    ],
)
def test_unknown_names_list_the_known_ones(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_names(parse(text), recall={"bm25", "dense"}, rerank={"cross", "late"})
    assert says in str(caught.value)
    assert repr(text) in str(caught.value)


def test_importing_the_package_loads_only_the_standard_library() -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        "import tiercel.retrieve.spec, tiercel.retrieve.fusion, tiercel.retrieve.cascade\n"
        "import tiercel.evaluation.measures, tiercel.evaluation.report\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(' '.join(sorted(new - sys.stdlib_module_names - {'tiercel'})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
