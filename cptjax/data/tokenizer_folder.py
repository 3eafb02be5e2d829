"""The files of a tokenizer's folder, so that `open_tokenizer` and `transformers` give every text the same ids."""

import json

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

from cptjax.data.tokenizer_class import SPACE
from cptjax.data.tokenizer_training import SPECIAL

_NORMAL, _BYTE = 1, 6  # kinds of pieces in a SentencePiece model


def tokenizer_files(model: bytes, kind: str) -> dict[str, bytes]:
    """What a folder must hold beside nothing else, by name, for a SentencePiece model of a kind ("bpe" or "unigram").

    `transformers` reads a SentencePiece model as BPE whatever it is. So a unigram one is written as tokenizer.json too,
    which both then read.
    """
    config = {
        "tokenizer_class": "LlamaTokenizer" if kind == "bpe" else "PreTrainedTokenizerFast",
        "add_bos_token": True,
        "add_eos_token": False,
        "add_prefix_space": False,
        "legacy": False,
        "clean_up_tokenization_spaces": False,
        **{f"{name}_token": token for name, token in SPECIAL.items()},
    }
    files = {"tokenizer.model": model, "tokenizer_config.json": (json.dumps(config, indent=1) + "\n").encode()}
    if kind == "unigram":
        files["tokenizer.json"] = (unigram_json(model) + "\n").encode()
    return files


def unigram_json(model: bytes) -> str:
    """A unigram SentencePiece model without dummy prefix or normalisation, as the `tokenizers` library has it.

    In SentencePiece "<0x0A>" written in a text is six characters and never the byte of that name; here the piece would
    win over them. Its score is put below that of the six characters, which is why each of them must have a piece.
    """
    from sentencepiece import sentencepiece_model_pb2

    pieces = sentencepiece_model_pb2.ModelProto.FromString(model).pieces
    below = len("<0x0A>") * min(piece.score for piece in pieces if piece.type == _NORMAL) - 1
    scored = [(piece.piece, below if piece.type == _BYTE else piece.score) for piece in pieces]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=0, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL.values()])
    bos = SPECIAL["bos"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    return tokenizer.to_str()
