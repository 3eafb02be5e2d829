"""Corpora of made-up texts, and what a policy is given of them, for the tests of this folder."""

import json

import jax
import numpy as np

from cptjax.data.sources import find_source
from cptjax.data.units import make_units
from cptjax.selection.corpus import Corpus
from cptjax.selection.stages import Stages
from cptjax.sharding.mesh import build_mesh


def topical(generator, topics=8, words=400, length=60):
    """A text of one of so many topics: words of its own, and some that all have."""
    topic = int(generator.integers(topics))
    own = [f"t{topic}w{i}" for i in generator.integers(words, size=length)]
    shared = [f"common{i}" for i in generator.integers(30, size=length)]
    return [o if keep else s for o, s, keep in zip(own, shared, generator.random(length) < 0.7, strict=True)]


def corpus_of(texts, folder, fields=None):
    """The corpus of these texts, sizes in bytes; `fields` of each record beside its text."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "texts.jsonl"
    fields = fields or [{}] * len(texts)
    records = [{"id": f"d{i}", **more, "text": text} for i, (text, more) in enumerate(zip(texts, fields, strict=True))]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    units = make_units(find_source("INPUT", str(path)), None, "documents", 1, folder / "units")
    stages = Stages(folder / "stages", lambda line: None)
    mesh = build_mesh({"fsdp": 1}, jax.devices()[:1])
    return Corpus(units, np.arange(len(units)), {"files": path.name}, None, stages, lambda: mesh)
