"""Network models: from demand on a topology to seconds."""

from topomoe.network.bottleneck import bottleneck

__all__ = ["bottleneck"]
