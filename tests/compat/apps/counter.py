"""A counter entity, called and signalled by an orchestration and by clients over HTTP.

``count`` with the input "jar" returns [0, 5, 12, "no operation 'jump'"]: the value of a new
counter, after adding 5, after a signal to add 7, and what a wrong operation raises. The counter
"jar" then has the state {"value": 12}. ``transfer`` locks two counters and moves 4 from the first
to the second; of "a" with 10 and "b" with 1 it returns [6, 5].
"""

import json

import azure.durable_functions as df
import azure.functions as func

app = df.DFApp(http_auth_level="ANONYMOUS")


@app.entity_trigger(context_name="context", entity_name="Counter")
def counter_function(context: df.DurableEntityContext):
    state = context.get_state(lambda: {"value": 0})
    operation = context.operation_name
    if operation == "add":
        state["value"] += context.get_input()
    elif operation == "reset":
        context.destruct_on_exit()
        return
    elif operation != "get":
        raise ValueError(f"no operation {operation!r}")
    context.set_state(state)
    context.set_result(state["value"])


@app.orchestration_trigger(context_name="context")
def count(context: df.DurableOrchestrationContext):
    jar = df.EntityId("Counter", context.get_input())
    seen = []
    seen.append((yield context.call_entity(jar, "get")))
    seen.append((yield context.call_entity(jar, "add", 5)))
    context.signal_entity(jar, "add", 7)
    seen.append((yield context.call_entity(jar, "get")))
    try:
        yield context.call_entity(jar, "jump")
    except Exception as error:
        seen.append(str(error).rpartition("ValueError: ")[2])
    return seen


@app.orchestration_trigger(context_name="context")
def transfer(context: df.DurableOrchestrationContext):
    one, other = (df.EntityId("Counter", key) for key in context.get_input())
    with (yield context.lock(one, other)):
        yield context.call_entity(one, "add", -4)
        yield context.call_entity(other, "add", 4)
    calls = [context.call_entity(each, "get") for each in (one, other)]
    return (yield context.task_all(calls))


@app.route(route="counters/{key}", methods=["POST", "GET"])
@app.durable_client_input(client_name="client")
async def counters(req: func.HttpRequest, client) -> func.HttpResponse:
    entity = df.EntityId("Counter", req.route_params["key"])
    if req.method == "POST":
        await client.signal_entity(entity, "add", req.get_json())
        return func.HttpResponse(status_code=202)
    found = await client.read_entity_state(entity)
    if not found.entity_exists:
        return func.HttpResponse("no such counter", status_code=404)
    return func.HttpResponse(json.dumps(found.entity_state), mimetype="application/json")
