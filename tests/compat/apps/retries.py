"""Retries, at a constant interval, of activities and of sub-orchestrations.

``deliver`` with the input 3 returns "there at attempt 3", ten seconds later: two intervals of
five. With the input 9 it returns "gave up: attempt 4 failed" after three of them. ``deliver_all``
with the input 2 has a sub-orchestration tried again and returns "there at attempt 2".
"""

import azure.durable_functions as df

app = df.DFApp()

attempts: dict[str, int] = {}
"""What activities may know, and orchestrators must not: how often they were called."""


@app.orchestration_trigger(context_name="context")
def deliver(context: df.DurableOrchestrationContext):
    options = df.RetryOptions(5_000, 4)
    call = {"key": context.instance_id, "good_at": context.get_input()}
    try:
        answer = yield context.call_activity_with_retry("knock", options, call)
    except Exception as error:
        return "gave up: " + str(error).rpartition("ConnectionError: ")[2]
    return answer


@app.orchestration_trigger(context_name="context")
def deliver_all(context: df.DurableOrchestrationContext):
    options = df.RetryOptions(first_retry_interval_in_milliseconds=1_000, max_number_of_attempts=3)
    call = {"key": context.instance_id, "good_at": context.get_input()}
    answer = yield context.call_sub_orchestrator_with_retry("deliver_once", options, call)
    return answer


@app.orchestration_trigger(context_name="context")
def deliver_once(context: df.DurableOrchestrationContext):
    return (yield context.call_activity("knock", context.get_input()))


@app.activity_trigger(input_name="call")
def knock(call: dict) -> str:
    attempt = attempts[call["key"]] = attempts.get(call["key"], 0) + 1
    if attempt < call["good_at"]:
        raise ConnectionError(f"attempt {attempt} failed")
    return f"there at attempt {attempt}"
