"""Other choices of experts at inference: a trained router's logits, another rule for the pick.

`names` lists the rules and `make` builds one. A rule sees logits alone, so that it serves the
language model of this package and any pretrained one; torch is loaded when a rule is first called.
"""

from topomoe.moe.assignment.registry import Assigner, make, names

__all__ = ["Assigner", "make", "names"]
