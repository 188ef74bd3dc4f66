"""The one way to the engine for the page, the HTTP interface and the command line: ``Service`` and its fair queue."""

from indextts.service.fair_queue import FairQueue, Job, ServiceConfig
from indextts.service.service import Finished, ModelFacts, Service, ServiceStats

__all__ = ["FairQueue", "Finished", "Job", "ModelFacts", "Service", "ServiceConfig", "ServiceStats"]
