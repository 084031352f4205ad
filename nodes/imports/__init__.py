"""Logs of others become impressions, clicks and requests: one file a layout, and what they share.

    read records ─▶ columns of the contract ─▶ (time order) ─▶ impressions, clicks, requests
         └──────────────────┴─ what is no record, or has a value of no use ─▶ dead letters

Everything flows in blocks: memory does not grow with the log.
"""
