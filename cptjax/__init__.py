"""cptjax: continued pretraining of language models in JAX. Importing it imports nothing else."""

__version__ = "0.1.0"
