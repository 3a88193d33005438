"""Eternal orchestration: clean up, sleep an hour, and start over with the next number.

``clean_up`` with the input 0 cleans once an hour until it is told to stop by the event ``stop``;
it then returns the number of its generation. Stopped after three and a half hours that is 3, and
`cleaned` holds [0, 1, 2, 3].
"""

from datetime import timedelta

import azure.durable_functions as df

app = df.DFApp()

cleaned: list[int] = []


@app.orchestration_trigger(context_name="context")
def clean_up(context: df.DurableOrchestrationContext):
    generation = context.get_input()
    yield context.call_activity("clean", generation)
    timer = context.create_timer(context.current_utc_datetime + timedelta(hours=1))
    stop = context.wait_for_external_event("stop")
    winner = yield context.task_any([timer, stop])
    if winner is stop:
        timer.cancel()
        return generation
    context.continue_as_new(generation + 1)


@app.activity_trigger(input_name="generation")
def clean(generation: int) -> None:
    cleaned.append(generation)
