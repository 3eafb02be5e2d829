"""Tiny tokenizers of each kind, for all tests of data."""

from pathlib import Path

import pytest
from tokenizer_folders import LLAMA_CLASS, byte_level_folder, qwen2_folder, sentencepiece_folder


@pytest.fixture(scope="session")
def byte_level(tmp_path_factory) -> Path:
    return byte_level_folder(tmp_path_factory.mktemp("tokenizers") / "byte_level")


@pytest.fixture(scope="session")
def qwen2(tmp_path_factory) -> Path:
    return qwen2_folder(tmp_path_factory.mktemp("tokenizers") / "qwen2")


@pytest.fixture(scope="session")
def llama(tmp_path_factory) -> Path:
    return sentencepiece_folder(tmp_path_factory.mktemp("tokenizers") / "llama", LLAMA_CLASS)
