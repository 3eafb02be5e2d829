"""What `transformers` makes of a tokenizer's folder beyond its tokenizer.json: the class it reads it with, and added tokens.

Version 5 does not run every tokenizer.json as it says. Some of its classes take only the vocabulary from it and put a normalizer
and a pre-tokenizer of their own in place of the file's; which class it is follows from the model type and `tokenizer_class`.
The rules are those of its AutoTokenizer, for decoders; what is not listed here is run as the file says.
"""

import json
from collections.abc import Collection, Mapping

from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers

SPACE = "\u2581"  # how SentencePiece writes a space inside a piece
# Where a text is cut before byte-pair encoding, as every Qwen2 tokenizer.json has it.
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA, _QWEN2, _GEMMA, _GPT2, _NEOX = (f"{name}Tokenizer" for name in ("Llama", "Qwen2", "Gemma", "GPT2", "GPTNeoX"))
# The class of a model type whose folder names none.
_OF_MODEL = {
    **dict.fromkeys(["qwen2", "qwen2_moe", "qwen3", "qwen3_moe"], _QWEN2),
    **dict.fromkeys(["gemma", "gemma2", "gemma3", "gemma3_text", "recurrent_gemma"], _GEMMA),
    **dict.fromkeys(["gpt2", "gpt_neo", "gptj", "phi", "opt", "starcoder2", "codegen"], _GPT2),
    **dict.fromkeys(["gpt_neox", "olmo", "olmoe", "mamba", "mamba2", "falcon_mamba", "mpt"], _NEOX),
}
# Model types whose class is settled, whatever the folder names. None: the file as it says.
_SETTLED = {
    "qwen2": _QWEN2,
    **dict.fromkeys(
        ["mistral", "mixtral", "ministral", "ministral3", "mistral3", "phi3", "phimoe", "nemotron", "jamba"]
    ),
    **dict.fromkeys(["olmo2", "olmo3", "flex_olmo", "granite", "granitemoe", "stablelm", "gpt_bigcode", "persimmon"]),
    **dict.fromkeys(["glm", "glm4", "glm4_moe", "internlm2", "internlm3", "minicpm3", "minimax_m2", "arctic"]),
}
_NAMED = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
# What a class names where the folder does not.
_LLAMA_NAMES = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
_END = {name: "<|endoftext|>" for name in ("unk_token", "eos_token")}
_DEFAULTS = {
    **dict.fromkeys(["first", "always", "never"], _LLAMA_NAMES),
    **dict.fromkeys(["qwen2", "gpt2", "neox"], _END),
    "gemma": {f"{name}_token": f"<{name}>" for name in ("unk", "bos", "eos", "pad", "mask")},
}


def pipeline_of(declared: Mapping, config: Mapping, source: Mapping) -> str | None:
    """What takes the place of the file's normalizer and pre-tokenizer; None: nothing does.

    "qwen2", "gpt2" or "neox" (each also with " prefix": a space before a text that has none), "gemma", or Llama's way with
    spaces: "first" (a space before a text that has none), "always" (before each part between special tokens), "never".

    Args:
        declared: tokenizer_config.json.
        config: config.json.
        source: tokenizer.json.
    """
    if source["model"].get("type") != "BPE":
        return None
    model_type = config.get("model_type")
    named = (declared.get("tokenizer_class") or config.get("tokenizer_class") or "").removesuffix("Fast")
    if model_type in _SETTLED:
        chosen = _SETTLED[model_type]
    else:
        chosen = named or _OF_MODEL.get(model_type)
    prefix = declared.get("add_prefix_space")
    if chosen == _LLAMA:
        if '"ByteLevel"' in json.dumps(
            [source.get(name) for name in ("normalizer", "pre_tokenizer", "decoder", "post_processor")]
        ):
            return None
        if prefix is not None and not prefix:
            return "never"
        return "always" if declared.get("legacy", False) else "first"
    known = {_QWEN2: "qwen2", _GPT2: "gpt2", _NEOX: "neox", _GEMMA: "gemma"}.get(chosen)
    return f"{known} prefix" if known and known != "gemma" and prefix else known


def with_pipeline(source: Mapping, pipeline: str, listed: Collection[int] | None) -> dict:
    """A tokenizer.json with its pipeline replaced (`pipeline_of`), and no added tokens but those of the ids `listed`, if any."""
    kind, _, prefix = pipeline.partition(" ")
    options: dict[str, object] = {"dropout": None, "ignore_merges": False}
    by_bytes = {
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "unk_token": None,
        "fuse_unk": False,
        "byte_fallback": False,
    }
    normalizer, decoder = None, decoders.ByteLevel()
    if kind == "qwen2":
        normalizer = normalizers.NFC()
        cut = pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated")
        split = pre_tokenizers.ByteLevel(add_prefix_space=bool(prefix), use_regex=False)
        before = pre_tokenizers.Sequence([cut, split])
        options |= by_bytes
    elif kind in ("gpt2", "neox"):
        normalizer = normalizers.NFC() if kind == "neox" else None
        before = pre_tokenizers.ByteLevel(add_prefix_space=bool(prefix))
        options |= by_bytes
    else:
        of_spaces = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
        options |= {"fuse_unk": True, "byte_fallback": True}
        if kind == "gemma":
            normalizer, before = normalizers.Replace(" ", SPACE), pre_tokenizers.Split(" ", "merged_with_previous")
        else:
            before = pre_tokenizers.Metaspace(SPACE, kind, split=False)
            options["unk_token"] = None
            if kind != "never":
                of_spaces.append(decoders.Strip(" ", 1, 0))
        decoder = decoders.Sequence(of_spaces)
    parts = {"normalizer": normalizer, "pre_tokenizer": before, "decoder": decoder}
    changed = {name: None if part is None else json.loads(part.__getstate__()) for name, part in parts.items()}
    replaced = {**source, **changed, "model": {**source["model"], **options}}
    if listed is not None:
        replaced["added_tokens"] = [token for token in source.get("added_tokens", []) if token["id"] in listed]
    return replaced


def added_tokens(
    declared: Mapping, special_tokens_map: Mapping, pipeline: str | None
) -> tuple[dict[int, AddedToken], list[AddedToken]]:
    """The tokens that tokenizer_config.json lists with their ids, and those that it or special_tokens_map.json names.

    A named token has the rules (which spaces it takes up) that the list gives it.
    """
    numbered = {
        int(i): _token(token) for i, token in (declared.get("added_tokens_decoder") or {}).items() if content(token)
    }
    if "added_tokens_decoder" not in declared:
        declared = {**declared, **special_tokens_map}
    declared = {**_DEFAULTS.get((pipeline or "").split(" ")[0], {}), **declared}
    found = [declared.get(f"{kind}_token") for kind in _NAMED]
    found += [
        value for key, value in declared.items() if key.endswith("_token") and key.removesuffix("_token") not in _NAMED
    ]
    extra = declared.get("extra_special_tokens") or declared.get("additional_special_tokens") or []
    found += extra.values() if isinstance(extra, Mapping) else extra
    listed = {token.content for token in numbered.values()}
    named: dict[str, AddedToken] = {}
    for token in found:
        if isinstance(token, str | Mapping) and content(token) and content(token) not in listed:
            made = named.setdefault(content(token), _token(token))
            made.special = True
    return numbered, list(named.values())


def content(token: object) -> str | None:
    """A special token is written as a string or as {"content": ...}."""
    return token.get("content") if isinstance(token, Mapping) else token  # type: ignore[return-value]


def _token(token: str | Mapping) -> AddedToken:
    if isinstance(token, str):
        return AddedToken(token, special=True)
    rules = {
        name: bool(token[name])
        for name in ("single_word", "lstrip", "rstrip", "normalized", "special")
        if name in token
    }
    return AddedToken(token["content"], **rules)
