"""Tiny random models, made through the real libraries and saved the way those save them."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

_WORDS = [
    "a", "the", "in", "is", "it", "and", "of", "by", "who", "how", "what", "nobody", "falcon", "falcons", "hunts",
    "hunt", "river", "house", "bread", "winter", "summer", "cold", "deep", "sold", "swims", "bridge", "paid", "small",
    "far", "north", "tower", "query", "passage",
]  # fmt: skip
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS, *"abcdefghijklmnopqrstuvwxyz", ":", ".", ",", "?"]
VOCABULARY += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]

MAX_TOKENS = 24
QUERY_PROMPT = "query: "
DOCUMENT_PROMPT = "passage: "


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The libraries warn about themselves, and here a warning is an error."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def make_encoder(folder: Path, *, architecture: str = "bert", prompts: bool = False) -> Path:
    """Transformer, mean pooling, a dense layer: hidden 32, 2 layers, 16 dimensions. Saved as safetensors."""
    with quiet():
        import torch
        from sentence_transformers import SentenceTransformer, models

        torch.manual_seed(7)
        base = folder.parent / f"{folder.name}-base"
        _make_transformer(base, architecture)
        transformer = models.Transformer(str(base), max_seq_length=MAX_TOKENS)
        pooling = models.Pooling(32, pooling_mode="mean")
        dense = models.Dense(32, 16, activation_function=torch.nn.Tanh())
        chosen = {"query": QUERY_PROMPT, "document": DOCUMENT_PROMPT} if prompts else None
        model = SentenceTransformer(modules=[transformer, pooling, dense], device="cpu", prompts=chosen)
        model.save(str(folder), safe_serialization=True)
    return folder


def make_joint_encoder(folder: Path) -> Path:
    """Transformer, mean pooling, and behind them a linear projection of the tokens to 8 dimensions."""
    with quiet():
        import torch
        from sentence_transformers import SentenceTransformer, models

        torch.manual_seed(7)
        base = folder.parent / f"{folder.name}-base"
        _make_transformer(base, "bert")
        transformer = models.Transformer(str(base), max_seq_length=MAX_TOKENS)
        pooling = models.Pooling(32, pooling_mode="mean")
        chosen = {"query": QUERY_PROMPT, "document": DOCUMENT_PROMPT}
        model = SentenceTransformer(modules=[transformer, pooling, _projection()], device="cpu", prompts=chosen)
        model.save(str(folder), safe_serialization=True)
    return folder


def make_multi_vector(
    folder: Path,
    *,
    architecture: str = "bert",
    expansion: dict[str, Any] | None = None,
    query_length: int | None = None,
    skipped: Sequence[str] = (),
    prompts: dict[str, str] | None = None,
    normalized: bool = True,
) -> Path:
    """A MultiVectorEncoder of 8 dimensions with documents of 20 tokens, saved by sentence-transformers."""
    with quiet():
        import torch
        from sentence_transformers import MultiVectorEncoder
        from sentence_transformers.base.modules import Normalize, Transformer
        from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

        torch.manual_seed(7)
        base = folder.parent / f"{folder.name}-base"
        _make_transformer(base, architecture)
        lengths: dict[str, Any] = {"query_length": query_length, "document_length": 20, "query_expansion": expansion}
        transformer = Transformer(str(base), max_seq_length=MAX_TOKENS, **lengths)
        modules = [transformer, _projection(), MultiVectorMask(skiplist_words=list(skipped))]
        if normalized:
            modules.append(Normalize(module_input_name="token_embeddings"))
        MultiVectorEncoder(modules=modules, device="cpu", prompts=prompts).save(str(folder))
    return folder


def make_stanford(folder: Path, **settings: Any) -> Path:
    """A ColBERT as Stanford's code saves it: BERT with a projection to 8 dimensions, and artifact.metadata."""
    with quiet():
        import torch
        from transformers import BertConfig, BertModel, BertPreTrainedModel

        class HF_ColBERT(BertPreTrainedModel):  # type: ignore[misc]
            def __init__(self, config: Any) -> None:
                super().__init__(config)
                self.bert = BertModel(config)
                self.linear = torch.nn.Linear(config.hidden_size, 8, bias=False)
                self.post_init()

        torch.manual_seed(7)
        markers = ["[unused0]", "[unused1]"]
        model = HF_ColBERT(BertConfig(**_SIZES, vocab_size=len(VOCABULARY) + 2, max_position_embeddings=64))
        _spread(model)
        model.save_pretrained(folder)
        write_tokenizer(folder, added=markers)
        common = {"query_token_id": markers[0], "doc_token_id": markers[1], "query_maxlen": 12, "doc_maxlen": 20}
        (folder / "artifact.metadata").write_text(json.dumps(common | settings))
    return folder


def _projection() -> Any:
    import torch
    from sentence_transformers.base.modules.dense import Dense

    linear = torch.nn.Identity()
    return Dense(32, 8, bias=False, activation_function=linear, module_input_name="token_embeddings")


def load_multi_vector(folder: Path) -> Any:
    """A late-interaction model through sentence-transformers."""
    with quiet():
        from sentence_transformers import MultiVectorEncoder

        return MultiVectorEncoder(str(folder), device="cpu", local_files_only=True)


def make_cross_encoder(folder: Path, *, architecture: str = "bert", labels: int = 1, modules: bool = False) -> Path:
    """A sequence classifier of hidden size 32 and 2 layers, saved by transformers, or by sentence-transformers."""
    with quiet():
        import torch
        import transformers
        from sentence_transformers import CrossEncoder

        torch.manual_seed(7)
        name, settings = _CROSS_ENCODERS[architecture]
        common: dict[str, Any] = {"vocab_size": len(VOCABULARY), "max_position_embeddings": MAX_TOKENS + 40}
        config = getattr(transformers, f"{name}Config")(**common | settings, num_labels=labels)
        network = getattr(transformers, f"{name}ForSequenceClassification")(config)
        _spread(network)
        network.save_pretrained(folder)
        write_tokenizer(folder, roberta=architecture == "roberta")
        if modules:
            CrossEncoder(str(folder), device="cpu", local_files_only=True).save(str(folder))
    return folder


def load_cross(folder: Path, *, max_tokens: int | None = None) -> Any:
    """The same model through sentence-transformers."""
    with quiet():
        from sentence_transformers import CrossEncoder

        return CrossEncoder(str(folder), device="cpu", local_files_only=True, max_length=max_tokens)


def make_uni_encoder(folder: Path, *, mask: str = "one-way", group_size: int = 0) -> Path:
    """A Uni-Encoder that reads contexts of 40 tokens and candidates of 24, under a random head."""
    from tiercel.models.uni_checkpoint import UniCheckpoint, save_uni_encoder
    from tiercel.models.uni_inputs import UniSettings
    from tiercel.models.uni_network import UniEncoder

    with quiet():
        import torch
        from transformers import AutoTokenizer

        settings = UniSettings(mask, group_size, context_tokens=40, candidate_tokens=24)  # type: ignore[arg-type]
        network = UniEncoder(make_bert(), settings.mask)
        torch.nn.init.normal_(network.head.weight)
        write_tokenizer(folder)
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        save_uni_encoder(UniCheckpoint(network.eval(), tokenizer, settings), folder)
    return folder


_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_ROLES = {"pad_token_id": 0, "bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3}
_DEBERTA = {
    "type_vocab_size": 0, "relative_attention": True, "position_buckets": 16, "pos_att_type": ["c2p", "p2c"],
    "norm_rel_ebd": "layer_norm", "share_att_key": True,
}  # fmt: skip
_CROSS_ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", _SIZES),
    "roberta": ("Roberta", _SIZES | {"type_vocab_size": 1, "pad_token_id": 0}),
    "electra": ("Electra", _SIZES | {"embedding_size": 32}),
    "distilbert": ("DistilBert", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}),
    "modernbert": ("ModernBert", _SIZES | _ROLES),
    "deberta": ("DebertaV2", _SIZES | _DEBERTA),
}


def load_torch(folder: Path) -> Any:
    """The same model through sentence-transformers."""
    with quiet():
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def _make_transformer(folder: Path, architecture: str) -> None:
    from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

    sizes = {"vocab_size": len(VOCABULARY), "max_position_embeddings": 64}
    if architecture == "bert":
        config = BertConfig(**sizes, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
        network = BertModel(config)
    else:
        network = DistilBertModel(DistilBertConfig(**sizes, dim=32, n_layers=2, n_heads=4, hidden_dim=64))
    _spread(network)
    network.save_pretrained(folder, safe_serialization=True)
    write_tokenizer(folder)


def make_bert(*, layers: int = 2, positions: int = 64) -> Any:
    """A BertModel without a pooler, in evaluation mode, hidden 32; not saved."""
    with quiet():
        import torch
        from transformers import BertConfig, BertModel

        torch.manual_seed(7)
        sizes = _SIZES | {"num_hidden_layers": layers, "max_position_embeddings": positions}
        config = BertConfig(**sizes, vocab_size=len(VOCABULARY), attn_implementation="eager")
        network = BertModel(config, add_pooling_layer=False)
        _spread(network)
        return network.eval()


def _spread(network: Any) -> None:
    """Weights as they are drawn (deviation .02) give all texts nearly the same vector."""
    for weight in network.parameters():
        if weight.dim() > 1:
            weight.data.mul_(6.0)


def write_tokenizer(folder: Path, *, roberta: bool = False, added: Sequence[str] = ()) -> Path:
    """A lower-casing WordPiece tokenizer.json over VOCABULARY, with the files beside it that transformers reads.

    `roberta`: pairs are joined by two separators, and there are no token types.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = [*VOCABULARY, *added]
    ids = {token: position for position, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    if roberta:
        tokenizer.post_processor = processors.RobertaProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    tokenizer.enable_padding(length=64)  # what a published tokenizer.json often declares, and ours must undo
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    settings: dict[str, Any] = {
        "tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 64, "pad_token": "[PAD]",
        "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]",
    }  # fmt: skip
    if roberta:
        settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder / "tokenizer.json"
