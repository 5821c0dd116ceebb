"""What keeps a dependency's trouble small: retry, circuit breaker, batching, cache, rate limit."""
