"""Ad traffic with a known true click probability, streamed to disk.

    world ──▶ page views ──▶ truth ──▶ clicks ──▶ faults ──▶ impressions.ndjson, clicks.ndjson
                  ▲            │          │
                  └─ histories ◀──────────┘            └──▶ truth.parquet

`simulate` writes whole chunks of page views; its memory does not grow with the number of impressions.
"""

from nodes.simulate.effects import Drift
from nodes.simulate.faults import Faults
from nodes.simulate.run import simulate

__all__ = ["Drift", "Faults", "simulate"]
