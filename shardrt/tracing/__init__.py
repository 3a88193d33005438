"""OpenTelemetry, for those who want it.

`joining` is for everybody: it finds out whether the program is being traced, and imports nothing
for that. The rest is imported only by who has switched tracing on (`providing` says whether that
is possible), and needs ``shardrt[otel]``.
"""
