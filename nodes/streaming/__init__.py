"""Features of the stream's past: how often, how well and what lately, only from labels settled before the row."""

from nodes.streaming.corrected import CorrectedFeatures
from nodes.streaming.stream import StreamingFeatures

__all__ = ["CorrectedFeatures", "StreamingFeatures"]
