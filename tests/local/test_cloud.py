"""The life of the server process, from outside it."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from botocore.exceptions import ClientError

from workflow.errors import KelpieError
from workflow.local import cloud

ROOT = Path(__file__).parents[2]
TRUST = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared") / "home"


@pytest.fixture(scope="module")
def shared(home: Path) -> Iterator[cloud.Connection]:
    """A server for the tests that leave it as it is."""
    yield cloud.up(home, time_scale=40)
    cloud.down(home)


@pytest.fixture
def own_home(tmp_path: Path) -> Iterator[Path]:
    """A home for a test that starts and ends a server of its own."""
    yield tmp_path / "home"
    cloud.down(tmp_path / "home")


def start_child(connection: cloud.Connection) -> int:
    """Let the server start a process (of a Lambda function) and return its pid."""
    client = connection.account().client
    document = json.dumps({"Version": "2012-10-17", "Statement": [TRUST]})
    role = client("iam").create_role(RoleName="role", AssumeRolePolicyDocument=document)["Role"]["Arn"]
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("handler.py", "import os\ndef handler(event, context): return os.getpid()")
    client("lambda").create_function(
        FunctionName="child",
        Runtime="python3.12",
        Handler="handler.handler",
        Role=role,
        Code={"ZipFile": package.getvalue()},
        Timeout=30,
    )
    return int(client("lambda").invoke(FunctionName="child")["Payload"].read())


def all_gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 10
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def request(
    connection: cloud.Connection, method: str, path: str, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    address = urlsplit(connection.endpoint_url)
    client = http.client.HTTPConnection(str(address.hostname), address.port, timeout=20)
    try:
        client.request(method, path, headers=headers or {})
        response = client.getresponse()
        return response.status, response.read()
    finally:
        client.close()


def test_another_process_reaches_it_with_plain_boto3(shared: cloud.Connection) -> None:
    code = "import boto3; print(boto3.client('sts').get_caller_identity()['Account'])"
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": shared.access_key_id,
        "AWS_SECRET_ACCESS_KEY": shared.secret_access_key,
        "AWS_DEFAULT_REGION": shared.region,
        "AWS_ENDPOINT_URL": shared.endpoint_url,
    }
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout == f"{shared.account_id}\n"


def test_every_answer_carries_the_time_scale(shared: cloud.Connection) -> None:
    s3 = shared.account().client("s3")
    assert s3.list_buckets()["ResponseMetadata"]["HTTPHeaders"]["x-kelpie-time-scale"] == "40"
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket="no-such-bucket", Key="key")
    assert caught.value.response["ResponseMetadata"]["HTTPHeaders"]["x-kelpie-time-scale"] == "40"


def test_it_listens_on_loopback_only(shared: cloud.Connection) -> None:
    listening = [c.laddr.ip for c in psutil.Process(shared.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    assert listening == ["127.0.0.1"]


def test_the_key_is_readable_by_the_user_only_and_not_in_logs(shared: cloud.Connection, home: Path) -> None:
    assert stat.S_IMODE((home / "connection.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert shared.secret_access_key not in repr(shared)
    assert shared.secret_access_key not in (home / "server.log").read_text()


def test_the_control_endpoints_need_the_key(shared: cloud.Connection) -> None:
    assert request(shared, "GET", "/kelpie/status", {"x-kelpie-key": "wrong"})[0] == 403
    assert request(shared, "POST", "/kelpie/shutdown", {"x-kelpie-key": "wrong"})[0] == 403
    assert request(shared, "GET", "/kelpie/status")[0] == 403
    assert request(shared, "GET", "/kelpie/status", {"x-kelpie-key": shared.secret_access_key})[0] == 200


def test_nobody_resets_the_account_without_a_key(shared: cloud.Connection) -> None:
    assert request(shared, "POST", "/moto-api/reset")[0] == 403


def test_no_web_page_may_read_an_answer(shared: cloud.Connection) -> None:
    headers = shared.account().client("s3").list_buckets()["ResponseMetadata"]["HTTPHeaders"]
    assert "access-control-allow-origin" not in headers


def test_a_bucket_may_have_the_name_of_the_control_endpoints(shared: cloud.Connection) -> None:
    s3 = shared.account().client("s3")
    s3.create_bucket(Bucket="kelpie")
    s3.put_object(Bucket="kelpie", Key="status", Body=b"an object")
    assert s3.get_object(Bucket="kelpie", Key="status")["Body"].read() == b"an object"


def test_an_invalid_interruption_is_refused_with_the_reason(shared: cloud.Connection) -> None:
    with pytest.raises(KelpieError, match="count=0"):
        shared.interrupt_spot(count=0)
    with pytest.raises(KelpieError, match="unexpected keyword argument 'what'"):
        shared.control("POST", "faults", {"kind": "spot-interruption", "what": 1})
    with pytest.raises(KelpieError, match="Invalid kind 'flood', expected one of"):
        shared.control("POST", "faults", {"kind": "flood"})


def test_up_again_gives_the_same_server(shared: cloud.Connection, home: Path) -> None:
    assert cloud.up(home, time_scale=40) == shared
    assert cloud.connect(home) == shared


def test_up_with_other_settings_is_refused(shared: cloud.Connection, home: Path) -> None:
    with pytest.raises(KelpieError, match="time_scale 40, wanted are us-east-1 and 1"):
        cloud.up(home, time_scale=1)


def test_a_second_server_on_one_home_refuses_to_run(shared: cloud.Connection, home: Path) -> None:
    argv = [sys.executable, "-m", "workflow.local.server", "--home", str(home)]
    told = json.dumps({"region": "us-east-1", "time_scale": 1})
    second = subprocess.run(argv, input=told, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert second.returncode == cloud.LOST_LOCK
    assert f"already runs in {home} (process {shared.pid})" in second.stderr
    assert cloud.connect(home) == shared


def test_a_server_begun_before_its_settings_are_known_serves_with_them(own_home: Path) -> None:
    begun = cloud.begin(own_home)
    assert begun is not None
    connection = cloud.up(own_home, time_scale=7, begun=begun)
    assert (connection.pid, connection.time_scale) == (begun.process.pid, 7)
    assert cloud.begin(own_home) is None


def test_a_server_that_is_never_told_its_settings_ends_and_leaves_nothing_running(own_home: Path) -> None:
    begun = cloud.begin(own_home)
    assert begun is not None
    assert begun.process.stdin is not None
    begun.process.stdin.close()
    assert begun.process.wait(60) == 0
    assert cloud.connect(own_home) is None


def test_two_who_start_it_at_once_get_the_same_server(own_home: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        connections = list(pool.map(lambda _: cloud.up(own_home), range(3)))
    assert len(set(connections)) == 1
    assert cloud.connect(own_home) == connections[0]


def test_down_ends_the_server_and_its_processes(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of a real account")
    connection = cloud.up(own_home)
    child = start_child(connection)
    status = cloud.status(own_home)
    assert status is not None
    assert status["pid"] == connection.pid
    assert status["processes"] == [{"name": "lambda-child", "pid": child}]
    assert "of a real account" not in psutil.Process(connection.pid).environ().values()
    family = [process.pid for process in psutil.Process(connection.pid).children(recursive=True)]
    assert child in family
    assert cloud.down(own_home) is True
    assert all_gone([connection.pid, *family])
    assert cloud.status(own_home) is None
    assert cloud.down(own_home) is False
    assert not (own_home / "connection.json").exists()


def test_after_kill_9_nothing_is_left_and_the_next_start_works(own_home: Path) -> None:
    connection = cloud.up(own_home)
    start_child(connection)
    family = [process.pid for process in psutil.Process(connection.pid).children(recursive=True)]
    assert len(family) == 2  # the guard and its child
    os.kill(connection.pid, signal.SIGKILL)
    assert all_gone([connection.pid, *family])
    assert (own_home / "connection.json").exists()
    assert cloud.connect(own_home) is None
    assert cloud.up(own_home).pid != connection.pid


def test_down_ends_a_server_that_hangs(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud, "_DOWN_SECONDS", 1)
    monkeypatch.setattr(cloud, "_ANSWER_SECONDS", 0.5)
    connection = cloud.up(own_home)
    child = start_child(connection)
    os.kill(connection.pid, signal.SIGSTOP)
    assert cloud.down(own_home) is True
    assert all_gone([connection.pid, child])


def test_a_server_that_cannot_start_quotes_its_log(own_home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(KelpieError, match="Address already in use"):
            cloud.up(own_home, port=taken.getsockname()[1])
    assert cloud.connect(own_home) is None


def test_what_is_left_of_a_dead_server_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "connection.json").write_text(json.dumps({"pid": os.getpid()}))
    (tmp_path / "server.lock").write_text(str(os.getpid()))
    assert cloud.connect(tmp_path) is None
    assert cloud.down(tmp_path) is False


def test_importing_the_client_imports_neither_moto_nor_boto3() -> None:
    code = "import sys, workflow.local.cloud; print(sorted({'moto', 'boto3', 'flask'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
