"""Sub-orchestrations, from a blueprint: each device is set up by an orchestration of its own.

``provision`` with the input ["lamp", "lock"] returns
[["lamp:1", "<parent>:lamp", "<parent>"], ["lock:1", "<parent>:lock", "<parent>"]]:
what the child answered, its id, and the id of its parent. A device called "brick" fails, which
the parent turns into the text "brick cannot be set up".
"""

import azure.durable_functions as df

app = df.DFApp()
devices = df.Blueprint()


@app.orchestration_trigger(context_name="context")
def provision(context: df.DurableOrchestrationContext):
    tasks = [
        context.call_sub_orchestrator(
            set_up, {"name": name}, instance_id=f"{context.instance_id}:{name}"
        )
        for name in context.get_input()
    ]
    try:
        done = yield context.task_all(tasks)
    except Exception as error:
        return str(error).rpartition("ValueError: ")[2]
    return done


@devices.orchestration_trigger(context_name="context")
def set_up(context: df.DurableOrchestrationContext):
    version = yield from flashed(context, context.get_input()["name"])
    return [version, context.instance_id, context.parent_instance_id]


def flashed(context: df.DurableOrchestrationContext, name: str):
    firmware = yield context.call_activity("flash", name)
    return firmware


@devices.activity_trigger(input_name="name", activity="flash")
def flash_device(name: str) -> str:
    if name == "brick":
        raise ValueError(f"{name} cannot be set up")
    return f"{name}:1"


app.register_functions(devices)
