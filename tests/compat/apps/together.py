"""Several of these apps in one, as `shardrt serve` takes it."""

from shardrt import App
from shardrt.compat.azure import from_azure
from tests.compat.apps import counter, fan_out, retries, sub_orchestrations, values

app = App()
for each in (counter, fan_out, retries, sub_orchestrations, values):
    app.include(from_azure(each.app))
