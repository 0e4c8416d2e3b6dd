"""Clients that call the endpoint without pause, and remember what came back."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from integration.harness import LocalCloud

# A client that tries again by itself would hide what this is about.
ONCE = Config(retries={"total_max_attempts": 1}, read_timeout=65)


@dataclass(frozen=True)
class Answer:
    """One request: when it was sent and answered (`time.time()`), and the error, empty when all is well."""

    sent: float
    answered: float
    error: str


class Clients:
    """Send one picture, with a pause between two requests of a client, until they are stopped; nothing is sent twice.

    `through_lambda` of them ask the classify function, the others the endpoint itself.
    """

    def __init__(
        self,
        local_cloud: LocalCloud,
        picture: Path,
        *,
        count: int = 2,
        through_lambda: int = 0,
        pause_seconds: float = 0.1,
    ) -> None:
        self._pause_seconds = pause_seconds
        session, url = local_cloud.connection.session(), local_cloud.connection.endpoint_url
        self._endpoint = session.client("sagemaker-runtime", endpoint_url=url, config=ONCE)
        self._lambda = session.client("lambda", endpoint_url=url, config=ONCE)
        self._function = local_cloud.outputs.classify_function
        self._picture = picture.read_bytes()
        self._stopped = threading.Event()
        self.requests: list[Answer] = []
        self._threads = [
            threading.Thread(target=self._send, args=(number < through_lambda,)) for number in range(count)
        ]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    @property
    def answers(self) -> Counter[str]:
        """How often each error came back; "ok" for none."""
        return Counter(request.error or "ok" for request in list(self.requests))

    def between(self, start: float, end: float) -> list[Answer]:
        """The requests that were under way at any moment of a time span."""
        return [request for request in list(self.requests) if request.answered >= start and request.sent <= end]

    def _send(self, through_lambda: bool) -> None:
        while not self._stopped.wait(self._pause_seconds):
            sent, error = time.time(), ""
            try:
                error = self._ask_lambda() if through_lambda else self._ask_endpoint()
            except (ClientError, BotoCoreError) as problem:
                error = str(problem)
            self.requests.append(Answer(sent, time.time(), error))

    def _ask_endpoint(self) -> str:
        answer = self._endpoint.invoke_endpoint(EndpointName="kelpie", ContentType="image/jpeg", Body=self._picture)
        return "" if json.loads(answer["Body"].read())["predictions"] else "no predictions"

    def _ask_lambda(self) -> str:
        payload = json.dumps({"image_base64": base64.b64encode(self._picture).decode()})
        answer = self._lambda.invoke(FunctionName=self._function, Payload=payload)
        content = json.loads(answer["Payload"].read())
        return str(content) if "FunctionError" in answer or not content["predictions"] else ""
