"""The gate: whether a candidate version may go live, judged on rows that neither it nor the live version has learnt.

rows about to be learnt ─▶ watch (labels, features) ─┬─▶ window: candidate against live ─▶ verdict
                                                     └─▶ canary set: scores against live ─┘
candidate ─▶ norms against live ─▶ held at once, or judged as above
"""

from nodes.gate.examiner import Examiner
from nodes.gate.judge import Decision, Fault, Kind, judge
from nodes.gate.norms import MAX_ABS_WEIGHT, unfit
from nodes.gate.window import Window

__all__ = ["MAX_ABS_WEIGHT", "Decision", "Examiner", "Fault", "Kind", "Window", "judge", "unfit"]
