"""What an orchestrator must not call, by dotted name, and what it uses instead.

A replay runs the code again and must find the same values. So clocks, chance, the environment,
and everything outside the process belong into activities, whose results are recorded, or have
a counterpart in the context. `guard` catches these calls when they happen, `check` by reading
the source.
"""

from __future__ import annotations

import random
import types

ACTIVITY = "an activity, whose result is recorded"
NOW = "ctx.current_utc_datetime"
LOOP_TIME = "asyncio.get_running_loop().time(), the time of the orchestration"
SLEEP = "await asyncio.sleep(…), a durable timer"
RANDOM = "ctx.random"
UUID = "ctx.new_uuid()"
ENVIRONMENT = "the input, or an activity"

CLOCKS = {
    "time.time": NOW,
    "time.time_ns": NOW,
    "time.monotonic": LOOP_TIME,
    "time.monotonic_ns": LOOP_TIME,
    "time.perf_counter": LOOP_TIME,
    "time.perf_counter_ns": LOOP_TIME,
    "time.process_time": LOOP_TIME,
    "time.process_time_ns": LOOP_TIME,
    "time.thread_time": LOOP_TIME,
    "time.thread_time_ns": LOOP_TIME,
    "time.clock_gettime": NOW,
    "time.clock_gettime_ns": NOW,
}

METHODS = {
    "datetime.datetime.now": NOW,
    "datetime.datetime.utcnow": NOW,
    "datetime.date.today": f"{NOW}.date()",
}
"""Class methods of types that are written in C."""

CHANCE = {
    f"random.{name}": RANDOM
    for name in random.__all__
    if isinstance(getattr(random, name), (types.MethodType, types.BuiltinMethodType))
} | {
    f"secrets.{name}": ACTIVITY
    for name in ("choice", "randbelow", "randbits", "token_bytes", "token_hex", "token_urlsafe")
}

IDENTITIES = {
    "uuid.uuid1": UUID,
    "uuid.uuid4": UUID,
    "uuid.uuid6": UUID,
    "uuid.uuid7": UUID,
    "os.urandom": "ctx.random.randbytes(…)",
}

OUTSIDE = dict.fromkeys(
    (
        "builtins.open",
        "io.open",
        "os.open",
        "os.stat",
        "os.listdir",
        "os.scandir",
        "os.mkdir",
        "os.remove",
        "os.unlink",
        "os.rename",
        "os.replace",
        "os.rmdir",
        "os.system",
        "os.fork",
        "os.posix_spawn",
        "os.execv",
        "os.execve",
        "socket.getaddrinfo",
        "socket.gethostbyname",
        "socket.gethostname",
        "socket.socketpair",
        "_thread.start_new_thread",
    ),
    ACTIVITY,
)

FUNCTIONS = CLOCKS | {"time.sleep": SLEEP} | CHANCE | IDENTITIES | OUTSIDE
"""Attributes of modules."""

ACTS = {
    "threading.Thread.start": ("a thread", ACTIVITY),
    "subprocess.Popen.__init__": ("subprocess", ACTIVITY),
    "socket.socket.__init__": ("a socket", ACTIVITY),
    "os._Environ.__getitem__": ("os.environ", ENVIRONMENT),
    "os._Environ.__setitem__": ("os.environ", ENVIRONMENT),
    "os._Environ.__iter__": ("os.environ", ENVIRONMENT),
}
"""Methods of classes that are written in Python: what a call of them is, and what to use."""

WRITTEN = (
    FUNCTIONS
    | METHODS
    | {
        "datetime.datetime.today": NOW,
        "os.environ": ENVIRONMENT,
        "os.environb": ENVIRONMENT,
        "os.getenv": ENVIRONMENT,
        "os.getenvb": ENVIRONMENT,
        "random.SystemRandom": RANDOM,
        "builtins.input": ACTIVITY,
        "os.popen": ACTIVITY,
        "os.getpid": ACTIVITY,
        "asyncio.to_thread": ACTIVITY,
        "asyncio.open_connection": ACTIVITY,
        "asyncio.start_server": ACTIVITY,
        "asyncio.run_coroutine_threadsafe": ACTIVITY,
        "asyncio.create_subprocess_exec": ACTIVITY,
        "asyncio.create_subprocess_shell": ACTIVITY,
        "threading.Thread": ACTIVITY,
        "threading.Timer": SLEEP,
        "tempfile.*": ACTIVITY,
        "shutil.*": ACTIVITY,
        "socket.*": ACTIVITY,
        "subprocess.*": ACTIVITY,
        "multiprocessing.*": ACTIVITY,
        "concurrent.futures.*": ACTIVITY,
        "urllib.request.*": ACTIVITY,
        "http.client.*": ACTIVITY,
        "sqlite3.*": ACTIVITY,
        "requests.*": ACTIVITY,
        "httpx.*": ACTIVITY,
        "aiohttp.*": ACTIVITY,
        "psycopg.*": ACTIVITY,
        "numpy.random.*": RANDOM,
    }
)
"""What can be recognised in source text; ``.*`` stands for everything in a module."""

WITHOUT_ARGUMENTS = {
    "time.localtime": NOW,
    "time.gmtime": NOW,
    "time.ctime": NOW,
    "random.Random": RANDOM,
}
"""Wrong only if called without any."""
