"""Where and when: cost model, policies, placements, and the Dispatcher that decides."""

from agentic_ray.schedule.contract import Policy
from agentic_ray.schedule.cost_model import CostModel, Prediction
from agentic_ray.schedule.dispatcher import Dispatcher
from agentic_ray.schedule.placement import Placement
from agentic_ray.schedule.policies import LoadBalance, get_policy
from agentic_ray.schedule.records import RetryRules
from agentic_ray.schedule.view import ClusterView, Executor

__all__ = [
    "ClusterView",
    "CostModel",
    "Dispatcher",
    "Executor",
    "LoadBalance",
    "Placement",
    "Policy",
    "Prediction",
    "RetryRules",
    "get_policy",
]
