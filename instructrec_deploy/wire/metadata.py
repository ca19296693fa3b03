"""Names of the trailing metadata that say more about an error. Promises, as field numbers are."""

from __future__ import annotations

CODE_KEY = "instructrec-code"  # IR-nnnn
HINT_KEY = "instructrec-hint"  # percent-encoded UTF-8
RETRY_KEY = "instructrec-retry-after-ms"
PUSHBACK_KEY = "grpc-retry-pushback-ms"  # gRPC's own: how long a client that retries waits
DETAILS_KEY = "grpc-status-details-bin"  # google.rpc.Status with ErrorInfo and RetryInfo
