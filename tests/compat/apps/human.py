"""Human interaction: wait three days for an answer, and escalate if there is none.

``approval`` with the input {"item": "desk"} returns
- "desk: bought" if the event ``Decision`` comes in time with {"approved": true},
- "desk: refused" if it comes with {"approved": false},
- "desk: escalated after 72 h" otherwise.
"""

from datetime import timedelta

import azure.durable_functions as df

app = df.DFApp()


@app.orchestration_trigger(context_name="context")
def approval(context: df.DurableOrchestrationContext):
    item = context.get_input()["item"]
    began = context.current_utc_datetime
    yield context.call_activity("ask_boss", item)
    timeout = context.create_timer(began + timedelta(days=3))
    decision = context.wait_for_external_event("Decision")
    winner = yield context.task_any([decision, timeout])
    if winner == decision:
        timeout.cancel()
        return f"{item}: {'bought' if decision.result['approved'] else 'refused'}"
    waited = context.current_utc_datetime - began
    return f"{item}: escalated after {waited // timedelta(hours=1)} h"


@app.activity_trigger(input_name="item")
def ask_boss(item: str) -> None:
    return None
