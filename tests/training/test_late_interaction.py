from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.models.tiny import load_torch, make_joint_encoder
from tests.training.made import limited_files, made_group, ready, texts_by_id
from tiercel.errors import ModelError, UsageError
from tiercel.models.encoder import OnnxEncoder
from tiercel.models.export_late_interaction import export
from tiercel.models.token_encoder import OnnxTokenEncoder
from tiercel.models.zoo import find_source
from tiercel.rerankers.maxsim import maxsim
from tiercel.training.batches import batch_of
from tiercel.training.late_interaction import LateStudent, max_sim, principal_directions
from tiercel.training.settings import LateSettings

GROUPS = [
    made_group(0, "who hunts", ["falcon hunts"], ["cold bread", "the river is deep in winter"]),
    made_group(1, "cold", ["winter is cold"], ["falcon"]),
]


def made(folder: Path, **settings: Any) -> LateStudent:
    chosen = LateSettings(**{"dimension": 32, "precision": "fp32", **settings})
    return LateStudent(folder, chosen, ready(GROUPS, chosen))


def test_max_sim_by_hand() -> None:
    queries = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    documents = torch.tensor([[[0.6, 0.8], [-1.0, 0.0]], [[-0.6, -0.8], [0.0, 0.0]]])
    mask = torch.tensor([[True, True], [True, False]])
    # The second document's padding would score 0, above both products.
    assert max_sim(queries, documents, mask)[0].tolist() == pytest.approx([1.4, -1.4])


def test_all_principal_directions_keep_every_product_and_fewer_the_largest_part() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(50, 6) * torch.tensor([5.0, 3.0, 1.0, 0.1, 0.1, 0.1])
    units = torch.nn.functional.normalize(vectors, dim=-1)
    whole, part = principal_directions(vectors, 6), principal_directions(vectors, 3)
    assert torch.allclose(part @ part.T, torch.eye(3), atol=1e-5)
    assert torch.allclose((units @ whole.T) @ (units @ whole.T).T, units @ units.T, atol=1e-5)
    assert float(((units @ part.T) ** 2).sum() / (units**2).sum()) > 0.99


@pytest.mark.parametrize("frozen", [True, False])
def test_training_starts_at_the_max_sim_of_the_encoders_own_tokens(encoder_folder: Path, frozen: bool) -> None:
    student = made(encoder_folder, frozen=frozen, scale=1.0)
    student.module.eval()
    scores = student.scores(batch_of(GROUPS, texts_by_id(GROUPS))).detach()
    model = load_torch(encoder_folder)

    def tokens(texts: list[str], prompt: str) -> list[Any]:
        found = model.encode(texts, prompt_name=prompt, output_value="token_embeddings", show_progress_bar=False)
        return [torch.nn.functional.normalize(rows, dim=-1) for rows in found]

    for group, row in zip(GROUPS, scores, strict=True):
        (query,) = tokens([group.query.text], "query")
        for score, document in zip(row, tokens([d.id for d in group.documents], "document"), strict=False):
            assert float(score) == pytest.approx(float((query @ document.T).amax(dim=1).mean()), abs=2e-3)


def test_the_saved_folder_gives_sentence_and_projected_token_vectors(encoder_folder: Path, tmp_path: Path) -> None:
    student = made(encoder_folder, dimension=8)
    student.save(tmp_path / "saved")
    kinds = [entry["type"].rpartition(".")[2] for entry in json.loads((tmp_path / "saved/modules.json").read_text())]
    assert kinds == ["Transformer", "Pooling", "Dense", "Dense"]
    before, after = load_torch(encoder_folder), load_torch(tmp_path / "saved")
    assert after.prompts == before.prompts
    text = "falcon hunts in winter"
    assert np.allclose(before.encode(text), after.encode(text), atol=1e-5)
    (theirs,) = after.encode([text], prompt_name="document", output_value="token_embeddings")
    ours, _ = student.token_vectors([text], query=False)
    assert torch.allclose(torch.nn.functional.normalize(theirs, dim=-1), ours[0], atol=5e-3)
    again = LateStudent(tmp_path / "saved", LateSettings(dimension=8), [])
    assert torch.equal(again.module["head"].linear.weight, student.module["head"].linear.weight)


def test_a_frozen_encoder_reads_each_text_once_and_only_the_head_learns(encoder_folder: Path) -> None:
    student = made(encoder_folder)
    batch = batch_of(GROUPS, texts_by_id(GROUPS))
    student._vectors = None  # type: ignore[assignment]  # from here on nothing can be read
    assert student.scores(batch).shape == (2, 3)
    assert [name for name, _ in student.module.named_parameters()] == ["head.linear.weight"]


def test_own_scores_are_those_of_the_whole_matrix(encoder_folder: Path) -> None:
    batch = batch_of(GROUPS, texts_by_id(GROUPS))
    student = made(encoder_folder)
    assert torch.allclose(student.scores(batch), batch.own(max_sim(*student._of_batch(batch))), atol=1e-5)


def test_a_trained_head_is_exported_with_the_sentence_vectors_as_they_were(
    encoder_folder: Path, tmp_path: Path
) -> None:
    student = made(encoder_folder, dimension=8)
    torch.nn.init.normal_(student.module["head"].linear.weight)
    student.save(tmp_path / "saved")
    source = find_source(str(tmp_path / "saved"), offline=True)
    report = export(source, tmp_path / "onnx", precision="fp32")
    encoder = OnnxTokenEncoder(report.folder)
    assert (encoder.description.prompts.query, report.description.dimension) == ("query: ", 8)
    texts = [document.id for document in GROUPS[0].documents]
    for query, given in ((True, encoder.encode_queries(texts)), (False, encoder.encode_documents(texts))):
        vectors, mask = student.token_vectors(texts, query=query)
        for one, rows, valid in zip(given, vectors, mask, strict=True):
            assert one == pytest.approx(rows[valid].detach().numpy(), abs=2e-3)  # held in float16
    sentences = OnnxEncoder(report.folder).encode_documents(texts)
    before = load_torch(encoder_folder).encode_document(texts, normalize_embeddings=True)
    assert sentences == pytest.approx(before, abs=1e-4)


def test_a_full_disk_is_told(encoder_folder: Path) -> None:
    with limited_files(100), pytest.raises(ModelError, match=r"the token vectors of 2 texts cannot be kept \("):
        made(encoder_folder)


def test_our_kernel_agrees(encoder_folder: Path) -> None:
    student = made(encoder_folder, scale=1.0)
    queries, query_mask = student.token_vectors([GROUPS[0].query.text], query=True)
    documents, mask = student.token_vectors([d.id for d in GROUPS[0].documents], query=False)
    theirs = max_sim(queries, documents, mask)[0] / query_mask.sum()
    query = queries[0].detach().numpy()
    rows = [document[valid].detach().numpy() for document, valid in zip(documents, mask, strict=True)]
    offsets = np.cumsum([0, *map(len, rows)])
    of_kernel = maxsim(query, np.concatenate(rows), offsets) / len(query)
    assert theirs.tolist() == pytest.approx(of_kernel.tolist(), abs=1e-5)


def test_a_dimension_above_the_hidden_size_is_refused(encoder_folder: Path) -> None:
    with pytest.raises(UsageError, match="dimension = 33; expected at most 32"):
        made(encoder_folder, dimension=33)


def test_a_head_that_is_there_is_trained_on_and_names_the_dimension(tmp_path: Path) -> None:
    folder = make_joint_encoder(tmp_path / "joint")
    before = load_torch(folder)[-1].linear.weight
    assert torch.equal(made(folder, dimension=8).module["head"].linear.weight, before)
    with pytest.raises(UsageError, match="dimension = 32; expected 8, as the model's own head"):
        made(folder)
