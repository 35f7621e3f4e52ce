"""Asks the head of a cluster, before Ray does, whether it is a head and accepts this process.

Ray itself tries for a minute or more, prints lines of its core meanwhile, and may end the process.
"""

from __future__ import annotations

from typing import Final

import grpc
from ray._private.grpc_utils import init_grpc_channel
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

_ANSWER_SECONDS: Final = 5.0
_PORTS: Final = "the port of a head (GCS) is 6379 unless it was set, 8265 is the dashboard's"
_TOKEN: Final = (
    "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to the token with which "
    "the head was started"
)


def check_head(address: str) -> str:
    """Return Ray's version on the head at ``address`` (``host:port``).

    Raises
    ------
    ConnectionError
        Nothing listens there, the listener is no head, it does not answer within five seconds, or
        it refuses this process's token. The message says what to do.
    """
    channel = init_grpc_channel(address)
    try:
        stub = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
        reply = stub.CheckAlive(gcs_service_pb2.CheckAliveRequest(), timeout=_ANSWER_SECONDS)
    except grpc.RpcError as error:
        raise ConnectionError(_reason(error)) from None
    finally:
        channel.close()
    return str(reply.ray_version)


def _reason(error: grpc.RpcError) -> str:
    code, details = error.code(), str(error.details())
    if code == grpc.StatusCode.UNAUTHENTICATED:
        return f"the cluster asks for another token than this process has; {_TOKEN}"
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"it does not answer within {_ANSWER_SECONDS:.0f} s"
    if code == grpc.StatusCode.UNAVAILABLE and "HTTP/2" not in details:
        return f"nothing listens there ({details.rpartition(': ')[2]})"
    return f"what listens there is not the head of a Ray cluster; {_PORTS}"
