"""What the matrix serves: everything that its scenarios declare."""

from __future__ import annotations

from shardrt import App
from tests.matrix import transactional

app = App()
app.scan("tests.matrix.scenarios")

on_postgres = App()
on_postgres.include(app)
on_postgres.include(transactional.app)
