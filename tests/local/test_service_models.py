"""What the server reads and makes when it starts and nothing needs is read and made once, later or never."""

from __future__ import annotations

import gzip
import importlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import botocore.loaders
import botocore.session
import moto.utilities.utils
import pytest
from moto.core import utils as core_utils
from moto.kms import models as kms_models
from moto.kms.models import Key
from werkzeug.routing import Map, Rule

from workflow.local import service_models

ROOT = Path(__file__).parents[2]
LOAD_FILE = botocore.loaders.JSONFileLoader._load_file
"""As botocore has it."""
PLACES: tuple[tuple[Any, str], ...] = (
    (botocore.session, "create_loader"),
    (botocore.session.Session, "get_available_regions"),
    (botocore.loaders.JSONFileLoader, "_load_file"),
    (core_utils, "_load_service_model"),
    (moto.utilities.utils, "load_resource"),
    (Rule, "_compile_builder"),
    (kms_models, "generate_private_key"),
)

START = """
import json, sys
from pathlib import Path
from collections import Counter
import botocore.loaders
read = Counter()
def counting(original):
    def load(self, path, open_file):
        found = original(self, path, open_file)
        read["/".join(Path(path).parts[-3:])] += found is not None
        return found
    return load
loader = botocore.loaders.JSONFileLoader
loader._load_file = counting(loader._load_file)
from workflow.local import server, service_models
service_models.load_file = counting(service_models.load_file)
engine = server.build_engine(Path("unused"), "us-east-1", 30, "http://127.0.0.1:1")
server.install_hooks(engine)
imported = list(sys.modules)
from moto.cloudformation import parsing
from moto.ssm import models
zones = [zone.name for zone in models.ec2_backends[engine.account_id]["us-east-1"].describe_availability_zones()]
from workflow.local import cloudformation
types = "AWS::ApiGateway::RestApi", "AWS::EC2::Instance"
kinds = [type(cloudformation._implementation(name, None)).__name__ for name in types]
tagged = parsing.TaggedEC2Resource in parsing.get_model_map()["AWS::EC2::Instance"].__mro__
print(json.dumps({"read": +read, "imported": imported, "zones": zones, "kinds": kinds, "tagged": tagged}))
"""


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name in PLACES:
        monkeypatch.setattr(owner, name, getattr(owner, name))  # only so that it is put back
    service_models.install(SimpleNamespace())  # type: ignore[arg-type]


def test_a_server_that_starts_imports_and_reads_nothing_of_services_that_no_stack_here_has() -> None:
    ran = subprocess.run([sys.executable, "-c", START], cwd=ROOT, capture_output=True, text=True, check=True)
    said = json.loads(ran.stdout)
    unused = {f"moto.{service}.models" for service in service_models._LEFT_OUT} | {"pydantic"}
    assert unused.isdisjoint(said["imported"])
    assert len(said["imported"]) < 1500
    assert not [path for path in said["read"] if path.startswith("ec2/")]
    assert max(said["read"].values()) == 1
    # Whoever needs them gets them all the same.
    assert "us-east-1a" in said["zones"]
    assert said["kinds"] == ["_MotoType", "_MotoType"]
    assert said["tagged"]


@pytest.mark.usefixtures("installed")
def test_sessions_and_moto_share_what_they_read_from_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    read: Counter[str] = Counter()
    original = botocore.loaders.JSONFileLoader._load_file

    def load(self: Any, path: str, open_file: Any) -> Any:
        found = original(self, path, open_file)
        read[path] += found is not None
        return found

    monkeypatch.setattr(botocore.loaders.JSONFileLoader, "_load_file", load)
    sessions = [botocore.session.Session() for _ in range(2)]
    assert sessions[0].get_component("data_loader") is sessions[1].get_component("data_loader")
    for service in ("iot", "sqs"):
        core_utils.get_service_model.cache_clear()
        shapes = core_utils.get_service_model(service).shape_names
        assert set(shapes) >= set(sessions[0].get_service_model(service).shape_names)
        assert core_utils._load_service_model(service, "service-2")["metadata"]
    assert {count for path, count in read.items() if "/iot/" in path and count} == {1}
    core_utils.get_service_model.cache_clear()


@pytest.mark.parametrize("service", ["sqs", "s3"])
def test_a_model_is_what_botocore_reads(service: str, installed: None) -> None:
    path = Path(botocore.loaders.__file__).parent / "data" / service
    [newest, *_] = sorted(path.glob("*/service-2.json.gz"), reverse=True)
    file = str(newest)
    expected = LOAD_FILE(botocore.loaders.JSONFileLoader(), file, gzip.open)
    found = botocore.loaders.JSONFileLoader()._load_file(file, gzip.open)
    is_same = json.dumps(found) == json.dumps(expected)  # the order too
    assert is_same
    assert botocore.loaders.JSONFileLoader()._load_file(file + "x", gzip.open) is None


@pytest.mark.usefixtures("installed")
def test_of_ec2_s_instance_types_nothing_is_read_and_of_its_images_all() -> None:
    assert moto.utilities.utils.load_resource("ec2/resources/instance_types.json") == {}
    assert moto.utilities.utils.load_resource("ec2/resources/amis.json") != {}


@pytest.mark.parametrize("partition", ["aws", "aws-cn", "aws-us-gov"])
def test_the_regions_of_ec2_are_those_that_its_model_leads_to(
    partition: str, installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = botocore.session.Session()
    expected = service_models._original_available_regions(session, "ec2", partition)
    asked: list[str] = []
    monkeypatch.setattr(session, "get_service_data", lambda name: asked.append(name))
    assert session.get_available_regions("ec2", partition) == expected != []
    assert asked == []


@pytest.mark.usefixtures("installed")
def test_a_kms_key_that_signs_gets_its_private_key_when_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    generate = service_models.generate_private_key
    monkeypatch.setattr(service_models, "generate_private_key", lambda spec: made.append(spec) or generate(spec))
    encrypts = Key("", "ENCRYPT_DECRYPT", "SYMMETRIC_DEFAULT", "", "123456789012", "us-east-1")
    signs = Key("", "SIGN_VERIFY", "ECC_NIST_P256", "", "123456789012", "us-east-1")
    assert made == []
    signature = signs.private_key.sign(b"message", "ECDSA_SHA_256")
    assert signs.private_key.verify(b"message", signature, "ECDSA_SHA_256")
    assert made == ["ECC_NIST_P256"]
    assert encrypts.key_spec == "SYMMETRIC_DEFAULT"


@pytest.mark.usefixtures("installed")
def test_a_route_s_url_is_written_as_ever_and_compiled_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[bool] = []
    original = service_models._original_compile_builder

    def compile_builder(rule: Rule, append_unknown: bool = True) -> Any:
        compiled.append(append_unknown)
        return original(rule, append_unknown)

    monkeypatch.setattr(service_models, "_original_compile_builder", compile_builder)
    routes = Map([Rule("/buckets/<name>/<int:number>", endpoint="bucket")]).bind("localhost")
    assert routes.match("/buckets/dogs/3") == ("bucket", {"name": "dogs", "number": 3})
    assert compiled == []
    assert routes.build("bucket", {"name": "dogs", "number": 3}) == "/buckets/dogs/3"
    assert routes.build("bucket", {"name": "cats", "number": 4, "page": 2}) == "/buckets/cats/4?page=2"
    assert compiled


def test_importing_it_alone_changes_nothing() -> None:
    assert importlib.import_module("werkzeug.routing").Rule._compile_builder is not service_models._compile_builder
