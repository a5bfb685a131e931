"""A Celery application whose tasks make tracked calls; the worker's side of the tests."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from instrument import current_session, track
from instrument.propagation.celery import connect

connect()
url = f"redis://127.0.0.1:{os.environ.get('TEST_REDIS_PORT', '1')}/0"
app = Celery("celery_jobs", broker=url, backend=url)
app.conf.update(broker_connection_retry_on_startup=False, result_expires=60)


def step(name: str) -> None:
    with track(name, service="worker"):
        pass


@app.task
def work(name: str) -> str:
    step(name)
    return name


@app.task
def gather(names: list[str]) -> str:
    step("gather")
    return "+".join(sorted(names))


@app.task(bind=True, max_retries=2)
def flaky(self: Any) -> str:
    step(f"try-{self.request.retries}")
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return "done"


@app.task
def publish() -> str:
    with track("publish", service="worker"):
        return str(work.delay("published").id)


@app.task
def where() -> str:
    return current_session().id


@app.task
def fail() -> None:
    step("fail")
    raise KeyError("theirs")
