"""Carry the current session and operation to where they would not go by themselves.

For web clients and servers, gRPC and Celery there are ready-made pieces, each in the module of
that name. For any other queue whose messages have headers or fields, two lines do. With Redis
streams, where a job is handed in:

    queue.xadd("jobs", {"prompt": prompt, **inject()})

and where it is done:

    for name, messages in queue.xread({"jobs": "0"}, block=10_000):
        for number, fields in messages:
            with extract(fields):
                answer(fields[b"prompt"])
"""

from instrument.propagation.bound import propagate
from instrument.propagation.headers import extract, inject

__all__ = ["extract", "inject", "propagate"]
