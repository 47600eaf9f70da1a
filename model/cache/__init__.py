"""Keys and values: pages, the caches that read and write them, and prefixes that are kept."""

from .kv_cache import KVCache
from .page_pool import PAGE, PagePool, PoolFull
from .prefix_cache import CacheStats, PrefixCache
from .prefix_key import PrefixKey

__all__ = ["PAGE", "CacheStats", "KVCache", "PagePool", "PoolFull", "PrefixCache", "PrefixKey"]
