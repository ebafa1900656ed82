"""Everything that decides: static, greedy, online, optimal and learned policies."""
