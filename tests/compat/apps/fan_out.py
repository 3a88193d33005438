"""Fan-out, fan-in: as many activities at once as there are files, and a sum at the end.

``back_up`` with the input "docs" returns 60: 10 + 20 + 30 bytes. Of "empty", which has no files,
it returns 0. Of "broken" it returns "no disk: b", because one of its copies fails.
"""

import azure.durable_functions as df

app = df.DFApp()

FILES = {"docs": {"a": 10, "b": 20, "c": 30}, "empty": {}, "broken": {"a": 10, "b": -1}}


@app.orchestration_trigger(context_name="context")
def back_up(context: df.DurableOrchestrationContext):
    folder = context.get_input()
    files = yield context.call_activity(list_files, folder)
    copies = [context.call_activity(copy_file, {"folder": folder, "name": name}) for name in files]
    try:
        sizes = yield context.task_all(copies)
    except Exception as error:
        return str(error).rpartition("OSError: ")[2]
    return sum(sizes)


@app.activity_trigger(input_name="folder")
def list_files(folder: str) -> list:
    return list(FILES[folder])


@app.activity_trigger(input_name="file")
def copy_file(file: dict) -> int:
    size = FILES[file["folder"]][file["name"]]
    if size < 0:
        raise OSError(f"no disk: {file['name']}")
    return size
