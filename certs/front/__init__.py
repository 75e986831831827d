"""
The TLS front of the secure port: a process of its own, and the side of it in the main process.

Python's gRPC can require client certificates or not ask for them; the secure port needs "verify if
given" (security.md H5). The front ends TLS, tells the main process who is there, and passes the
bytes on to a gRPC server on a Unix socket. What runs in the front imports as little as it can.
"""
