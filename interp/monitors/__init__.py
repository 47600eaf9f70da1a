"""Monitors: probes that watch a model while it writes.

from bitlens.interp.monitors import Monitor
from bitlens.interp.probes import Probe
monitor = Monitor(Probe.load("harm", model), on_alarm="stop")
result = model.generate(prompt, monitors=[monitor])
result.finish_reason, result.alarms, result.scores
"""

from .alarm import Alarm, Explanation
from .monitor import Monitor
from .trail import AuditTrail, read_trail

__all__ = ["Alarm", "AuditTrail", "Explanation", "Monitor", "read_trail"]
