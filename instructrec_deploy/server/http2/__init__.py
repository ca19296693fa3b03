"""gRPC over HTTP/2 on the server's own event loop."""
