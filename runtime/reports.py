"""
Findings as plain data, the same on HTTP and in the command line's JSON.

Imports nothing heavy: `pilothouse validate` uses it too.
"""

from typing import Any

from pilothouse.graph.findings import Finding


def finding_data(finding: Finding) -> dict[str, Any]:
    """Return a finding as plain data; what is unknown is left out."""
    ref = finding.ref
    data = {
        "severity": finding.severity.name.lower(),
        "code": finding.code,
        "kind": ref.kind,
        "namespace": ref.namespace,
        "name": ref.name,
        "cluster": ref.cluster,
        "path": ref.path,
        "file": ref.file,
        "line": ref.line,
        "message": finding.message,
        "remedy": finding.remedy,
    }
    return {key: value for key, value in data.items() if value not in {"", 0}}
