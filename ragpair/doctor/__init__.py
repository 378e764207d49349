"""`ragpair doctor`: is this server what its user takes it for, and if not, what mends it?

    checkup = examine("http://localhost:8000", Ask())   # facts; the only part that asks the server anything
    findings = diagnose(checkup)                        # what they mean; pure
    agreement([checkup, other])                         # whether replicas are replicas; pure

Mis-launches that the core recognises when an `Embedder` or a `Reranker` is first used are not recognised here a second
time: their errors are facts of the checkup, and the diagnosis adds why they matter and the launch that mends them.
"""

from ragpair.doctor.checkup import examine, task_of
from ragpair.doctor.diagnosis import agreement, diagnose
from ragpair.doctor.values import Ask, Checkup, Finding

__all__ = ["Ask", "Checkup", "Finding", "agreement", "diagnose", "examine", "task_of"]
