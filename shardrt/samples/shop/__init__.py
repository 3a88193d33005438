"""A package that registers itself: `app.scan` finds what its modules declare.

    python -m shardrt.samples checkout '["pen", "ink"]'

Each module has an app of its own and knows nothing of this one. A module that is added to the
directory is part of the shop; one that cannot be imported, or takes a name that is taken, stops
the host at its start and is named.
"""

from shardrt import App

app = App()
app.scan(__name__)
