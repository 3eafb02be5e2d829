"""A folder of each kind of tokenizer that checkpoints come with, and texts that are hard on all of them."""

import copy
import json
import shutil
from pathlib import Path

from hypothesis import strategies as st
from tokenizer_folders import LLAMA_CLASS, SENTENCES, byte_level_folder, qwen2_folder, sentencepiece_folder
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

ATOMS = [
    *" \n\t\réab中。§Zﬁ½²①▁",
    *("  ", "    ", "\r\n", "\u00a0", "\u3000", "\u2009", "\u200b", "\u200d", "\ufeff", "\u00ad", "\u2028", "\x85"),
    *("\u0301", "e\u0301", "A\u030a", "\u212b", "\u1112\u1161\u11ab", "ＡＢ", "ǆ", "İ", "ß", "\u0345", "\u0344"),
    *("\x00", "\x07", "\x1b", "\x1c", "\x7f", "\ud7ff", "\ue000", "\uffff", "\U0010ffff", "\u2585"),
    *("שלום", "\u202eعليكم\u202c", "हिन्दी", "ไทย", "한국", "日本", "\U00020000", "𝒳"),
    *("👩‍👩‍👧", "🇩🇪", "😀", "👍🏽", "❤️", "1️⃣"),
    *("<s>", "</s>", "<unk>", "<pad>", "<mask>", "<bos>", "<eos>", "<extra>", "<word>", "[MASK]", "[UNK]", "##a"),
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|end_of_text|>"),
    *("<s", "s>", "</", "<|", "|>", "<0x0A>", "<0x", "▁▁", "<|end", "of_text|>"),
    *("the ", " court", "held", "def f(x):\n    ", "It's", "they'LL", "12345", "3.14", "über"),
]
hard_texts = st.lists(st.one_of(st.sampled_from(ATOMS), st.characters(exclude_categories=["Cs"])), max_size=24).map(
    "".join
)


def write(folder: Path, **files: dict) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def unigram_source(folder: Path, normalization: str = "nmt_nfkc", byte_fallback: bool = False) -> dict:
    """A unigram tokenizer.json like those of T5 and XLM-R: SentencePiece's map of characters, words marked by U+2581."""
    from sentencepiece import sentencepiece_model_pb2

    trained = sentencepiece_folder(
        folder, None, "unigram", normalization_rule_name=normalization, byte_fallback=byte_fallback
    )
    proto = sentencepiece_model_pb2.ModelProto.FromString((trained / "tokenizer.model").read_bytes())
    scored = [(piece.piece, piece.score) for piece in proto.pieces]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=0, byte_fallback=byte_fallback))
    tokenizer.normalizer = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)
    words = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(words)
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return json.loads(tokenizer.to_str())


def wordpiece_source() -> dict:
    """Like BERT's."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]", "[MASK]"], show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return json.loads(tokenizer.to_str())


def llama3_source(source: dict) -> dict:
    """A byte-level file with Llama 3's own cut of words, and whole words taken before merges."""
    changed = copy.deepcopy(source)
    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    cut = pre_tokenizers.Split(Regex(pattern), "isolated")
    by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    changed["pre_tokenizer"] = json.loads(pre_tokenizers.Sequence([cut, by_bytes]).__getstate__())
    changed["model"]["ignore_merges"] = True
    return changed


def every_kind(root: Path, transformers) -> dict[str, Path]:
    """Folders by kind. `transformers` turns a SentencePiece model into the tokenizer.json of Llama 2."""
    byte_level, qwen2 = byte_level_folder(root / "byte_level"), qwen2_folder(root / "qwen2")
    llama = sentencepiece_folder(root / "llama", LLAMA_CLASS)
    transformers.AutoTokenizer.from_pretrained(str(llama)).save_pretrained(str(root / "saved"))
    by_bytes = json.loads((byte_level / "tokenizer.json").read_text())
    metaspace = json.loads((root / "saved" / "tokenizer.json").read_text())
    replacing = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    prepending = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replacing]}
    older = {**metaspace, "normalizer": prepending, "pre_tokenizer": None}
    cut = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    ends = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>", "unk_token": None}
    generic, llama_class = {"tokenizer_class": "PreTrainedTokenizerFast"}, {"tokenizer_class": "LlamaTokenizerFast"}
    of_llama, of_mistral = {"model_type": "llama"}, {"model_type": "mistral"}

    def token(content, **rules):
        return {
            "content": content,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            **rules,
        }

    taking = {
        "added_tokens_decoder": {
            "0": token(ends["bos_token"], special=True, rstrip=True),
            "1": token(ends["eos_token"], special=True, lstrip=True),
            "400": token("<extra>", normalized=True),
            "401": token("<word>", single_word=True),
            "402": token("<mask>", lstrip=True, rstrip=True, special=True),
        },
        "additional_special_tokens": ["he", "Ġt"],
        "image_token": "on",
    }
    made = {
        "byte level": byte_level,
        "qwen2": qwen2,
        "llama 3": write(
            root / "llama3",
            tokenizer=llama3_source(by_bytes),
            tokenizer_config={**llama_class, **ends},
            config=of_llama,
        ),
        "tokens that take up spaces": write(
            root / "rules", tokenizer=by_bytes, tokenizer_config={**generic, **ends, **taking}, config=of_llama
        ),
        "tokens named in special_tokens_map.json": write(
            root / "map", tokenizer=by_bytes, special_tokens_map={**ends, "pad_token": "on", "eos_token": "he"}
        ),
        "unigram with nmt_nfkc": write(root / "nmt", tokenizer=unigram_source(root / "u"), tokenizer_config=generic),
        "unigram with nfkc_cf and bytes": write(
            root / "cf", tokenizer=unigram_source(root / "v", "nfkc_cf", True), tokenizer_config=generic
        ),
        "wordpiece": write(root / "wordpiece", tokenizer=wordpiece_source(), tokenizer_config=generic),
        "gemma": write(
            root / "gemma",
            tokenizer={**metaspace, "normalizer": replacing, "pre_tokenizer": cut},
            tokenizer_config={"tokenizer_class": "GemmaTokenizer", **names, "pad_token": None, "mask_token": None},
            config={"model_type": "gemma"},
        ),
        "gemma read by model type": write(
            root / "gemma2",
            tokenizer=metaspace,
            tokenizer_config={**names, "pad_token": None, "mask_token": None},
            config={"model_type": "gemma2"},
        ),
    }
    for kind, model_type in (("GPT2", "gpt2"), ("GPTNeoX", "olmo"), ("Qwen2", "qwen3")):
        for prefix in (False, True):
            made[f"{kind}, prefix {prefix}"] = write(
                root / f"{kind}-{prefix}",
                tokenizer=by_bytes,
                tokenizer_config={
                    **{"tokenizer_class": f"{kind}Tokenizer", "add_prefix_space": prefix},
                    **ends,
                    **{"pad_token": None},
                },
                config={"model_type": model_type},
            )
    for named, source in (("metaspace", metaspace), ("older", older)):
        for rules in ({"legacy": True}, {"legacy": False}, {"legacy": False, "add_prefix_space": False}, {}):
            called = f"{named} {rules}"
            settings = {**llama_class, **names, **rules}
            made[called] = write(root / called, tokenizer=source, tokenizer_config=settings, config=of_llama)
        made[f"{named} mistral"] = write(
            root / f"{named}-mistral", tokenizer=source, tokenizer_config={**llama_class, **names}, config=of_mistral
        )
        made[f"{named} as it says"] = write(
            root / f"{named}-generic", tokenizer=source, tokenizer_config={**generic, **names}, config=of_llama
        )
    for rules in ({"legacy": True}, {"legacy": False}, {"legacy": False, "add_prefix_space": False}):
        called = f"sentencepiece {rules}"
        made[called] = write(root / called, tokenizer_config={**LLAMA_CLASS, **rules}, config=of_llama)
        shutil.copy(llama / "tokenizer.model", made[called])
        adding = {
            "added_tokens_decoder": {
                **{str(i): token(name, special=True) for i, name in enumerate(["<unk>", "<s>", "</s>"])},
                "3": token("<0x00>"),
                "5": token("<0x02>", lstrip=True),
            }
        }
        made[f"{called} with tokens"] = sentencepiece_folder(
            root / f"{called}-tokens", {**LLAMA_CLASS, **rules, **adding}, user_defined_symbols="<extra>,<word>"
        )
    return made
