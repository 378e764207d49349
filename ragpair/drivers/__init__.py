"""All I/O that there is: flows are run with threads or with tasks.

`exchange` knows the HTTP library, `replicas` which server is asked next, `permits` how many requests are in flight, and
`attempts` when to try again; `threads` and `tasks` are the loops around them. The embedded engine in `ragpair.local` is
called from here too. Everything above and below is pure.
"""

from ragpair.drivers.replicas import Replicas
from ragpair.drivers.tasks import AsyncDriver
from ragpair.drivers.threads import SyncDriver

__all__ = ["AsyncDriver", "Replicas", "SyncDriver"]
