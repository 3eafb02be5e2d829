"""The laws by name."""

from cptjax.errors import ConfigurationError
from cptjax.scaling.accuracy import LossToAccuracy
from cptjax.scaling.annealing import Annealing, ContinuedAnnealing
from cptjax.scaling.chinchilla import Chinchilla
from cptjax.scaling.cross_lingual import CrossLingual
from cptjax.scaling.data_constrained import DataConstrained
from cptjax.scaling.law import Law
from cptjax.scaling.mixture import CriticalMixture, DomainMixture, GeneralMixture
from cptjax.scaling.transfer import Forgetting, Transfer
from cptjax.scaling.two_stage import (
    Additive,
    Bootstrapped,
    EffectiveTokens,
    EffectiveTokensBySize,
    FineTuning,
    JointTerm,
    TransferGap,
)

LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        Chinchilla(),
        CrossLingual(),
        EffectiveTokens(),
        EffectiveTokensBySize(),
        TransferGap(),
        Bootstrapped(),
        JointTerm(),
        Additive(),
        FineTuning(),
        DataConstrained(),
        DomainMixture(),
        GeneralMixture(),
        CriticalMixture(),
        Transfer(),
        Forgetting(),
        Annealing(),
        ContinuedAnnealing(),
        LossToAccuracy(),
    )
}


def law_named(name: str) -> Law:
    """The law that LAW names.

    Raises:
        ConfigurationError: there is none of that name.
    """
    if name not in LAWS:
        raise ConfigurationError(
            f"LAW = {name!r} is no law of cptjax.\n  There are: {', '.join(LAWS)} (docs/scaling.md).\n"
            "  A law of your own is given as it is: LAW = @my_laws.MyLaw(), with --allow_imports=my_laws."
        )
    return LAWS[name]
