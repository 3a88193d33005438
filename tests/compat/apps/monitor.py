"""Monitor: look every half hour until the sky is clear, for six hours at most.

``watch`` with the input {"city": "Bergen", "clear_at": 4} returns "clear after 3 looks in vain",
an hour and a half after it began. With "clear_at": 99 it returns "gave up after 12 looks".
Its custom status is the number of looks in vain.
"""

from datetime import timedelta

import azure.durable_functions as df

app = df.DFApp()


@app.orchestration_trigger(context_name="context")
def watch(context: df.DurableOrchestrationContext):
    request = context.get_input()
    end = context.current_utc_datetime + timedelta(hours=6)
    looks = 0
    while context.current_utc_datetime < end:
        looks += 1
        clear = yield context.call_activity("is_clear", {**request, "look": looks})
        if clear:
            return f"clear after {looks - 1} looks in vain"
        context.set_custom_status(looks)
        yield context.create_timer(context.current_utc_datetime + timedelta(minutes=30))
    return f"gave up after {looks} looks"


@app.activity_trigger(input_name="request")
def is_clear(request: dict) -> bool:
    return request["look"] >= request["clear_at"]
