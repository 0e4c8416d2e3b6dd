from __future__ import annotations

import pytest

from workflow.local import authorization_record
from workflow.local.authorization_record import AuthorizationRecord, general_resource
from workflow.local.decisions import Request
from workflow.local.policies import Caller

SAGEMAKER = "arn:aws:sagemaker:us-east-1:123456789012:"
TRAINER = Caller("arn:aws:sts::123456789012:assumed-role/training/x", "arn:aws:iam::123456789012:role/training")


def asked(resource="*", action="s3:GetObject", **context):
    return Request(TRAINER, action, resource, context)


@pytest.mark.parametrize(
    ("arn", "general"),
    [
        ("*", "*"),
        (f"{SAGEMAKER}training-job/kelpie-0123456789abcdef0123456789abcdef-12", "training-job/kelpie-hash-0"),
        (f"{SAGEMAKER}endpoint/kelpie", "endpoint/kelpie"),
        ("arn:aws:states:us-east-1:123456789012:execution:kelpie:5f1c2a3b-1111-2222-3333-444455556666",
         "execution:kelpie:uuid"),
        ("arn:aws:s3:::bucket-0123456789ab", "bucket-0123456789ab"),
        ("arn:aws:s3:::bucket/datasets/dogs/train/poodle/17.jpg", "bucket/datasets/dogs/any/file.jpg"),
        ("arn:aws:s3:::bucket/champion/marker.json", "bucket/champion/marker.json"),
        ("arn:aws:iam::123456789012:role/kelpie-0123456789ab", "role/kelpie-0123456789ab"),
    ],
)  # fmt: skip
def test_what_belongs_to_one_execution_is_left_out(arn, general):
    assert general_resource(arn).endswith(general)
    assert general_resource(arn).split(":")[:5] == arn.split(":")[:5]


def test_the_same_request_is_noted_once_with_all_states_that_make_it():
    record = AuthorizationRecord()
    for number, state in enumerate(("Train", "TrainOnDemand", "Train", "")):
        record.add(asked(f"{SAGEMAKER}training-job/kelpie-{number}", "sagemaker:CreateTrainingJob"), True, state)
    (one,) = record.describe()["requests"]
    assert one["states"] == ["Train", "TrainOnDemand"]
    assert one["principal"] == TRAINER.role_arn
    assert one["allowed"] is True


def test_a_refusal_is_another_entry():
    record = AuthorizationRecord()
    record.add(asked(), True)
    record.add(asked(), False)
    assert [one["allowed"] for one in record.describe()["requests"]] == [False, True]


def test_the_context_is_noted_without_what_every_request_has():
    record = AuthorizationRecord()
    record.add(asked(**{"aws:SourceIp": "127.0.0.1", "aws:SecureTransport": "true", "s3:prefix": "runs/7"}), True)
    record.add(asked(**{"aws:SecureTransport": "false", "aws:TagKeys": ["b", "a"]}), False)
    contexts = [one["context"] for one in record.describe()["requests"]]
    assert contexts == [{"aws:SecureTransport": "false", "aws:TagKeys": ["a", "b"]}, {"s3:prefix": "runs/0"}]


def test_the_record_is_bounded_and_says_what_it_left_out(monkeypatch):
    monkeypatch.setattr(authorization_record, "MAX_ENTRIES", 2)
    record = AuthorizationRecord()
    for letter in "abca":
        record.add(asked(f"arn:aws:s3:::{letter}"), True)
    assert len(record.describe()["requests"]) == 2
    assert record.dropped == 1
    record.clear()
    assert record.describe() == {"requests": [], "dropped": 0}
