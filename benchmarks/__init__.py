"""Speed beside other libraries and beside the limit: `python -m benchmarks`, explained in `docs/performance.md`."""
