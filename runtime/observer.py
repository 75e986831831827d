"""
What streams do, made log lines and metrics.

Logs people's matters (a proxy came, went, or refused something) at most once per matter; counts
everything. Error texts of proxies are cut by `xds` before they come here.
"""

import structlog

from pilothouse.model.proxies import Proxy
from pilothouse.model.resource import SHORT_NAMES
from pilothouse.runtime.metrics import Metrics
from pilothouse.xds.rejections import RejectedResource

log = structlog.get_logger()
