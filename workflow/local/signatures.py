"""Signatures of requests: read strictly, and recomputed with the caller's secret.

Known are Signature Version 4 in the Authorization header and in a pre-signed URL, and S3's pre-signed URLs of version
2, which boto3 still makes. A payload is checked against its signed hash; S3's UNSIGNED-PAYLOAD and unsigned trailers
are taken as they are on AWS. Bodies whose every chunk is signed (no version of boto3 sends them) are refused.
Source: IAM User Guide, "Create a signed AWS API request"; S3 API Reference, "Authenticating Requests", Nov 2026.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import re
import time
from calendar import timegm
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from botocore.auth import HmacV1Auth
from botocore.utils import normalize_url_path

MAX_SKEW_SECONDS = 15 * 60
_MAX_EXPIRES_SECONDS = 7 * 24 * 3600
_UNSIGNED_PAYLOADS = ("UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")

# Upper case, a second Credential, or a region that is none would let moto see another service than we do.
_SCOPE = r"([A-Z0-9]{16,128})/(\d{8})/([a-z]{2,3}(?:-[a-z]+)+-\d{1,2})/([a-z0-9-]+)/aws4_request"
_HEADER = re.compile(
    rf"AWS4-HMAC-SHA256 Credential={_SCOPE}, ?SignedHeaders=([a-z0-9_.;-]+), ?Signature=([0-9a-f]{{64}})"
)
_RAW_PATH = re.compile(r"/[A-Za-z0-9\-._~/%!$&'()*+,=:@]*")
_RAW_QUERY = re.compile(r"[A-Za-z0-9\-._~/%!$&'()*+,=:@?]*")


class Malformed(Exception):
    """The request's signature, path or query string is not of a form that is known."""


class Mismatch(Exception):
    """The signature is not the one that the secret makes of this request, or its time has passed."""


@dataclass(frozen=True)
class Signature:
    """What a request says about its signer; nothing of it is true before `verify`."""

    access_key_id: str
    region: str
    service: str
    """The signing name: "states", "monitoring"."""
    signature: str
    token: str | None
    date: str = ""
    timestamp: str = ""
    signed_headers: tuple[str, ...] = ()
    expires: str = ""
    """Of a pre-signed URL: seconds for version 4, the time of the end for version 2."""
    version: int = 4


def read(environ: dict[str, Any]) -> Signature | None:
    """The request's signature, or None if it has none. Raises: Malformed."""
    raw_path, raw_query = raw_target(environ)
    query = parse_qs(raw_query, keep_blank_values=True)
    header = environ.get("HTTP_AUTHORIZATION", "")
    names = [name.lower() for name in query]
    found = [bool(header), "x-amz-signature" in names or "x-amz-credential" in names, "awsaccesskeyid" in names]
    if not any(found):
        return None
    if sum(found) > 1:
        raise Malformed("it is signed in more than one way")
    if not _RAW_PATH.fullmatch(raw_path) or not _RAW_QUERY.fullmatch(raw_query) or "#" in environ["RAW_URI"]:
        raise Malformed("its path or query string has characters that must be percent-encoded")
    if header:
        match = _HEADER.fullmatch(header)
        if match is None:
            raise Malformed("its Authorization header is not of the form that AWS's clients send")
        token = environ.get("HTTP_X_AMZ_SECURITY_TOKEN")
        key_id, date, region, service, signed, signature = match.groups()
        timestamp = str(environ.get("HTTP_X_AMZ_DATE", ""))
        return Signature(key_id, region, service, signature, token, date, timestamp, tuple(signed.split(";")))
    if any(len(values) > 1 for values in query.values()) or len(set(names)) < len(names):
        raise Malformed("its query string gives a parameter twice")
    one = {name: values[0] for name, values in query.items()}
    return _version_2(one) if found[2] else _pre_signed(one)


def _version_2(query: dict[str, str]) -> Signature:
    try:
        key_id, signature, expires = query["AWSAccessKeyId"], query["Signature"], query["Expires"]
    except KeyError as error:
        raise Malformed(f"its query string lacks {error}") from None
    return Signature(key_id, "", "s3", signature, query.get("x-amz-security-token"), expires=expires, version=2)


def _pre_signed(query: dict[str, str]) -> Signature:
    match = re.fullmatch(_SCOPE, query.get("X-Amz-Credential", ""))
    if match is None or query.get("X-Amz-Algorithm") != "AWS4-HMAC-SHA256":
        raise Malformed("its X-Amz-Credential or X-Amz-Algorithm is not known")
    key_id, date, region, service = match.groups()
    return Signature(
        key_id,
        region,
        service,
        query.get("X-Amz-Signature", ""),
        query.get("X-Amz-Security-Token"),
        date,
        query.get("X-Amz-Date", ""),
        tuple(query.get("X-Amz-SignedHeaders", "").split(";")),
        query.get("X-Amz-Expires", "") or "missing",
    )


def verify(signature: Signature, secret: str, environ: dict[str, Any]) -> None:
    """Return if this secret signed this request, now. Reads the body and puts it back. Raises: Malformed, Mismatch."""
    if signature.version == 2:
        _check_end(signature.expires, time.time())
        expected = _signature_2(secret, signature, environ)
    else:
        _check_time(signature)
        _check_signed_headers(signature, environ)
        expected = _signature_4(secret, signature, environ)
    if not hmac.compare_digest(expected.encode(), signature.signature.encode()):
        raise Mismatch("The request signature we calculated does not match the signature you provided.")


def raw_target(environ: dict[str, Any]) -> tuple[str, str]:
    """Path and query string as they came over the wire."""
    return str(environ.get("RAW_URI", "")).partition("?")[0], str(environ.get("QUERY_STRING", ""))


def body_of(environ: dict[str, Any]) -> bytes:
    """The request's body, put back for the next reader."""
    stream = environ["wsgi.input"]
    if isinstance(stream, io.BytesIO):  # read and put back before
        return stream.getvalue()
    length = environ.get("CONTENT_LENGTH")
    body: bytes = stream.read(int(length)) if length else stream.read() if environ.get("wsgi.input_terminated") else b""
    environ["wsgi.input"] = io.BytesIO(body)
    if not length or len(body) == int(length):
        environ["wsgi.input_terminated"] = True  # werkzeug copies it once more, in small pieces, where it has to count
    return body


def _check_time(signature: Signature) -> None:
    try:
        signed_at = timegm(time.strptime(signature.timestamp, "%Y%m%dT%H%M%SZ"))
    except ValueError:
        raise Malformed("its X-Amz-Date is missing or no time") from None
    if not signature.timestamp.startswith(signature.date):
        raise Malformed("its X-Amz-Date is of another day than its credential")
    now = time.time()
    if signature.expires:
        if not signature.expires.isdecimal() or not 1 <= int(signature.expires) <= _MAX_EXPIRES_SECONDS:
            raise Malformed("its X-Amz-Expires is not between 1 and 604800")
        _check_end(str(signed_at + int(signature.expires)), now)
    if signed_at > now + MAX_SKEW_SECONDS or (not signature.expires and signed_at < now - MAX_SKEW_SECONDS):
        raise Mismatch(f"Signature expired or not yet current: {signature.timestamp} differs from the server's time.")


def _check_end(end: str, now: float) -> None:
    if not end.isdecimal():
        raise Malformed("its Expires is no time")
    if int(end) < now:
        raise Mismatch("Request has expired.")


def _check_signed_headers(signature: Signature, environ: dict[str, Any]) -> None:
    signed = set(signature.signed_headers)
    present = {name[5:].replace("_", "-").lower() for name in environ if name.startswith("HTTP_X_AMZ_")}
    missing = {"host", *present} - {name.replace("_", "-") for name in signed}
    if missing:
        raise Mismatch(f"There were headers present in the request which were not signed: {', '.join(sorted(missing))}")


def _signature_4(secret: str, signature: Signature, environ: dict[str, Any]) -> str:
    raw_path, raw_query = raw_target(environ)
    path = raw_path if signature.service == "s3" else quote(normalize_url_path(raw_path), safe="/~")
    encoded = sorted(
        (_encoded(name), _encoded(value)) for name, _, value in _pairs(raw_query) if name != "X-Amz-Signature"
    )
    headers = "".join(f"{name}:{_header(name, environ)}\n" for name in signature.signed_headers)
    canonical = "\n".join(
        (
            environ["REQUEST_METHOD"],
            path,
            "&".join(f"{name}={value}" for name, value in encoded),
            headers,
            ";".join(signature.signed_headers),
            _payload_hash(signature, environ),
        )
    )
    scope = f"{signature.date}/{signature.region}/{signature.service}/aws4_request"
    digest = hashlib.sha256(canonical.encode("latin-1")).hexdigest()  # headers are kept as latin-1 by WSGI
    text = f"AWS4-HMAC-SHA256\n{signature.timestamp}\n{scope}\n{digest}"
    key = _signing_key(secret, signature.date, signature.region, signature.service)
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _pairs(raw_query: str) -> list[tuple[str, str, str]]:
    return [pair.partition("=") for pair in raw_query.split("&") if pair]


def _encoded(text: str) -> str:
    return quote(unquote(text, "latin-1"), safe="-_.~", encoding="latin-1")


def _header(name: str, environ: dict[str, Any]) -> str:
    key = name.upper().replace("-", "_")
    value = environ.get(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}")
    if value is None:
        raise Mismatch(f"The signed header {name} is missing.")
    return " ".join(str(value).split())


def _payload_hash(signature: Signature, environ: dict[str, Any]) -> str:
    claimed: str = environ.get("HTTP_X_AMZ_CONTENT_SHA256", "")
    if signature.service == "s3":
        if signature.expires:
            return claimed or "UNSIGNED-PAYLOAD"
        if claimed in _UNSIGNED_PAYLOADS:
            return claimed
        if not re.fullmatch(r"[0-9a-f]{64}", claimed):
            raise Malformed(f"its payload is signed in a way that the local cloud does not know: {claimed or 'none'}")
    actual = hashlib.sha256(body_of(environ)).hexdigest()
    if claimed and claimed != actual:
        raise Mismatch("The provided 'x-amz-content-sha256' header does not match what was computed.")
    return actual


@lru_cache(maxsize=1024)
def _signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


def _signature_2(secret: str, signature: Signature, environ: dict[str, Any]) -> str:
    """Source: S3 User Guide, "Signing and authenticating REST requests" (version 2), query string authentication."""
    raw_path, raw_query = raw_target(environ)
    query = [(unquote(name), sign, unquote(value)) for name, sign, value in _pairs(raw_query)]
    special = {name.lower(): value for name, _, value in query if name.lower().startswith("x-amz-")}
    special |= {
        name[5:].lower().replace("_", "-"): " ".join(str(value).split())
        for name, value in environ.items()
        if name.startswith("HTTP_X_AMZ_")
    }
    resources = sorted(f"{name}{sign}{value}" for name, sign, value in query if name in HmacV1Auth.QSAOfInterest)
    text = "\n".join(
        (
            environ["REQUEST_METHOD"],
            environ.get("HTTP_CONTENT_MD5", ""),
            environ.get("CONTENT_TYPE", ""),
            signature.expires,
            *(f"{name}:{value}" for name, value in sorted(special.items())),
            raw_path + ("?" if resources else "") + "&".join(resources),
        )
    )
    return base64.b64encode(hmac.new(secret.encode(), text.encode(), hashlib.sha1).digest()).decode()
