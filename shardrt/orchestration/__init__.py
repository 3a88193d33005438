"""Runs user code deterministically: the app, its context, the event loop, the executor. Pure."""
