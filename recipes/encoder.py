"""The bundled encoder: all-MiniLM-L6-v2 in int8 with a projection of its token vectors to 128 dimensions.

    python recipes/encoder.py DATA OUT

DATA holds BEIR folders of the names below; OUT, a new folder, becomes the exported model. The projection is the
principal directions of the encoder's own last hidden states, from texts alone: no query and no judgment has a part in
it. See docs/MODELS.md for why it is not trained further. Some minutes on two cores.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules.dense import Dense

from tiercel.data.corpus import read_documents
from tiercel.models.description import ModelSource
from tiercel.models.export_late_interaction import export
from tiercel.models.zoo import find_source
from tiercel.training.late_interaction import principal_directions

COLLECTIONS = ("nq-qed-dev", "squad-part", "medquad", "pubmedqa-l")
"""Whose texts are read: Wikipedia, CC BY-SA 3.0 and 4.0; NIH, CC BY 4.0; PubMed, MIT."""

NAME = "tiercel-minilm"
DIMENSION = 128
TEXTS = 500
"""Of each collection."""


def main(data: Path, out: Path) -> None:
    model = SentenceTransformer(str(find_source("all-MiniLM-L6-v2", offline=True).folder), device="cpu")
    head = projection(model, sample(data))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / NAME
        SentenceTransformer(modules=[*model, head], device="cpu").save(str(folder), create_model_card=False)
        (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n", encoding="utf-8")
        source = ModelSource(NAME, folder, "sentence-transformers/all-MiniLM-L6-v2, token vectors projected")
        report = export(source, out, precision="int8", max_tokens=256)
    print(f"{out}: {report.size_bytes / 1e6:.1f} MB, {report.description.parity}")


def sample(data: Path) -> list[str]:
    """The same texts whenever it is called."""
    draw = random.Random(0)
    return [
        document.full_text
        for name in COLLECTIONS
        for document in draw.sample(sorted(read_documents([data / name]), key=lambda document: document.id), TEXTS)
    ]


def projection(model: SentenceTransformer, texts: list[str]) -> Dense:
    """A linear module that keeps most of the products of the texts' token vectors."""
    tokens: Any = model.encode(texts, output_value="token_embeddings", batch_size=32)
    hidden = torch.cat(list(tokens)).float()
    head = Dense(
        hidden.shape[1],
        DIMENSION,
        bias=False,
        activation_function=torch.nn.Identity(),
        module_input_name="token_embeddings",
        module_output_name="token_embeddings",
    )
    head.linear.weight.data.copy_(principal_directions(hidden, DIMENSION))
    return head


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
