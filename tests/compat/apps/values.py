"""What travels: custom classes, texts that look like JSON, ids, the custom status.

``introduce`` with the input {"name": "Ada", "born": 1815} returns
{"greeting": "Ada (1815)", "same": true, "text": "5", "nested": {"a": [1, null]}, "status": "done"}:
an object passed through an activity comes back as an object, ids are the same in a replay, and a
text stays a text. ``echo`` returns its input as it is.
"""

import uuid

import azure.durable_functions as df

app = df.DFApp()


class Person:
    """A class with its own JSON, as Azure wants it."""

    def __init__(self, name: str, born: int) -> None:
        self.name = name
        self.born = born

    @staticmethod
    def to_json(person: "Person") -> str:
        return f"{person.name}|{person.born}"

    @staticmethod
    def from_json(text: str) -> "Person":
        name, born = text.split("|")
        return Person(name, int(born))


@app.orchestration_trigger(context_name="context")
def introduce(context: df.DurableOrchestrationContext):
    first, second = context.new_uuid(), context.new_guid()
    person = Person(**context.get_input())
    context.set_custom_status({"step": "asking"})
    older = yield context.call_activity(same_person, person)
    text = yield context.call_sub_orchestrator("echo", "5")
    nested = yield context.call_sub_orchestrator("echo", {"a": [1, None]})
    context.set_custom_status("done")
    return {
        "greeting": f"{older.name} ({older.born})",
        "same": uuid.UUID(first) != second and isinstance(second, uuid.UUID),
        "text": text,
        "nested": nested,
        "status": context.custom_status,
    }


@app.activity_trigger(input_name="person")
def same_person(person: Person) -> Person:
    assert isinstance(person, Person)
    return person


@app.orchestration_trigger(context_name="context")
def echo(context: df.DurableOrchestrationContext):
    return context.get_input()
    yield
