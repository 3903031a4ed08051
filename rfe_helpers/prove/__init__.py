"""Proofs that updates are safe (notebook 67): slow and broken links, killed machines, power loss.

For example:

    from rfe_helpers.prove import Proof, interruptions

    proof = Proof.of("~/rfe-lab", "edge-1")          # a machine that is off, an update published
    with proof.saved() as saved:
        print(interruptions.table(interruptions.rounds(proof.lab, saved, 10, seed=1)))
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
