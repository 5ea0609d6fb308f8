"""The exporter process: serves the metrics of all of a user's runs on a host and outlives each of them.

It never imports torch or lightning. One asyncio thread watches the spool and answers HTTP, so no state is
shared between threads; work that a slow disk could hold up runs beside it.
"""
