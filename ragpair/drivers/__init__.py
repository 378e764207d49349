"""The only I/O of the package: two drivers run the same flows, one with threads, one with tasks.

A driver sends calls, limits how many are in flight, balances replicas, retries, and times out. It hands back whatever
answer came, with any status, since only the flow knows what a status means; when no answer came at all, it throws
`EndpointUnreachable` into the flow.
"""

from ragpair.drivers.tasks import AsyncDriver
from ragpair.drivers.threads import SyncDriver

__all__ = ["AsyncDriver", "SyncDriver"]
