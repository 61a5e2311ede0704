from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.conftest import python
from tiercel.data.chunking import count_tokens, sentences_of
from tiercel.errors import UsageError
from tiercel.rerankers.extract import Idf, extract, words
from tiercel.types import DocId, Document

# Five sentences of 5, 4, 6, 5 and 4 tokens, the full stop counted.
FIVE = ["Hawks are fast birds.", "Falcons hunt pigeons.", "Male falcons are called tiercels.", "It rains all day."]
FIVE.append("Pigeons like rain.")
TEXT = " ".join(FIVE)

WORDS = ["falcon", "hunt", "tier", "rain", "the", "nest"]
sentence_words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=7)


def document(text: str) -> Document:
    return Document(DocId("d"), text, "A title", {"year": 2021})


def even(term: str) -> float:
    return 1.0


def extracted(query: str, budget: int, *, idf: Idf = even, text: str = TEXT) -> str:
    return extract(query, document(text), budget=budget, idf=idf).text


def sentence(number: int, middle: list[str]) -> str:
    """A sentence that no other equals."""
    return f"S{number} {' '.join(middle)}."


@pytest.mark.parametrize(
    ("query", "budget", "kept"),
    [
        # "Falcons hunt pigeons." covers all three and is worth 3, then each of its terms is worth a half: the third
        # and the fifth sentence are both worth 0.5, and the third, the earlier, does not fit into the 4 that are left.
        ("falcons hunt pigeons", 8, [1, 4]),
        # With 10 it does.
        ("falcons hunt pigeons", 10, [1, 2]),
        # What is left, 5, goes to the first sentence.
        ("tiercels", 11, [0, 2]),
        # The first sentence does not fit into the 4 that are left, so nothing is put in, though the second would fit.
        ("tiercels", 10, [2]),
        ("male tiercels hunting in rain", 10, [2, 4]),
    ],
)
def test_sentences_that_cover_the_query(query: str, budget: int, kept: list[int]) -> None:
    assert [count_tokens(text) for text in FIVE] == [5, 4, 6, 5, 4]
    assert extracted(query, budget) == " ".join(FIVE[place] for place in kept)


def test_covered_terms_lose_half_of_their_weight() -> None:
    # Worth 4, 4 and 3 at first. Once one with `hunt` is taken the other is worth 2, less than the nest's 3.
    text = "Hunt one. Hunt two. Nest here. Hunt three."
    weights = {"hunt": 4.0, "nest": 3.0}
    assert extracted("hunt nest", 3, idf=weights, text=text) == "Hunt one."
    assert extracted("hunt nest", 6, idf=weights, text=text) == "Hunt one. Nest here."
    assert extracted("hunt nest", 9, idf=weights, text=text) == "Hunt one. Hunt two. Nest here."
    # Twice a half of 4 is 1, less than what is left of a term that weighs 2.
    assert extracted("hunt nest", 9, idf={"hunt": 4.0, "nest": 1.5}, text=text) == "Hunt one. Hunt two. Nest here."
    assert extracted("hunt nest", 9, idf={"hunt": 4.0, "nest": 0.5}, text=text) == "Hunt one. Hunt two. Hunt three."


def test_rare_terms_decide() -> None:
    text = "The hunt is on. Falcons nest. The end of the hunt."
    assert extracted("the hunt nest", 5, idf={"the": 0.1, "hunt": 0.2, "nest": 5.0}, text=text) == "Falcons nest."
    assert extracted("the hunt nest", 5, text=text) == "The hunt is on."


def test_a_term_that_the_weights_lack_is_a_rare_one() -> None:
    text = "The hunt is on. Falcons nest. The end."
    # `nest` weighs as much as `hunt`, the heaviest, but `the hunt` is worth more.
    assert extracted("the hunt nest", 5, idf={"the": 0.5, "hunt": 2.0}, text=text) == "The hunt is on."
    assert extracted("the nest", 5, idf={"the": 0.5, "hunt": 2.0}, text=text) == "The hunt is on."
    assert extracted("hunt nest", 8, idf={"hunt": 2.0}, text=text) == "The hunt is on. Falcons nest."
    assert extracted("nest", 3, idf={}, text=text) == "Falcons nest."


@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_terms_without_weight_make_no_sentence_worth_taking(weight: float) -> None:
    assert extracted("tiercels", 6, idf=lambda term: weight) == FIVE[0]


@pytest.mark.parametrize("query", ["", "zeppelin", "?!"])
def test_without_a_query_term_the_beginning_is_kept(query: str) -> None:
    assert extracted(query, 16) == " ".join(FIVE[:3])


def test_a_document_within_the_budget_is_left_as_it_is() -> None:
    whole = document(f"  {TEXT}\n")
    assert extract("tiercels", whole, budget=24, idf=even) is whole
    empty = document("")
    assert extract("tiercels", empty, budget=1, idf=even) is empty


def test_id_title_and_metadata_stay() -> None:
    assert extract("tiercels", document(TEXT), budget=6, idf=even) == document(FIVE[2])


def test_neighbours_keep_what_is_between_them() -> None:
    text = "Falcons hunt.\n\nFalcons  nest. It rains.\tFalcons sleep."
    assert extracted("falcons", 6, text=text) == "Falcons hunt.\n\nFalcons  nest."
    assert extracted("falcons", 9, text=text) == "Falcons hunt.\n\nFalcons  nest. Falcons sleep."
    assert extracted("東京", 5, text="日本です。東京です。大阪です。", idf=even) == "日本です。"


def test_a_sentence_longer_than_the_budget_is_cut_into_pieces() -> None:
    assert extracted("f", 3, text="a b c d e f g.") == "d e f"
    assert extracted("none of it", 3, text="a b c d e f g.") == "a b c"
    assert extracted("x", 1, text="x" * 70) == "x" * 32


def test_terms_are_cut_and_folded_by_whoever_is_given() -> None:
    def first_letters(text: str) -> list[str]:
        return [word[0] for word in words(text)]

    assert extract("TOWER", document(TEXT), budget=6, idf={"t": 1.0}, terms=first_letters).text == FIVE[2]
    assert extracted("TIERCELS", 6) == FIVE[2]
    assert words("Ｓtraße e\u0301, don't") == ["strasse", "é", "don", "t"]


@pytest.mark.parametrize("budget", [0, -1])
def test_a_budget_that_holds_nothing(budget: int) -> None:
    with pytest.raises(UsageError, match=f"an extract of {budget} tokens; expected a budget of 1 or more"):
        extracted("falcons", budget)


def test_the_order_of_sets_changes_nothing() -> None:
    # The hashes of strings, and with them the order of sets, are other ones in each process.
    script = (
        "from tiercel.rerankers.extract import extract\nfrom tiercel.types import Document\n"
        "text = ' '.join(f'S{i} ' + ' '.join(f't{(i * j) % 13}' for j in range(1, 9)) + '.' for i in range(60))\n"
        "query = ' '.join(f't{i}' for i in range(13))\n"
        "print(extract(query, Document('d', text), budget=80, idf=lambda term: 1 / (3 + int(term[1:]))).text)"
    )
    outcomes = [python("-c", script) for _ in range(3)]
    assert all(outcome.code == 0 and count_tokens(outcome.out) > 60 for outcome in outcomes), outcomes[0]
    assert len({outcome.out for outcome in outcomes}) == 1


@given(st.lists(sentence_words, min_size=1, max_size=12), sentence_words, st.integers(10, 60))
def test_an_extract_is_whole_sentences_in_order_within_the_budget(
    middles: list[list[str]], query: list[str], budget: int
) -> None:
    sentences = [sentence(number, middle) for number, middle in enumerate(middles)]
    text = " ".join(sentences)
    kept = extracted(" ".join(query), budget, text=text)
    assert count_tokens(kept) <= budget
    found = [kept[start:end] for start, end, _ in sentences_of(kept, longest=budget)]
    assert found == [text for text in sentences if text in found]
    assert found
    if count_tokens(text) <= budget:
        assert kept == text


@given(
    st.lists(sentence_words, min_size=1, max_size=12),
    st.integers(0, 12),
    st.integers(10, 40),
)
def test_the_sentence_that_answers_is_kept_wherever_it_stands(
    middles: list[list[str]], place: int, budget: int
) -> None:
    sentences = [sentence(number, middle) for number, middle in enumerate(middles)]
    sentences.insert(place, "Tiercel means falcon.")
    # It covers all of the query, which no other sentence does.
    assert "Tiercel means falcon." in extracted("what falcon means tiercel", budget, text=" ".join(sentences))


@given(st.lists(sentence_words, min_size=1, max_size=10), st.integers(10, 60))
def test_the_first_sentences_where_nothing_matches(middles: list[list[str]], budget: int) -> None:
    sentences = [sentence(number, middle) for number, middle in enumerate(middles)]
    kept = extracted("zeppelin", budget, text=" ".join(sentences))
    assert " ".join(sentences).startswith(kept)
    following = sentences[len(sentences_of(kept, longest=budget)) :]
    assert not following or count_tokens(kept) + count_tokens(following[0]) > budget


@settings(max_examples=60)
@given(st.text(max_size=200), st.text(max_size=20), st.integers(1, 40))
@example("x" * 100 + "。" + "y" * 100, "y", 1)
def test_any_text_gives_an_extract_within_the_budget(text: str, query: str, budget: int) -> None:
    kept = extracted(query, budget, text=text)
    assert count_tokens(kept) <= budget
    assert bool(kept.strip()) == bool(text.strip())
    assert kept == extracted(query, budget, text=text)


@settings(max_examples=60)
@given(st.lists(sentence_words, min_size=1, max_size=10), sentence_words, st.integers(10, 40))
def test_the_best_sentence_is_looked_for_at_each_step(middles: list[list[str]], query: list[str], budget: int) -> None:
    """Held against a search over all sentences at every step."""
    sentences = [sentence(number, middle) for number, middle in enumerate(middles)]
    sizes = [count_tokens(text) for text in sentences]
    weights = {term: 1.0 + WORDS.index(term) for term in query}
    left, taken, room = dict(weights), set[int](), budget
    while True:
        worths = {
            place: sum(left[term] for term in set(words(text)) & left.keys())
            for place, text in enumerate(sentences)
            if place not in taken and sizes[place] <= room
        }
        best = max(worths, key=lambda place: (worths[place], -place), default=None)
        if best is None or worths[best] == 0:
            break
        taken.add(best)
        room -= sizes[best]
        left = {term: weight / 2 if term in words(sentences[best]) else weight for term, weight in left.items()}
    for place, size in enumerate(sizes):
        if place not in taken:
            if size > room:
                break
            taken.add(place)
            room -= size
    expected = " ".join(sentences[place] for place in sorted(taken))
    assert extracted(" ".join(query), budget, idf=weights, text=" ".join(sentences)) == expected


def test_sentences_are_slices_with_their_tokens() -> None:
    text = "  One two. Three\n\nfour five six seven.  "
    assert [(text[start:end], tokens) for start, end, tokens in sentences_of(text, longest=9)] == [
        ("One two.", 3),
        ("Three", 1),
        ("four five six seven.", 5),
    ]
    assert [text[start:end] for start, end, _ in sentences_of(text, longest=3)] == [
        "One two.",
        "Three",
        "four five six",
        "seven.",
    ]
    assert sentences_of(" \n ", longest=3) == []
    assert [count_tokens(text) for text in ("", " ", "don't stop", "x" * 33, "東京")] == [0, 0, 4, 2, 2]
    with pytest.raises(UsageError, match="passages of 0 tokens"):
        sentences_of(text, longest=0)
