"""Protobuf <-> core, both directions, and nowhere else.

`read_*` turns messages into core types, `write_*` core types into messages. The server reads
requests and writes answers, the client the other way round.
"""
