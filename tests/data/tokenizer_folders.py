"""Tiny tokenizers of each kind, trained here so that tests need nothing from outside, and texts hard to encode."""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SENTENCES = [
    "Once upon a time there was a little girl named Lily who lived near the sea.",
    "The court held that § 3 of the statute applies, and the appeal was dismissed.",
    "Artikel 1: Die Würde des Menschen ist unantastbar. Übrigens schön.",
    "中华人民共和国宪法第一条 国家性质。人民法院依照法律规定独立行使审判权。",
    "def f(x):\n    return  x ** 2  # two  spaces\n\n\tprint(f(3))",
    "It's they'll we've I'm you'd; 1234567890 3.14159 10,000.",
] * 20

ODD_TEXTS = [
    "hello world",
    " leading space",
    "  two  leading, trailing  ",
    "\n\nnew\nlines\r\n",
    "\ttabs\t\t",
    "",
    " ",
    "e\u0301 combining, é precomposed, ﬁ ligature, Å Å",
    "\u00a0no-break\u3000ideographic\u2009thin",
    "日本語 中文 𝒳 😀👩‍👩‍👧 🇧🇷",
    "\ufeffbyte order mark a\u200bb zero width",
    "▁literal▁metaspace",
    "<0x41> not a byte",
    "\x00null\x07bell",
    "שלום عليكم हिन्दी",
    "It's 12345 they'LL 1,000.50",
    "special </s> inside</s>and<s> begin <unk> <|endoftext|> <|im_start|>user",
    "</s>",
    "a</s> b</s>  c",
]


def _write(folder: Path, files: dict) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def byte_level_folder(folder: Path) -> Path:
    """Like Llama 3's: byte-level BPE, a BOS that the post-processor adds, the generic class."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|begin_of_text|>", "<|end_of_text|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", tokenizer.token_to_id(special[0]))]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return _write(
        folder,
        {
            "config.json": {"model_type": "llama"},
            "tokenizer_config.json": {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": {"content": special[0], "__type": "AddedToken"},
                "eos_token": special[1],
            },
        },
    )


def qwen2_folder(folder: Path) -> Path:
    """Like Qwen2's: NFC, byte-level BPE, no BOS, chat tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    chat = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in chat])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    added = {str(tokenizer.token_to_id(t)): {"content": t, "special": True, "normalized": False} for t in chat}
    return _write(
        folder,
        {
            "config.json": {"model_type": "qwen2", "bos_token_id": tokenizer.token_to_id(chat[0])},
            "tokenizer_config.json": {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": None,
                "eos_token": chat[0],
                "added_tokens_decoder": added,
            },
        },
    )


def sentencepiece_folder(folder: Path, config: dict | None, model_type: str = "bpe", **settings) -> Path:
    """Like Llama 2's: SentencePiece with byte fallback and a dummy prefix."""
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=420,
        model_type=model_type,
        **{"byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False, **settings},
        character_coverage=0.98,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "tokenizer.vocab").unlink()
    files = {"config.json": {"model_type": "llama", "bos_token_id": 1, "eos_token_id": 2}}
    return _write(folder, files if config is None else {**files, "tokenizer_config.json": config})


LLAMA_CLASS = {
    "tokenizer_class": "LlamaTokenizer",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "add_bos_token": True,
    "add_eos_token": False,
}
