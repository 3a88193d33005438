"""Function chaining: each activity takes what the one before it returned.

``quote`` with the input "tea" returns "TEA for you, at 3.50": it is looked up, then priced, then
worded. Started over HTTP: ``POST /api/orchestrators/quote``.
"""

import azure.durable_functions as df
import azure.functions as func

app = df.DFApp(http_auth_level=func.AuthLevel.ANONYMOUS)

PRICES = {"TEA": 3.5}


@app.route(route="orchestrators/{functionName}", methods=["POST"])
@app.durable_client_input(client_name="client")
async def http_start(req: func.HttpRequest, client: df.DurableOrchestrationClient):
    name = req.route_params["functionName"]
    goods = req.params.get("goods")
    instance_id = await client.start_new(name, client_input=goods)
    return client.create_check_status_response(req, instance_id)


@app.route(route="quotes/{goods}", methods=["GET"])
@app.durable_client_input(client_name="client")
async def quote_now(req: func.HttpRequest, client) -> func.HttpResponse:
    instance_id = await client.start_new("quote", client_input=req.route_params["goods"])
    return await client.wait_for_completion_or_create_check_status_response(
        req, instance_id, timeout_in_milliseconds=20_000, retry_interval_in_milliseconds=50
    )


@app.route(route="echo/{word?}", auth_level=func.AuthLevel.FUNCTION)
def echo(req: func.HttpRequest) -> str:
    return f"{req.method} {req.route_params.get('word')} {req.get_body().decode()}"


@app.route(route="ping", trigger_arg_name="asked")
def ping(asked: func.HttpRequest) -> None:
    assert asked.method == "GET"


@app.orchestration_trigger(context_name="context")
def quote(context: df.DurableOrchestrationContext):
    found = yield context.call_activity("look_up", context.get_input())
    priced = yield context.call_activity("price", found)
    words = yield context.call_activity("word", priced)
    return words


@app.activity_trigger(input_name="goods")
def look_up(goods: str) -> str:
    return goods.upper()


@app.activity_trigger(input_name="goods")
async def price(goods: str) -> dict:
    return {"goods": goods, "price": PRICES[goods]}


@app.activity_trigger(input_name="priced")
def word(priced: dict) -> str:
    return f"{priced['goods']} for you, at {priced['price']:.2f}"
