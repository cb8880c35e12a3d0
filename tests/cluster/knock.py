"""Try the doors of a cluster: run on a host, with ports of other hosts; one JSON line for each.

    python knock.py IP:PORT [IP:PORT ...]

Each port is asked over plain HTTP for what servers like to leave public, and over gRPC for one
harmless call of every service that Ray has, with the token in KNOCK_TOKEN where that is set.
"opened" lists the answers that a caller without rights should not get: any HTTP status but 401, 403
and 404, any gRPC status but "not authenticated" and "no such method".
"""

import http.client
import json
import os
import socket
import sys

import grpc

TIMEOUT_S = 5.0
PATHS = ["/", "/metrics", "/api/version", "/api/jobs/", "/api/healthz", "/api/local_raylet_healthz",
         "/api/gcs_healthz", "/logs", "/get_runtime_envs_info", "/nodes?view=summary"]  # fmt: skip
CALLS = [
    "ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "ray.rpc.NodeInfoGcsService/CheckAlive",
    "ray.rpc.InternalKVGcsService/InternalKVKeys",
    "ray.rpc.autoscaler.AutoscalerStateService/GetClusterStatus",
    "ray.rpc.NodeManagerService/GetNodeStats",
    "ray.rpc.NodeManagerService/GetSystemConfig",
    "ray.rpc.ObjectManagerService/Pull",
    "ray.rpc.CoreWorkerService/GetCoreWorkerStats",
    "ray.rpc.ReporterService/HealthCheck",
    "ray.rpc.ReporterService/GetTraceback",
    "ray.rpc.LogService/ListLogs",
    "ray.rpc.events.EventAggregatorService/AddEvents",
    "ray.rpc.RayletDriver/ClusterInfo",
    "ray.rpc.RayletLogStreamer/Logstream",
    "grpc.health.v1.Health/Check",
    "opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
]
TURNED_AWAY = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED,
               grpc.StatusCode.UNAVAILABLE}  # fmt: skip


def over_http(ip: str, port: int, path: str, token: str) -> str:
    """The status of a GET, if it opens anything."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection = http.client.HTTPConnection(ip, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path, headers=headers)
        status = connection.getresponse().status
    except (http.client.HTTPException, OSError):
        return ""  # speaks something else, or nothing
    finally:
        connection.close()
    return "" if status in (401, 403, 404) else f"{path}: {status}"


def over_grpc(channel: grpc.Channel, call: str, token: str) -> str:
    """The status of an empty request, if it opens anything."""
    metadata = [("authorization", f"Bearer {token}")] if token else []
    try:
        channel.unary_unary(f"/{call}")(b"", timeout=TIMEOUT_S, metadata=metadata)
    except grpc.RpcError as error:
        return "" if error.code() in TURNED_AWAY else f"{call}: {error.code().name}"
    return f"{call}: OK"


def opened(ip: str, port: int, token: str) -> list[str]:
    """All that the port gives."""
    try:
        socket.create_connection((ip, port), timeout=TIMEOUT_S).close()
    except OSError:
        return []
    answers = [over_http(ip, port, path, token) for path in PATHS]
    with grpc.insecure_channel(f"{ip}:{port}") as channel:
        answers += [over_grpc(channel, call, token) for call in CALLS]
    return [answer for answer in answers if answer]


def main() -> None:
    """Knock at every door that is named."""
    token = os.environ.get("KNOCK_TOKEN", "")
    for address in sys.argv[1:]:
        ip, port = address.rsplit(":", 1)
        print(json.dumps({"door": address, "opened": opened(ip, int(port), token)}), flush=True)


if __name__ == "__main__":
    main()
