"""The errors that a caller can meet, each with its HTTP status; the class name is part of the API.

A user's own handler may raise them too.
"""

from __future__ import annotations

from inference.preprocessing import ImageTooLarge, InvalidImage


class RequestError(Exception):
    """Base of the typed errors; the body of the answer is `{"error": class name, "message": text}`."""

    status = 400


class InvalidJson(RequestError):
    """The body is not a JSON object in UTF-8."""


class InvalidRequest(RequestError):
    """The JSON object lacks a key, or has one that is not understood."""


class InvalidBase64(RequestError):
    """The picture in the JSON object is not base64."""


class InvalidTopK(RequestError):
    """`top_k` is not a positive integer."""


class RequestTimeout(RequestError):
    """The caller did not send the whole body in time."""

    status = 408


class BodyTooLarge(RequestError):
    """The body has more bytes than InvokeEndpoint accepts."""

    status = 413


class UnsupportedContentType(RequestError):
    """The Content-Type is neither a picture nor JSON."""

    status = 415


class NotReady(RequestError):
    """The model is still loading, or could not be loaded."""

    status = 503


class Overloaded(RequestError):
    """As many requests wait as the queue holds; try again after `Retry-After`."""

    status = 503


class DeadlineExceeded(RequestError):
    """No answer within the deadline."""

    status = 503


def status_of(error: Exception) -> int | None:
    """The HTTP status of a typed error; None for any other exception."""
    if isinstance(error, RequestError):
        return error.status
    if isinstance(error, ImageTooLarge):
        return 413
    return 400 if isinstance(error, InvalidImage) else None
