from __future__ import annotations

import random
import unicodedata
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiercel.index.tokens import _CJK_RANGES, MAX_TOKEN_BYTES, TokenTable, character_classes

UPPER_TO_LOWER = {ord(upper): upper.lower() for upper in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


def cut(*texts: str, cjk_bigrams: bool = True) -> list[list[str]]:
    return cut_by(TokenTable(cjk_bigrams=cjk_bigrams), texts)


def cut_by(table: TokenTable, texts: tuple[str, ...] | list[str]) -> list[list[str]]:
    numbers, ends = table.tokenize(texts)
    strings = table.strings()
    return [[strings[i] for i in part] for part in np.split(numbers, ends[:-1])] if texts else []


def kind(character: str, *, cjk_bigrams: bool) -> str:
    point = ord(character)
    if point >= 0x40000:
        return "separator"
    if point >= 0x20000:
        return "cjk" if cjk_bigrams else "word"
    if unicodedata.category(character) not in {
        "Lu",
        "Ll",
        "Lt",
        "Lm",
        "Lo",
        "Mn",
        "Mc",
        "Me",
        "Nd",
        "Nl",
        "No",
        "Cn",
        "Co",
    }:
        return "separator"
    if cjk_bigrams and any(first <= point <= last for first, last in _CJK_RANGES):
        return "cjk"
    return "word"


def reference(text: str, *, cjk_bigrams: bool) -> list[str]:
    """The rules once more, one character at a time."""
    tokens: list[str] = []
    i = 0
    while i < len(text):
        first = kind(text[i], cjk_bigrams=cjk_bigrams)
        end = i + 1
        while end < len(text) and kind(text[end], cjk_bigrams=cjk_bigrams) == first:
            end += 1
        run = text[i:end].translate(UPPER_TO_LOWER)
        if first == "cjk":
            tokens += [run[j : j + 2] for j in range(len(run) - 1)] or [run]
        elif first == "word":
            token = ""
            for character in run:
                token += character
                if len(token.encode()) >= MAX_TOKEN_BYTES:
                    tokens.append(token)
                    token = ""
            tokens += [token] if token else []
        i = end
    return tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        ("   \t\n", []),
        ("The quick-brown FOX's 3.14", ["the", "quick", "brown", "fox", "s", "3", "14"]),
        ("snake_case e-mail a.b,c", ["snake", "case", "e", "mail", "a", "b", "c"]),
        ("@[`{ AZ az 09 /:", ["az", "az", "09"]),
        ("Ünïcode ÉCOLE", ["Ünïcode", "École"]),  # only ASCII is folded here; analysis folds the rest
        ("cafe\u0301 naïve", ["cafe\u0301", "naïve"]),
        ("कि हिन्दी", ["कि", "हिन्दी"]),
        ("a\0b\0", ["a", "b"]),
        ("rock😀roll 👩‍🔬", ["rock", "roll"]),
        ("½ ² Ⅷ", ["½", "²", "Ⅷ"]),
        ("a\u00adb x\u200by", ["a", "b", "x", "y"]),
        ("a\ud800b", ["a", "b"]),
    ],
)
def test_runs_of_letters_marks_and_digits_are_tokens(text: str, tokens: list[str]) -> None:
    assert cut(text) == [tokens]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("東", ["東"]),
        ("東京", ["東京"]),
        ("東京都", ["東京", "京都"]),
        ("東。京", ["東", "京"]),
        ("ラーメン", ["ラー", "ーメ", "メン"]),
        ("한국어", ["한국", "국어"]),
        ("𠀀𠀁𠀂", ["𠀀𠀁", "𠀁𠀂"]),
        ("京𠀀", ["京𠀀"]),
        ("𠀀", ["𠀀"]),
        ("2024年モデル", ["2024", "年モ", "モデ", "デル"]),
        ("A東B", ["a", "東", "b"]),
        ("東京tower京都 大", ["東京", "tower", "京都", "大"]),
        ("ﾊﾟ", ["ﾊﾟ"]),
    ],
)
def test_runs_of_cjk_characters_give_overlapping_pairs(text: str, tokens: list[str]) -> None:
    assert cut(text) == [tokens]


def test_without_bigrams_cjk_characters_are_letters() -> None:
    assert cut("東京都𠀀 A東B", cjk_bigrams=False) == [["東京都𠀀", "a東b"]]


def test_a_run_of_cjk_characters_does_not_reach_into_the_next_text() -> None:
    assert cut("東京", "都", "", "大") == [["東京"], ["都"], [], ["大"]]


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("a" * 252, [252]),
        ("a" * 253, [252, 1]),
        ("a" * 600, [252, 252, 96]),
        ("é" * 300, [252, 252, 96]),
        ("ก" * 200, [252, 252, 96]),
        ("𐐨" * 150, [252, 252, 96]),
        ("a" + "𐐨" * 150, [253, 252, 96]),  # the character that crosses the limit still belongs
    ],
)
def test_a_long_run_is_cut_between_characters(text: str, sizes: list[int]) -> None:
    (tokens,) = cut(text)
    assert [len(token.encode()) for token in tokens] == sizes
    assert "".join(tokens) == text


def test_tokens_are_numbered_by_first_appearance() -> None:
    table = TokenTable(cjk_bigrams=True)
    numbers, ends = table.tokenize(["b a B", "", "c a"])
    assert numbers.tolist() == [0, 1, 0, 2, 1]
    assert ends.tolist() == [3, 3, 5]
    numbers, ends = table.tokenize(["d c"])
    assert numbers.tolist() == [3, 2]
    assert ends.tolist() == [2]
    assert table.strings() == ["b", "a", "c", "d"]
    assert table.strings(2) == ["c", "d"]
    assert table.strings(4) == []


def test_no_texts_give_no_tokens() -> None:
    table = TokenTable(cjk_bigrams=True)
    numbers, ends = table.tokenize([])
    assert (numbers.size, ends.size, table.count) == (0, 0, 0)


@pytest.mark.parametrize("length", [6, 7, 8, 9, 15, 16, 17, 23, 24, 25])
def test_tokens_that_share_all_but_a_few_bytes_are_told_apart(length: int) -> None:
    variants = ["".join(letters) for letters in product("abc", repeat=3)]
    words = {v + "x" * (length - 3) for v in variants} | {"x" * (length - 3) + v for v in variants}
    words |= {"x" * i + letter + "x" * (length - 1 - i) for i in range(length) for letter in "ab"}
    words |= {"x" * (length - 1), "x" * (length + 1)}
    text = " ".join(sorted(words))
    table = TokenTable(cjk_bigrams=True)
    assert cut_by(table, [text, text.upper()]) == [sorted(words), sorted(words)]
    assert table.count == len(words)


def test_a_table_that_grows_confuses_no_two_tokens() -> None:
    drawn = random.Random(5)
    words = [f"{drawn.choice(['', 'prefix', 'long-prefix-'])}{drawn.getrandbits(40):x}" for _ in range(30_000)]
    table = TokenTable(cjk_bigrams=True)
    texts = [" ".join(words[i : i + 1000]) for i in range(0, len(words), 1000)]
    expected = [reference(text, cjk_bigrams=True) for text in texts]
    assert [cut_by(table, [text])[0] for text in texts] == expected
    assert cut_by(table, texts) == expected
    assert len(set(table.strings())) == table.count


def test_pairs_take_more_bytes_than_the_text_they_come_from() -> None:
    drawn = random.Random(6)
    text = "".join(chr(drawn.randrange(0x4E00, 0x9FFF)) for _ in range(21_000))
    # Every pair of the 63,000 bytes is new, so that nearly 126,000 have to be kept; the table begins with 65,536.
    assert cut(text, text) == [[text[i : i + 2] for i in range(len(text) - 1)]] * 2


# Neighbouring scripts, case, marks, digits, Han of two planes, and what separates.
mixed_text = st.text(
    st.one_of(
        st.sampled_from("aAbBzZ09 -_'.\0éÉ\u0301ßıİ東京都ーラ한국𠀀𠀁😀\u200d\U000e0100\U0010ffff"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(st.lists(st.lists(mixed_text, max_size=6), max_size=4), st.booleans())
def test_any_text_is_cut_as_the_rules_say(batches: list[list[str]], cjk_bigrams: bool) -> None:
    table = TokenTable(cjk_bigrams=cjk_bigrams)
    seen: list[str] = []
    for texts in batches:
        numbers, ends = table.tokenize(texts)
        strings = table.strings()
        expected = [reference(text, cjk_bigrams=cjk_bigrams) for text in texts]
        seen += [token for tokens in expected for token in tokens]
        assert [strings[i] for i in numbers] == [token for tokens in expected for token in tokens]
        assert ends.tolist() == np.cumsum([len(tokens) for tokens in expected]).astype(int).tolist()
    assert table.strings() == list(dict.fromkeys(seen))


@settings(deadline=None, max_examples=50)
@given(st.lists(mixed_text, max_size=12), st.integers(1, 5))
def test_batching_changes_nothing(texts: list[str], size: int) -> None:
    together, apart = TokenTable(cjk_bigrams=True), TokenTable(cjk_bigrams=True)
    whole, _ = together.tokenize(texts)
    parts = [apart.tokenize(texts[i : i + size])[0] for i in range(0, len(texts), size)]
    assert np.concatenate([np.zeros(0, np.int32), *parts]).tolist() == whole.tolist()
    assert apart.strings() == together.strings()


def test_every_code_point_alone_is_a_separator_or_itself() -> None:
    points = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    for cjk_bigrams in (True, False):
        expected = [reference(point, cjk_bigrams=cjk_bigrams) for point in points[:0x21000]]
        assert cut_by(TokenTable(cjk_bigrams=cjk_bigrams), points[:0x21000]) == expected
    assert cut(*points[0x40000 - 0x800 :: 997]) == [[] for _ in points[0x40000 - 0x800 :: 997]]


def test_character_classes_are_shared_and_cannot_be_changed() -> None:
    classes = character_classes(True)
    assert classes is character_classes(True)
    assert not classes.flags.writeable
