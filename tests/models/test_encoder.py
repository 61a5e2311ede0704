from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conformance.encoder import TEXTS, JointEncoderConformance
from tests.models.tiny import DOCUMENT_PROMPT, MAX_TOKENS, QUERY_PROMPT, load_torch, quiet
from tiercel.errors import ModelError
from tiercel.models.encoder import OnnxEncoder
from tiercel.models.export import ExportReport
from tiercel.models.export_encoder import export as export_encoder
from tiercel.models.zoo import bundled_folder, find_source


class TestFp32(JointEncoderConformance):
    @pytest.fixture
    def encoder(self, exported_fp32: ExportReport) -> OnnxEncoder:
        return OnnxEncoder(exported_fp32.folder, threads=2)


class TestInt8(JointEncoderConformance):
    @pytest.fixture
    def encoder(self, exported_int8: ExportReport) -> OnnxEncoder:
        return OnnxEncoder(exported_int8.folder, threads=2)


class TestPaddedBatches(JointEncoderConformance):
    joint_tolerance = 1e-5

    @pytest.fixture
    def encoder(self, exported_fp32: ExportReport) -> OnnxEncoder:
        return OnnxEncoder(exported_fp32.folder, batch_tokens=40)


def test_texts_share_runs_of_the_bundled_encoder_and_keep_their_bits() -> None:
    folder = bundled_folder("tiercel-minilm")
    assert folder is not None
    encoder = OnnxEncoder(folder, threads=2)
    assert encoder._model._network.share_runs("a falcon hunts by the river")
    chance = random.Random(5)
    words = "falcon river winter bread tower bridge north house summer small".split()
    texts = [" ".join(chance.choices(words, k=length)) for length in range(1, 40) for _ in range(4)]
    vectors, tokens = encoder.encode_documents_jointly(texts)
    for text, vector, matrix in zip(texts, vectors, tokens, strict=True):
        [alone], [tokens_alone] = encoder.encode_documents_jointly([text])
        np.testing.assert_array_equal(alone, vector)
        np.testing.assert_array_equal(tokens_alone, matrix)


def test_tokens_of_queries_come_out_of_the_pass_before(exported_int8: ExportReport) -> None:
    encoder, apart = OnnxEncoder(exported_int8.folder), OnnxEncoder(exported_int8.folder)
    runs: list[list[str]] = []
    run = encoder._model.run

    def counted(texts: list[str], outputs: list[str], *, query: bool) -> Any:
        runs.append(outputs)
        return run(texts, outputs, query=query)

    encoder._model.run = counted  # type: ignore[method-assign, assignment]
    for _ in range(2):  # the first time it does not know yet
        np.testing.assert_array_equal(encoder.encode_queries(TEXTS), apart.encode_queries(TEXTS))
        for found, expected in zip(
            encoder.tokens.encode_queries(TEXTS[1:]), apart.tokens.encode_queries(TEXTS[1:]), strict=True
        ):
            np.testing.assert_array_equal(found, expected)
    assert runs == [["sentence_embedding"], ["token_embeddings"], ["sentence_embedding", "token_embeddings"]]
    (other,) = encoder.tokens.encode_queries(["another"])
    np.testing.assert_array_equal(other, apart.tokens.encode_queries(["another"])[0])
    many = [f"query {number}" for number in range(300)]
    assert encoder.encode_queries(many).shape == (300, encoder.dimension)
    assert runs[-1] == ["sentence_embedding"]


@pytest.fixture(params=["exported_fp32", "exported_int8"])
def folder(request: pytest.FixtureRequest) -> Path:
    report: ExportReport = request.getfixturevalue(request.param)
    return report.folder


def test_alone_and_in_a_batch_are_the_same_bits(folder: Path) -> None:
    alone = np.concatenate([OnnxEncoder(folder).encode_documents([text]) for text in TEXTS])
    many = OnnxEncoder(folder, threads=2).encode_documents(TEXTS * 30)
    np.testing.assert_array_equal(many, np.tile(alone, (30, 1)))


def test_batches_padded_within_a_budget_equal_single_runs(exported_fp32: ExportReport) -> None:
    texts = [" ".join(["falcon"] * count) for count in (1, 19, 4, 7, 2, 40, 3)]
    padded = OnnxEncoder(exported_fp32.folder, batch_tokens=32).encode_documents(texts)
    np.testing.assert_allclose(padded, OnnxEncoder(exported_fp32.folder).encode_documents(texts), atol=1e-5)


def test_tokens_are_the_last_hidden_states_of_every_token(exported_fp32: ExportReport, bert_folder: Path) -> None:
    import torch

    with quiet():
        states = load_torch(bert_folder).encode(TEXTS, output_value="token_embeddings")
    matrices = OnnxEncoder(exported_fp32.folder).tokens.encode_documents(TEXTS)
    for state, matrix in zip(states, matrices, strict=True):
        np.testing.assert_allclose(matrix, torch.nn.functional.normalize(state, dim=1).numpy(), atol=1e-5)


def test_an_encoder_and_its_tokens_count_together(exported_fp32: ExportReport) -> None:
    encoder = OnnxEncoder(exported_fp32.folder)
    encoder.encode_documents_jointly(["river " * 30, "bread"])
    encoder.tokens.encode_queries(["river " * 30])
    assert encoder.truncated == encoder.tokens.truncated == 2
    assert encoder.fingerprint == encoder.tokens.fingerprint == exported_fp32.description.fingerprint


def test_truncated_texts_are_counted(exported_fp32: ExportReport) -> None:
    encoder = OnnxEncoder(exported_fp32.folder)
    assert (encoder.max_tokens, encoder.truncated) == (MAX_TOKENS, 0)
    long, longer = " ".join(["river"] * 30), " ".join(["river"] * 60)
    vectors = encoder.encode_documents([long, "river", longer])
    assert encoder.truncated == 2
    encoder.encode_queries([long])
    assert encoder.truncated == 3
    np.testing.assert_array_equal(vectors[0], vectors[2])


def test_prompts_are_put_before_the_texts(prompted_folder: Path, tmp_path: Path) -> None:
    source = find_source(str(prompted_folder), offline=True)
    encoder = OnnxEncoder(export_encoder(source, tmp_path / "model", precision="fp32").folder)
    with quiet():
        model = load_torch(prompted_folder)
        queries = model.encode_query(TEXTS, normalize_embeddings=True)
        documents = model.encode_document(TEXTS, normalize_embeddings=True)
    assert (encoder.description.prompts.query, encoder.description.prompts.document) == (QUERY_PROMPT, DOCUMENT_PROMPT)
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), queries, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_documents(TEXTS), documents, atol=1e-5)
    assert np.abs(queries - documents).max() > 1e-3


def test_int8_is_not_padded(exported_int8: ExportReport) -> None:
    with pytest.raises(ModelError, match=r"int8 model takes one text per run.*Export the model with precision fp32"):
        OnnxEncoder(exported_int8.folder, batch_tokens=1000)


def test_a_folder_without_description_is_unfinished(exported_fp32: ExportReport, tmp_path: Path) -> None:
    half = shutil.copytree(exported_fp32.folder, tmp_path / "half")
    (half / "tiercel.json").unlink()
    with pytest.raises(ModelError, match=r"half: no tiercel\.json; expected a completely exported model\. Export"):
        OnnxEncoder(half)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_changed_files_are_noticed(exported_fp32: ExportReport, tmp_path: Path, name: str) -> None:
    changed = shutil.copytree(exported_fp32.folder, tmp_path / "changed")
    with (changed / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(ModelError, match=r"its files have the fingerprint .*, as exported. Export the model again"):
        OnnxEncoder(changed)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("format", 99, "format 99; expected format 3"), ("precision", "int3", "of the wrong kind"), ("probe", 1, "field")],
)
def test_a_damaged_description(
    exported_fp32: ExportReport, tmp_path: Path, field: str, value: object, message: str
) -> None:
    path = shutil.copytree(exported_fp32.folder, tmp_path / "damaged") / "tiercel.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(ModelError, match=message):
        OnnxEncoder(path.parent)


def test_a_machine_that_computes_other_vectors_is_noticed(exported_fp32: ExportReport, tmp_path: Path) -> None:
    path = shutil.copytree(exported_fp32.folder, tmp_path / "elsewhere") / "tiercel.json"
    description = json.loads(path.read_text())
    description["probe"]["values"] = [-value for value in description["probe"]["values"]]
    path.write_text(json.dumps(description))
    with pytest.raises(ModelError, match=r"another vector than where it was exported \(cosine -1\.000\)"):
        OnnxEncoder(path.parent)
