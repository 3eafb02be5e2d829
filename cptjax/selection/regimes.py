"""The two ways to compare shares of a corpus (D4, arXiv 2308.12284, section 3).

Fixed data: the corpus is what it is, a share R of it is kept and trained on for as long as is wanted: fewer tokens, more epochs.
Fixed compute: T tokens are trained on once; T / R are drawn from the corpus, and R of them kept: a smaller R needs more text.
"""

from cptjax.errors import ConfigurationError
from cptjax.selection.policies import Chain, Drawn, Policy

FIXED_DATA, FIXED_COMPUTE = "fixed_data", "fixed_compute"
REGIMES = (FIXED_DATA, FIXED_COMPUTE)


def under(regime: str, policy: Policy, train_tokens: int | None, seed: int = 0) -> Policy:
    """The policy in a regime: of fixed compute, with what it chooses from drawn just before it.

    Args:
        policy: in a chain the last one is the one whose share counts.

    Raises:
        ConfigurationError: an unknown regime; fixed compute without tokens to train on, or of a policy that keeps no given share
            of tokens.
    """
    if regime not in REGIMES:
        raise ConfigurationError(f"REGIME = {regime!r}: one of {', '.join(REGIMES)}.")
    if regime == FIXED_DATA:
        return policy
    if train_tokens is None:
        raise ConfigurationError(
            "REGIME = 'fixed_compute' needs TRAIN_TOKENS: the tokens that are selected, and read once."
        )
    earlier = list(policy.policies[:-1]) if isinstance(policy, Chain) else []
    last = policy.policies[-1] if isinstance(policy, Chain) else policy
    share = getattr(last, "share", None)
    if share is None or _of(last) != "tokens":
        raise ConfigurationError(
            f"REGIME = 'fixed_compute' needs a policy that keeps a given share of the tokens; {type(last).__name__} does not here."
        )
    return Chain([*earlier, Drawn(round(train_tokens / share), seed), last])


def _of(policy: Policy) -> str:
    """What a policy's share is of."""
    settings = getattr(policy, "settings", None) or getattr(policy, "budget", None) or policy
    return getattr(settings, "of", "units")
