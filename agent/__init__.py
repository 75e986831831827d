"""
An agent beside an Envoy: makes its keys in place, and serves them as Istio's agent does.

A process of its own on the workload's host. Knows the control plane by its public protocols only.
"""
