"""What S3 needs beyond the tables because of what is stored: KMS permissions, and ListBucket for a missing key.

Source: S3 User Guide, "Using SSE-KMS" (Decrypt to read, GenerateDataKey to write, both for multipart uploads) and
API Reference, GetObject ("If you don't have s3:ListBucket, Amazon S3 returns 403"), Nov 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from moto.s3.models import FakeBucket, FakeKey, s3_backends

from workflow.local.actions import Account, Need
from workflow.local.resource_policies import key_arn

HOOKS: tuple[str, ...] = (
    "moto.s3.models.s3_backends",
    "moto.s3.models.S3Backend.buckets",
    "moto.s3.models.FakeBucket.keys",
    "moto.s3.models.FakeBucket.encryption",
    "moto.s3.models.FakeKey.kms_key_id",
)

_READS = ("GetObject", "HeadObject", "CopyObject", "UploadPartCopy")
_WRITES = ("PutObject", "CopyObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload")
_MULTIPART = ("CreateMultipartUpload", "UploadPart", "UploadPartCopy", "CompleteMultipartUpload")


def object_needs(operation: str, parameters: Mapping[str, Any], account: Account) -> list[Need]:
    """Further needs of a request for an object; none when the bucket does not exist (moto answers that)."""
    found: list[Need] = []
    if operation in _READS:
        found += _read_needs(*_source(parameters), account)
    bucket = _bucket(str(parameters.get("Bucket", "")), account)
    if operation in (*_WRITES, "UploadPartCopy") and bucket is not None:
        key = parameters.get("SSEKMSKeyId") or _default_key(bucket)
        encrypts = parameters.get("ServerSideEncryption", "aws:kms") == "aws:kms"
        if key and encrypts:
            actions = ["kms:GenerateDataKey"] + (["kms:Decrypt"] if operation in _MULTIPART else [])
            found += [_kms_need(action, key, account) for action in actions]
    return found


def _source(parameters: Mapping[str, Any]) -> tuple[str, str]:
    """Bucket and key that are read: the copy's source, else the object itself."""
    if copied := parameters.get("CopySource"):
        bucket, _, key = unquote(str(copied).partition("?versionId=")[0]).lstrip("/").partition("/")
        return bucket, key
    return str(parameters.get("Bucket", "")), str(parameters.get("Key", ""))


def _read_needs(bucket_name: str, key_name: str, account: Account) -> list[Need]:
    bucket = _bucket(bucket_name, account)
    if bucket is None:
        return []
    stored = bucket.keys.get(key_name)
    if not isinstance(stored, FakeKey):
        return [Need("s3:ListBucket", f"arn:{account.partition}:s3:::{bucket_name}", {"s3:prefix": key_name})]
    if stored.encryption == "aws:kms" and stored.kms_key_id:
        return [_kms_need("kms:Decrypt", stored.kms_key_id, account)]
    return []


def _bucket(name: str, account: Account) -> FakeBucket | None:
    bucket: FakeBucket | None = s3_backends[account.account_id][account.partition].buckets.get(name)
    return bucket


def _default_key(bucket: FakeBucket) -> str | None:
    """The customer key of the bucket's default encryption."""
    rule = (bucket.encryption or {}).get("Rule", {})
    key: str | None = rule.get("ApplyServerSideEncryptionByDefault", {}).get("KMSMasterKeyID")
    return key


def _kms_need(action: str, key: str, account: Account) -> Need:
    """S3 asks KMS in the caller's name, which is what kms:ViaService says."""
    return Need(action, key_arn(key, account), {"kms:ViaService": f"s3.{account.region}.amazonaws.com"})
